"""The ledger's grid: equipment by windows of the last 24 hours, drawn as SVG paths."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.contract.ledger import WINDOW_US
from appliance.ledger.accounts import Account, Window, WindowState
from appliance.ui import words
from appliance.ui.ledger import HOUR_US, Totals, first_us, state_of, totals, totals_of

COLUMNS: Final = 288
ROWS_MAX: Final = 60
BY_AREA_FROM: Final = 30
"""With more equipment than this, the grid shows areas, and each is opened by hand."""
_WORST: Final = (WindowState.GREEN, WindowState.EXPLAINED, WindowState.WAITING, WindowState.MISSING)


@dataclass(frozen=True, slots=True)
class Row:
    """One equipment, or one area, over the windows: SVG paths by state, in units of one window and of one hour."""

    name: str
    """The path."""
    title: str
    windows: Mapping[str, str]
    hours: Mapping[str, str]
    summary: str
    state: WindowState


@dataclass(frozen=True, slots=True)
class Area:
    """Rows that belong together; `row` stands for all of them, None when they are shown without it."""

    row: Row | None
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One hour or window to choose: its start and its state."""

    start_us: int
    state: WindowState | None
    """None when nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Grid:
    """24 hours. `more` rows are on further pages."""

    from_us: int
    areas: tuple[Area, ...]
    hours: tuple[Step, ...]
    totals: Totals
    equipment: int
    more: int


def grid(windows: Sequence[Window], now_us: int, skip: int = 0) -> Grid:
    """The last 24 hours, the equipment with the worst news first; at most `ROWS_MAX` rows from `skip` on."""
    from_us = first_us(now_us)
    cells: dict[str, list[WindowState | None]] = {}
    sums: dict[str, list[Account]] = {}
    overall: list[WindowState | None] = [None] * COLUMNS
    for window in windows:
        column = (window.start_us - from_us) // WINDOW_US
        if not 0 <= column < COLUMNS:
            continue
        overall[column] = worse(overall[column], window.state)
        for account in window.accounts:
            states = cells.setdefault(account.equipment, [None] * COLUMNS)
            states[column] = worse(states[column], state_of(window, account))
            sums.setdefault(account.equipment, []).append(account)
    names = sorted(cells, key=lambda name: (-_rank(_worst(cells[name])), name))
    shown = names[skip : skip + ROWS_MAX]
    rows = {name: _row(name, cells[name], sums[name]) for name in shown}
    return Grid(
        from_us=from_us,
        areas=_areas(rows, cells, sums) if len(names) > BY_AREA_FROM else (Area(None, tuple(rows.values())),),
        hours=tuple(
            Step(from_us + 12 * hour * WINDOW_US, _worst(overall[12 * hour : 12 * hour + 12])) for hour in range(24)
        ),
        totals=totals(windows),
        equipment=len(names),
        more=max(0, len(names) - skip - ROWS_MAX),
    )


def steps(windows: Iterable[Window], hour_us: int) -> tuple[Step, ...]:
    """The twelve windows of an hour."""
    states: dict[int, WindowState | None] = {}
    for window in windows:
        states[window.start_us] = worse(states.get(window.start_us), window.state)
    return tuple(Step(at_us, states.get(at_us)) for at_us in range(hour_us, hour_us + HOUR_US, WINDOW_US))


def worse(one: WindowState | None, other: WindowState | None) -> WindowState | None:
    return max(one, other, key=_rank)


def _rank(state: WindowState | None) -> int:
    return _WORST.index(state) if state is not None else -1


def _worst(states: Iterable[WindowState | None]) -> WindowState | None:
    return max(states, key=_rank, default=None)


def _row(name: str, states: Sequence[WindowState | None], accounts: Sequence[Account], title: str = "") -> Row:
    hours = [_worst(states[at : at + 12]) for at in range(0, COLUMNS, 12)]
    worst = _worst(states) or WindowState.WAITING
    title = title or name.rpartition("/")[2] or name
    return Row(name, title, paths(states), paths(hours), _summary(accounts), worst)


def _summary(accounts: Sequence[Account]) -> str:
    total = totals_of(accounts)
    dropped = sum(total.dropped.values())
    parts = ((total.missing, "missing"), (total.waiting, "waiting"), (dropped, "dropped"))
    said = [f"{words.count(number)} {word}" for number, word in parts if number]
    return ", ".join(said) or f"{words.count(total.in_lake)} in the lake"


def _areas(
    rows: Mapping[str, Row], cells: Mapping[str, Sequence[WindowState | None]], sums: Mapping[str, Sequence[Account]]
) -> tuple[Area, ...]:
    """The rows under the area they stand in: the third level of the path."""
    areas: dict[str, list[str]] = {}
    for name in rows:
        areas.setdefault("/".join(name.split("/")[:3]), []).append(name)
    made = []
    for area, names in areas.items():
        states = [_worst(column) for column in zip(*(cells[name] for name in names), strict=True)]
        accounts = [account for name in names for account in sums[name]]
        title = f"{words.title(area.rpartition('/')[2])} · {len(names)}"
        made.append(Area(_row(area, states, accounts, title), tuple(rows[name] for name in names)))
    return tuple(made)


def paths(states: Sequence[WindowState | None]) -> dict[str, str]:
    """SVG path data by state, 16 units high: runs of the same state are one bar. The height tells the state too.

    In the lake: a full bar. Dropped: two stripes. Waiting: a thin line. Missing: the whole height.
    """
    drawn: dict[str, str] = {}
    start = 0
    for at in range(1, len(states) + 1):
        if at < len(states) and states[at] == states[start]:
            continue
        state = states[start]
        if state is not None:
            bars = "".join(f"M{start} {top}h{at - start}v{height}h-{at - start}z" for top, height in _BARS[state])
            drawn[state.value] = drawn.get(state.value, "") + bars
        start = at
    return drawn


_BARS: Final = {
    WindowState.GREEN: ((4, 8),),
    WindowState.EXPLAINED: ((3, 3), (10, 3)),
    WindowState.WAITING: ((7, 2),),
    WindowState.MISSING: ((0, 16),),
}
