"""The routes of the ledger."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from time import monotonic
from typing import Annotated, Any, Final, TypeAlias

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import Response

from appliance.buffer.schema import StoreError
from appliance.contract.ledger import WINDOW_US
from appliance.ledger.accounts import Account, Window, WindowState
from appliance.ui import ledger, ledger_grid, words
from appliance.ui.frame import cloud
from appliance.ui.pages import Pages

UNDER_WAY: Final = ("cut", "draining", "confirming")
"""Phases of a rehearsal, as its status says them."""
HOURS_MAX: Final = 24
ASK_S: Final = 3.0
"""However many pages are open, the ledger is asked at most this often for the last 24 hours."""
REST: Final = 10
"""And when it takes long, then it rests this many times as long."""
TIME_US_MAX: Final = 250_000_000_000_000_000
ACCOUNTS_MAX: Final = 50_000
"""Accounts in one answer to a program; the oldest windows are left out beyond, and counted."""

Moment: TypeAlias = Annotated[int | None, Query(ge=0, le=TIME_US_MAX)]


@dataclass(frozen=True, slots=True)
class Day:
    """The windows of the last 24 hours, newest first, and when they were read."""

    windows: list[Window]
    now_us: int
    grids: dict[int, ledger_grid.Grid]
    """By the rows that are skipped, as far as somebody has looked."""


class Books:
    """The last 24 hours, read and drawn once for all pages together."""

    def __init__(self, source: ledger.Ledger, now_us: Callable[[], int]) -> None:
        self.source, self._now_us = source, now_us
        self._lock = asyncio.Lock()
        self._day = Day([], 0, {})
        self._due_s = 0.0

    async def day(self) -> Day:
        """Raises `StoreError` or `sqlite3.Error` when the ledger's file cannot be read."""
        async with self._lock:
            await self._read()
            return self._day

    async def grid(self, skip: int) -> tuple[Day, ledger_grid.Grid]:
        """The grid from a row on; raises what `day` raises."""
        async with self._lock:
            await self._read()
            day = self._day
            if skip not in day.grids:
                began_s = monotonic()
                day.grids[skip] = await asyncio.to_thread(ledger_grid.grid, day.windows, day.now_us, skip)
                self._due_s += REST * (monotonic() - began_s)
            return day, day.grids[skip]

    async def _read(self) -> None:
        began_s = monotonic()
        if began_s >= self._due_s:
            now_us = self._now_us()
            self._day = Day(await self.source.windows(ledger.first_us(now_us), now_us + 1), now_us, {})
            self._due_s = monotonic() + max(ASK_S, REST * (monotonic() - began_s))


def add_ledger(app: FastAPI, pages: Pages, source: ledger.Ledger | None) -> None:
    """`/ledger` and `/api/ledger`; without a ledger both say that there is none."""
    books = Books(source, pages.view.now_us) if source else None

    @app.get("/ledger")
    async def ledger_page(
        request: Request, window: Moment = None, hour: Moment = None, skip: Annotated[int, Query(ge=0, le=10**6)] = 0
    ) -> Response:
        common: dict[str, Any] = {"live_url": "/events", "words_of": ledger.words_of, "state_words": ledger.WORDS}
        common |= _room(pages)
        if books is None:
            return pages.render(request, "ledger", problem="This plant keeps no ledger.", **common)
        try:
            day, grid = await books.grid(skip)
        except (StoreError, sqlite3.Error, OSError) as error:
            text = f"The ledger cannot be read: {error}. It is made again from the log when its file is taken away."
            return pages.render(request, "ledger", problem=text, **common)
        has_uplink = common["link"] is not None
        head = ledger.headline(day.windows, books.source.status(), day.now_us, pages.clock, has_uplink=has_uplink)
        common |= _chosen(day.windows, window, hour)
        return pages.render(request, "ledger", problem="", head=head, grid=grid, skip=skip, **common)

    @app.get("/api/ledger")
    async def ledger_json(hours: Annotated[float, Query(gt=0, le=HOURS_MAX)] = HOURS_MAX) -> Response:
        if books is None:
            raise HTTPException(404, "This plant keeps no ledger.")
        try:
            day = await books.day()
        except (StoreError, sqlite3.Error, OSError) as error:
            raise HTTPException(503, f"The ledger cannot be read: {error}") from error
        since_us = pages.view.now_us() - round(hours * ledger.HOUR_US)
        status = jsonable_encoder(books.source.status())
        return Response(
            await asyncio.to_thread(_document, day.windows, since_us, status), media_type="application/json"
        )


def _document(windows: list[Window], since_us: int, status: object) -> bytes:
    """Status, states and totals of the asked time, and its windows, as JSON."""
    shown = [window for window in windows if window.start_us > since_us - WINDOW_US]
    states = {state.value: sum(window.state is state for window in shown) for state in WindowState}
    told: list[dict[str, object]] = []
    accounts = 0
    for window in shown:
        accounts += len(window.accounts)
        if told and accounts > ACCOUNTS_MAX:
            break
        told.append(_plain(window) | {"accounts": list(map(_plain, window.accounts))})
    totals = asdict(ledger.totals(shown))
    body = {"status": status, "states": states, "totals": totals, "left_out": len(shown) - len(told), "windows": told}
    return json.dumps(body, separators=(",", ":")).encode()


def _plain(row: Window | Account) -> dict[str, Any]:
    """The fields as they are: `asdict` would copy each of thousands deeply."""
    return {field.name: getattr(row, field.name) for field in fields(row)}


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
    """The link, what waits, how long the log has room, and whether an outage is being rehearsed."""
    status = pages.status()
    buffer = status.get("buffer")
    days = buffer.get("days_to_full") if isinstance(buffer, Mapping) else None
    full = f"{days:.1f} days" if isinstance(days, (int, float)) and days >= 1 else ""
    if isinstance(days, (int, float)) and days < 1:
        full = words.length(days * 86_400)
    drill = status.get("rehearsal")
    is_rehearsing = isinstance(drill, Mapping) and drill.get("phase") in UNDER_WAY
    return {"link": cloud(status, pages.view.now_us()), "full": full, "is_rehearsing": is_rehearsing}
