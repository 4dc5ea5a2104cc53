"""The routes of the outage rehearsal: what changes anything takes requests of its own pages alone."""

import asyncio
import json
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI, HTTPException, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from appliance.rehearsal.rehearsal import MINUTES_MAX, MINUTES_MIN
from appliance.rehearsal.report_file import Shelf, style_hash
from appliance.rehearsal.seams import Refused, RehearsalStatus
from appliance.rehearsal.signing import SigningError
from appliance.ui.headers import CONTENT_SECURITY_POLICY
from appliance.ui.pages import Pages

BODY_BYTES_MAX: Final = 10_000
MINUTES: Final = (5, 15, 30, 60, 120, 240)
_FORM: Final = "application/x-www-form-urlencoded"


class Drill(Protocol):
    """The Rehearsal, as the page knows it."""

    @property
    def shelf(self) -> Shelf: ...
    @property
    def is_running(self) -> bool: ...
    async def start(self, minutes: float, by: str) -> None: ...
    async def cancel(self, by: str) -> None: ...
    def status(self) -> RehearsalStatus: ...


def add_rehearsal(app: FastAPI, pages: Pages, drill: Drill | None) -> None:
    """`/rehearsals`, its reports, and `/api/rehearsal`."""
    _add_reports(app, pages, drill)

    def known() -> Drill:
        if drill is None:
            raise HTTPException(404, "This plant has no cloud link to rehearse with.")
        return drill

    @app.get("/api/rehearsal")
    async def rehearsal_json() -> Response:
        return JSONResponse(jsonable_encoder(known().status()))

    @app.post("/api/rehearsal/start")
    async def start(request: Request) -> Response:
        body = await _own_body(request)
        minutes = _minutes(body.get("minutes"))
        return await _done(request, pages, known(), known().start(minutes, _who(request)))

    @app.post("/api/rehearsal/cancel")
    async def cancel(request: Request) -> Response:
        await _own_body(request)
        return await _done(request, pages, known(), known().cancel(_who(request)))


def _add_reports(app: FastAPI, pages: Pages, drill: Drill | None) -> None:
    @app.get("/rehearsals")
    async def rehearsals(request: Request, minutes: int | None = None) -> Response:
        return await _page(request, pages, drill, minutes)

    @app.get("/rehearsals/{name}")
    async def report(name: str) -> Response:
        text = await asyncio.to_thread(drill.shelf.text, name) if drill else None
        if text is None:
            raise HTTPException(404, "There is no report of this name. The page of the rehearsals lists all of them.")
        policy = CONTENT_SECURITY_POLICY.replace("style-src 'self'", f"style-src '{style_hash()}'")
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})


async def _page(
    request: Request, pages: Pages, drill: Drill | None, minutes: int | None = None, refused: str = "", code: int = 200
) -> Response:
    data: dict[str, Any] = {"live_url": "/events", "choices": MINUTES, "refused": refused, "self_url": "/rehearsals"}
    data |= {"minutes_min": MINUTES_MIN, "minutes_max": MINUTES_MAX, "minutes": minutes}
    if drill is None:
        return pages.render(request, "rehearsal", code, status=None, reports=(), **data)
    if minutes is not None and not drill.is_running:
        data["self_url"] = f"/rehearsals?minutes={minutes}"
    reports = await asyncio.to_thread(drill.shelf.list)
    data |= {"refresh_s": 2 if drill.is_running else 5, "status": drill.status(), "is_running": drill.is_running}
    return pages.render(request, "rehearsal", code, reports=reports, **data)


async def _done(request: Request, pages: Pages, drill: Drill, doing: Any) -> Response:
    """A form leads back to the page, a program gets JSON; what is refused is 409 with the reason."""
    is_form = _content_type(request) == _FORM
    try:
        await doing
    except (Refused, SigningError, OSError) as error:
        if is_form:
            return await _page(request, pages, drill, None, str(error), 409)
        return JSONResponse({"error": str(error)}, 409)
    return RedirectResponse("/rehearsals", 303) if is_form else JSONResponse(jsonable_encoder(drill.status()))


async def _own_body(request: Request) -> dict[str, Any]:
    """The fields of a form or of JSON; 403 for what another site's page has sent, 415 and 422 for anything else."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    is_foreign = site is not None and site not in ("same-origin", "none")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        is_foreign = True
    if is_foreign:
        raise HTTPException(403, "Only the appliance's own page may ask for this.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            raise HTTPException(413, "This is more than a request for a rehearsal.")
    kind = _content_type(request)
    if kind == _FORM:
        return {key: texts[-1] for key, texts in parse_qs(body.decode("utf-8", "replace")).items()}
    if kind != "application/json":
        raise HTTPException(415, 'Send a form, or JSON such as {"minutes": 30}.')
    try:
        fields = json.loads(body or b"{}")
    except ValueError as error:
        raise HTTPException(422, f"The JSON cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise HTTPException(422, 'Send an object such as {"minutes": 30}.')
    return fields


def _minutes(said: object) -> float:
    try:
        return float(said)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise HTTPException(422, f"minutes is a number from {MINUTES_MIN} to {MINUTES_MAX}.") from None


def _who(request: Request) -> str:
    """There are no users here, so the address is all that is known."""
    where = request.client.host if request.client else "an unknown address"
    agent = "the page" if "sec-fetch-site" in request.headers or "origin" in request.headers else "a command"
    return f"{agent} at {where}"


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
