"""The ledger as the page shows it: one sentence, and the accounts of windows added up."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from appliance.contract.ledger import WINDOW_US
from appliance.contract.ranges import size
from appliance.ledger.accounts import Account, Window, WindowState
from appliance.ui import words

HOUR_US: Final = 3_600_000_000
RANGES_SHOWN_MAX: Final = 200
ON_ITS_WAY_US: Final = 900_000_000
"""What is younger is expected to wait: the window must close, and the cloud must look."""
SILENT_S: Final = 1_800.0
WORDS: Final = {
    WindowState.GREEN: "in the lake",
    WindowState.EXPLAINED: "dropped, explained",
    WindowState.WAITING: "waiting",
    WindowState.MISSING: "missing",
}


class LedgerSays(Protocol):
    """Of what the Ledger says of itself, what the headline needs."""

    @property
    def missing_readings(self) -> int: ...
    @property
    def missing(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def receipt_age_s(self) -> float | None: ...


class Ledger(Protocol):
    """The accounts of the windows, newest first."""

    async def windows(self, from_us: int, to_us: int) -> list[Window]: ...
    def status(self) -> LedgerSays: ...


@dataclass(frozen=True, slots=True)
class Headline:
    """The whole ledger in one sentence and a half."""

    text: str
    more: str
    state: WindowState


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers of some accounts, added up."""

    produced: int
    stored: int
    sent: int
    acknowledged: int
    in_lake: int
    dropped: Mapping[str, int]
    missing: int
    waiting: int
    """What is neither in the lake, nor dropped, nor missing."""


def headline(
    windows: Sequence[Window], says: LedgerSays, now_us: int, clock: words.Clock, *, has_uplink: bool
) -> Headline:
    """The worst first: what is missing, then a cloud that is silent, then what waits longer than it should."""
    if not has_uplink:
        kept = "All that comes in is kept and counted here; see [uplink] of the configuration."
        return Headline("No cloud is configured, so nothing is sent and nothing is proved", kept, WindowState.WAITING)
    missing = max(says.missing_readings, sum(size(window.missing) for window in windows))
    differing = sum(window.is_differing for window in windows)
    if missing:
        named = words_of(says.missing or tuple(part for window in windows for part in window.missing), 5)
        verb = "reading is" if missing == 1 else "readings are"
        sends = f"Numbers {named}. The appliance sends them again by itself."
        return Headline(f"{words.count(missing)} {verb} missing in the lake", sends, WindowState.MISSING)
    if differing:
        what = f"{differing} window{'s' if differing > 1 else ''} in the lake differ from what the plant wrote down"
        return Headline(what, "Nothing is missing by number; choose a window below.", WindowState.MISSING)
    if not windows:
        return Headline("Nothing has been counted yet", _first_window(now_us, clock), WindowState.WAITING)
    waiting = [window for window in windows if window.state is WindowState.WAITING]
    count, oldest_us = totals(waiting).waiting, min((window.start_us for window in waiting), default=now_us)
    if says.receipt_age_s is None or says.receipt_age_s > SILENT_S:
        age_s = says.receipt_age_s
        since = "since the appliance started" if age_s is None else f"for {words.length(age_s)}"
        what = f"{words.count(count)} readings wait for its word." if count else ""
        return Headline(f"The cloud has not said anything {since}", what, WindowState.WAITING)
    if now_us - oldest_us > ON_ITS_WAY_US:
        what = f"{words.count(count)} readings wait" if count else "Windows wait to be compared"
        return Headline(
            f"{what} for the cloud since {clock.minute(oldest_us)}", "Nothing is missing.", WindowState.WAITING
        )
    dropped = sum(totals(windows).dropped.values())
    said = f"{words.count(dropped)} were dropped, and gaps say why." if dropped else "The cloud has confirmed it."
    way = f" What came since {clock.minute(oldest_us)} is on its way." if waiting else ""
    state = WindowState.EXPLAINED if dropped else WindowState.GREEN
    return Headline("Every reading is accounted for", said + way, state)


def first_us(now_us: int) -> int:
    """Where the grid begins: 24 hours that end with the hour that runs."""
    return now_us - now_us % HOUR_US - 23 * HOUR_US


def totals(windows: Iterable[Window]) -> Totals:
    """Of whole windows: a settled one may have lost numbers since, of which its accounts do not tell."""
    windows = list(windows)
    of_accounts = totals_of([account for window in windows for account in window.accounts])
    return replace(of_accounts, missing=max(of_accounts.missing, sum(size(window.missing) for window in windows)))


def totals_of(accounts: Sequence[Account]) -> Totals:
    dropped: dict[str, int] = {}
    for account in accounts:
        for reason, number in account.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + number
    produced, in_lake = sum(account.produced for account in accounts), sum(account.in_lake for account in accounts)
    missing = sum(account.missing for account in accounts)
    return Totals(
        produced=produced,
        stored=sum(account.stored for account in accounts),
        sent=sum(account.sent for account in accounts),
        acknowledged=sum(account.acknowledged for account in accounts),
        in_lake=in_lake,
        dropped={reason: number for reason, number in sorted(dropped.items()) if number},
        missing=missing,
        waiting=max(0, produced - in_lake - sum(dropped.values()) - missing),
    )


def state_of(window: Window, account: Account) -> WindowState:
    """The state of one equipment in a window: green only when the window as a whole has the cloud's word."""
    if account.missing or window.is_differing:
        return WindowState.MISSING
    dropped = sum(account.dropped.values())
    if account.produced > account.in_lake + dropped or window.state is WindowState.WAITING:
        return WindowState.WAITING
    return WindowState.EXPLAINED if dropped else WindowState.GREEN


def words_of(ranges: Sequence[tuple[int, int]], shown_max: int = RANGES_SHOWN_MAX) -> str:
    """Ranges as text, with how many more there are than shown."""
    parts = [f"{first}" if first == last else f"{first}–{last}" for first, last in ranges[:shown_max]]
    more = len(ranges) - shown_max
    return ", ".join(parts) + (f" and {more} more ranges" if more > 0 else "")


def _first_window(now_us: int, clock: words.Clock) -> str:
    return f"The window that runs now ends at {clock.minute(now_us - now_us % WINDOW_US + WINDOW_US)}."
