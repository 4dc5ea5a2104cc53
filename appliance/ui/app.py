"""The routes of the page."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.gzip import GZipMiddleware

import web
from appliance.contract.prediction import PREDICTION_TAG
from appliance.ui import words
from appliance.ui.detail import detail, event_row
from appliance.ui.detail import state as detail_state
from appliance.ui.detail import values as detail_values
from appliance.ui.frame import parts
from appliance.ui.frame import values as frame_values
from appliance.ui.headers import SafeHeaders
from appliance.ui.ledger import Ledger
from appliance.ui.ledger_api import add_ledger
from appliance.ui.live import stream
from appliance.ui.machine import Machine
from appliance.ui.overview import main_tag, overview, unit
from appliance.ui.overview import state as overview_state
from appliance.ui.overview import values as overview_values
from appliance.ui.pages import Pages, Status
from appliance.ui.rehearsal_api import Drill, add_rehearsal
from appliance.ui.search import Found, find_at
from appliance.ui.single import single_values
from appliance.ui.trend import Past, fine_curve, long_curve
from appliance.ui.view import PlantView

FINE_S = 3_600
"""Ranges up to this length are drawn of single values."""
RANGES_S = {"1h": 3_600, "8h": 28_800, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}
CURVE_VALUES_MIN = 12
STREAMS_MAX = 100
"""Open live streams; a browser that gets none tries again."""


def create_app(
    view: PlantView,
    site: str,
    status: Status,
    metrics: Callable[[], str],
    ready: Callable[[], bool],
    zone: str = "UTC",
    past: Past | None = None,
    ledger: Ledger | None = None,
    rehearsal: Drill | None = None,
) -> FastAPI:
    """The page of one plant. `zone` is the plant's, and all times are shown in it.

    `status` says what every part reports, by the part's name; trends longer than the
    view's memory come from `past`; the pages of an absent `ledger` or `rehearsal` say that
    it is absent. `app.state.stopping` ends the live streams.
    """
    app = FastAPI(title=f"Plantward · {site}", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.stopping = asyncio.Event()
    app.mount("/static", StaticFiles(directory=web.STATIC), name="static")
    app.add_middleware(GZipMiddleware, minimum_size=1_000)
    app.add_middleware(SafeHeaders)
    pages = Pages(view, site, status, words.Clock(ZoneInfo(zone)))
    _add_pages(app, pages)
    _add_live(app, pages)
    _add_trends(app, view, past)
    add_ledger(app, pages, ledger)
    add_rehearsal(app, pages, rehearsal)
    _add_probes(app, status, metrics, ready)

    @app.exception_handler(StarletteHTTPException)
    async def problem(request: Request, error: StarletteHTTPException) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": error.detail}, error.status_code)
        return pages.render(request, "problem", error.status_code, code=error.status_code, text=error.detail)

    return app


def _machine(view: PlantView, path: str) -> Machine:
    machine = view.find(path)
    if machine is None:
        raise HTTPException(404, f"No equipment is called {path!r}. The overview lists all that have data.")
    return machine


def _add_pages(app: FastAPI, pages: Pages) -> None:
    view = pages.view

    @app.get("/")
    async def overview_page(request: Request) -> Response:
        return pages.render(request, "overview", data=overview(view), live_url="/events")

    @app.get("/equipment/{path:path}")
    async def detail_page(
        request: Request, path: str, span: Annotated[str, Query(alias="range")] = "", at: str = ""
    ) -> Response:
        machine, found, problem = _machine(view, path), None, ""
        if at.strip():
            found, problem = await _search(view, machine, at)
        span = span if span in RANGES_S else _fitting_range(machine)
        data = detail(view, machine, found)
        live_url = f"/events?equipment={quote(machine.path, safe='')}"
        extra: dict[str, Any] = {"found": found, "problem": problem, "at": at, "span": span, "ranges": list(RANGES_S)}
        # A search reads the log, so its page does not refresh by itself.
        refresh_s = 0 if at.strip() else 5
        return pages.render(request, "detail", data=data, live_url=live_url, refresh_s=refresh_s, **extra)

    @app.get("/alarms")
    async def alarms_page(request: Request) -> Response:
        standing = sorted(view.alarms.values(), key=lambda alarm: (alarm.priority, -alarm.raised_at_us))
        history = [event_row(alarm) for _, alarm in reversed(view.alarm_events)]
        return pages.render(
            request, "alarms", standing=list(map(event_row, standing)), history=history, live_url="/events"
        )

    @app.get("/system")
    async def system_page(request: Request) -> Response:
        return pages.render(request, "system", parts=parts(pages.status(), pages.clock), live_url="/events")


def _fitting_range(machine: Machine) -> str:
    """The shortest range, from 8 h on, with enough values to see a curve."""
    tag, end_us = main_tag(machine), machine.newest_us
    for span in ("8h", "24h"):
        if tag and len(tag.history.between(end_us - RANGES_S[span] * 1_000_000, end_us)[0]) >= CURVE_VALUES_MIN:
            return span
    return "7d" if tag and not tag.history.is_empty else "8h"


async def _search(view: PlantView, machine: Machine, at: str) -> tuple[Found | None, str]:
    source_us = words.from_iso(at)
    if source_us is None:
        return None, f"{at[:60]!r} is not a time; write it like 2026-11-22T08:42:00Z."
    return await find_at(view.buffer, machine.path, source_us), ""


def _add_live(app: FastAPI, pages: Pages) -> None:
    view, streams = pages.view, set[object]()

    @app.get("/events")
    async def events(equipment: str = "") -> Response:
        if len(streams) >= STREAMS_MAX:
            raise HTTPException(503, "Too many pages are open.")
        if equipment:
            machine = _machine(view, equipment)
            values, state = partial(detail_values, view, machine), partial(detail_state, view, machine)
        else:
            values, state = partial(overview_values, view), partial(overview_state, view)

        def texts() -> Mapping[str, str]:
            return {**frame_values(view, pages.status(), pages.clock), **values()}

        async def counted() -> AsyncIterator[str]:
            token = object()
            streams.add(token)
            try:
                async for message in stream(texts, state, app.state.stopping):
                    yield message
            finally:
                streams.discard(token)

        return StreamingResponse(counted(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _add_trends(app: FastAPI, view: PlantView, past: Past | None) -> None:
    @app.get("/api/trend")
    async def trend(topic: str, span: Annotated[str, Query(alias="range")] = "8h", w: int = 900) -> Response:
        known = view.history(topic)
        if known is None:
            raise HTTPException(404, f"No values of {topic!r} are known.")
        if span not in RANGES_S:
            raise HTTPException(422, f"range is one of {', '.join(RANGES_S)}.")
        machine, tag, history = known
        # The machine's own newest time, not the plant's: replayed data may be ten years old.
        end_us = machine.newest_us or view.clock_us()
        start_us = end_us - RANGES_S[span] * 1_000_000
        if RANGES_S[span] <= FINE_S and tag != PREDICTION_TAG:
            singles = partial(single_values, view.buffer)
            drawn = await fine_curve(history, past, singles, topic, start_us, end_us, w)
        else:
            drawn = await long_curve(history, past, topic, start_us, end_us, w)
        return JSONResponse(
            {
                "topic": topic,
                "unit": unit(machine, tag),
                "from": drawn.start_us / 1e6,
                "to": drawn.end_us / 1e6,
                "t": [at_us / 1e6 for at_us in drawn.times_us],
                "v": drawn.values,
                "gaps": [[begin / 1e6, end / 1e6] for begin, end in drawn.gaps_us],
                "samples": drawn.samples,
            }
        )


def _add_probes(app: FastAPI, status: Status, metrics: Callable[[], str], ready: Callable[[], bool]) -> None:
    @app.get("/api/status")
    async def status_json() -> Response:
        return JSONResponse(jsonable_encoder(dict(status())))

    @app.get("/favicon.ico")
    async def favicon() -> Response:
        return RedirectResponse("/static/favicon.svg")  # A report names no icon, so browsers ask for this one.

    @app.get("/healthz")
    async def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz")
    async def readyz() -> Response:
        is_ready = ready()
        return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)

    @app.get("/metrics")
    async def metrics_text() -> Response:
        return PlainTextResponse(metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")
