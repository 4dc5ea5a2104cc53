"""Pages: renders templates inside the frame."""

import hashlib
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

import web
from appliance.ui import words
from appliance.ui.frame import frame
from appliance.ui.view import PlantView

STATUS_S = 0.5

Status = Callable[[], Mapping[str, object]]


class Pages:
    """Renders templates inside the frame."""

    def __init__(self, view: PlantView, site: str, status: Status, clock: words.Clock) -> None:
        self.view, self.site, self.clock = view, site, clock
        self._ask, self._asked_s = status, -1e9
        self._status: Mapping[str, object] = {}
        self._templates = Jinja2Templates(directory=web.TEMPLATES)
        digest = hashlib.sha256()
        for path in sorted(web.STATIC.rglob("*")):
            digest.update(path.read_bytes() if path.is_file() else b"")
        version = digest.hexdigest()[:10]
        self._templates.env.globals |= {
            "asset": lambda name: f"/static/{name}?v={version}",
            "clock": clock,
            "iso": words.iso,
            "equipment_url": equipment_url,
            "priorities": words.PRIORITIES,
            "nothing": words.NOTHING,
            "count": words.count,
            "length": words.length,
        }

    def status(self) -> Mapping[str, object]:
        """What the parts say, asked at most twice a second however many pages are open."""
        if monotonic() - self._asked_s > STATUS_S:
            self._status, self._asked_s = self._ask(), monotonic()
        return self._status

    def render(self, request: Request, page: str, status_code: int = 200, **data: Any) -> HTMLResponse:
        around = frame(self.view, self.site, self.status(), self.clock, page)
        context = {"frame": around, "self_url": _self_url(request), "refresh_s": 5, **data}
        return self._templates.TemplateResponse(request, f"{page}.html", context, status_code=status_code)


def equipment_url(path: str) -> str:
    """The address of a machine's page, for any text a topic may hold."""
    return f"/equipment/{quote(path)}"


def _self_url(request: Request) -> str:
    query = request.scope["query_string"].decode("ascii", "replace")
    return quote(request.scope["path"]) + (f"?{query}" if query else "")
