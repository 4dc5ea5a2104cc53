"""The routes of the ledger."""

import asyncio
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from time import monotonic
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, Response

from appliance.buffer.accounts import Window, WindowState
from appliance.buffer.schema import StoreError
from appliance.contract.ledger import WINDOW_US
from appliance.ui import ledger, ledger_grid, words
from appliance.ui.frame import cloud
from appliance.ui.pages import Pages

HOURS_MAX: Final = 24
ASK_S: Final = 3.0
"""However many pages are open, the ledger is asked at most this often for the last 24 hours."""


class Books:
    """The windows of the last 24 hours, read for all pages together."""

    def __init__(self, source: ledger.Ledger, pages: Pages) -> None:
        self.source, self._pages = source, pages
        self._lock = asyncio.Lock()
        self._windows: list[Window] = []
        self._asked_s = -1e9

    async def windows(self) -> list[Window]:
        """Newest first; raises `StoreError` or `sqlite3.Error` when the ledger's file cannot be read."""
        async with self._lock:
            if monotonic() - self._asked_s > ASK_S:
                now_us = self._pages.view.now_us()
                self._windows = await self.source.windows(ledger.first_us(now_us), now_us + 1)
                self._asked_s = monotonic()
            return self._windows


def add_ledger(app: FastAPI, pages: Pages, source: ledger.Ledger | None) -> None:
    """`/ledger` and `/api/ledger`; without a ledger both say that there is none."""
    books = Books(source, pages) if source else None

    @app.get("/ledger")
    async def ledger_page(
        request: Request, window: int | None = None, hour: int | None = None, skip: int = 0
    ) -> Response:
        common: dict[str, Any] = {"live_url": "/events", "words_of": ledger.words_of, "state_words": ledger.WORDS}
        common |= _room(pages)
        if books is None:
            return pages.render(request, "ledger", problem="This plant keeps no ledger.", **common)
        try:
            windows = await books.windows()
        except (StoreError, sqlite3.Error, OSError) as error:
            text = f"The ledger cannot be read: {error}. It is made again from the log when its file is taken away."
            return pages.render(request, "ledger", problem=text, **common)
        now_us = pages.view.now_us()
        grid = await asyncio.to_thread(ledger_grid.grid, windows, now_us, max(0, skip))
        has_uplink = common["link"] is not None
        head = ledger.headline(windows, books.source.status(), now_us, pages.clock, has_uplink=has_uplink)
        chosen = _chosen(windows, window, hour)
        return pages.render(
            request, "ledger", problem="", head=head, grid=grid, skip=skip, now_us=now_us, **chosen, **common
        )

    @app.get("/api/ledger")
    async def ledger_json(hours: Annotated[float, Query(gt=0, le=HOURS_MAX)] = HOURS_MAX) -> Response:
        if books is None:
            raise HTTPException(404, "This plant keeps no ledger.")
        try:
            windows = await books.windows()
        except (StoreError, sqlite3.Error, OSError) as error:
            raise HTTPException(503, f"The ledger cannot be read: {error}") from error
        since_us = pages.view.now_us() - round(hours * ledger.HOUR_US)
        status = jsonable_encoder(books.source.status())
        return JSONResponse(await asyncio.to_thread(_document, windows, since_us, status))


def _document(windows: list[Window], since_us: int, status: object) -> dict[str, object]:
    shown = [window for window in windows if window.start_us > since_us - WINDOW_US]
    total = ledger.totals(shown)
    states = {state.value: sum(window.state is state for window in shown) for state in WindowState}
    totals = asdict(total) | {"waiting": total.waiting}
    return {"status": status, "states": states, "totals": totals, "windows": [asdict(window) for window in shown]}


def _chosen(windows: list[Window], window_us: int | None, hour_us: int | None) -> dict[str, Any]:
    """The hour and the window that were chosen, with their accounts, the worst first."""
    if window_us is not None:
        window_us -= window_us % WINDOW_US
        hour_us = window_us
    if hour_us is None:
        return {"hour_us": None, "window_us": None, "steps": (), "chosen": ()}
    hour_us -= hour_us % ledger.HOUR_US
    chosen = [each for each in windows if each.start_us == window_us]
    rows = [(each, ledger.totals_of(each.accounts), _accounts(each)) for each in chosen]
    return {"hour_us": hour_us, "window_us": window_us, "steps": ledger_grid.steps(windows, hour_us), "chosen": rows}


def _accounts(window: Window) -> list[tuple[Any, ledger.Totals, WindowState]]:
    ordered = sorted(window.accounts, key=lambda account: (-account.missing, account.equipment))
    return [
        (each, ledger.totals_of([each]), ledger.state_of(window, each)) for each in ordered[: 5 * ledger_grid.ROWS_MAX]
    ]


def _room(pages: Pages) -> dict[str, Any]:
    """The link, what waits, and how long the log has room."""
    status = pages.status()
    buffer = status.get("buffer")
    days = buffer.get("days_to_full") if isinstance(buffer, Mapping) else None
    full = f"{days:.1f} days" if isinstance(days, (int, float)) and days >= 1 else ""
    if isinstance(days, (int, float)) and days < 1:
        full = words.length(days * 86_400)
    return {"link": cloud(status, pages.view.now_us()), "full": full}
