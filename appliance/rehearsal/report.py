"""What an outage rehearsal found: its facts, and the verdict that follows from them. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from appliance.contract.ranges import size
from appliance.ledger.accounts import Account, Window, WindowState

SCHEMA: Final = "plantward.rehearsal/1"
RANGES_MAX: Final = 20
"""Missing ranges that a window of the report names."""
SETTLED: Final = (WindowState.GREEN, WindowState.EXPLAINED)


class Verdict(StrEnum):
    PASSED = "PASSED"
    FAILED = "FAILED"
    NOT_PROVEN = "NOT PROVEN"
    """The cloud has not said what it holds, or there was nothing to prove."""
    BROKEN_OFF = "BROKEN OFF"


@dataclass(slots=True)
class Course:
    """One rehearsal: what was asked, and what has come of it so far. Times ending in `_us` are 0 until they come."""

    plant: str
    epoch: int
    uplink: str
    by: str
    minutes: float
    started_us: int
    first: int
    """The first number that came in while the link was cut."""
    last: int = 0
    """The last one; as long as the link is cut, the last one so far."""
    restored_us: int = 0
    drained_us: int = 0
    live_us: int = 0
    """When the first reading that came in after the restore was acknowledged."""
    length_s: float | None = None
    """How long the link was cut; this and the two below by the clock that only rises, None until they are known."""
    drain_s: float | None = None
    """From the restore until all was acknowledged."""
    live_s: float | None = None
    """From the restore until `live_us`."""
    peak_waiting: int = 0
    full_forecast_s: float | None = None
    drain_forecast_s: float | None = None
    out_per_s: float = 0.0
    """The best rate of leaving that is known."""
    notes: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return max(0, self.last - self.first + 1)


def concerned(windows: Iterable[Window], course: Course) -> list[Window]:
    """The windows that hold a number of the rehearsal, oldest first."""
    of_epoch = [each for each in windows if each.epoch == course.epoch and each.last >= each.first]
    return sorted(
        (each for each in of_epoch if each.last >= course.first and each.first <= course.last),
        key=lambda window: window.start_us,
    )


def covers(windows: Sequence[Window], course: Course) -> bool:
    """Whether the windows account for all numbers of the rehearsal, and not only for some."""
    if not windows:
        return course.count == 0
    produced = sum(account.produced for window in windows for account in window.accounts)
    low, high = min(window.first for window in windows), max(window.last for window in windows)
    return low <= course.first and high >= course.last and produced >= course.count


def is_settled(windows: Sequence[Window], course: Course) -> bool:
    """Whether the cloud's word is there for all of it, and there is nothing left to wait for."""
    return covers(windows, course) and all(window.state in SETTLED for window in windows)


def judged(windows: Sequence[Window], course: Course) -> tuple[Verdict, str]:
    """The verdict on a rehearsal that has run its course, and why, in one sentence."""
    totals = totals_of(windows)
    if not course.drained_us:
        return Verdict.FAILED, "The cloud has not acknowledged all that came in while the link was cut."
    if not course.count:
        return Verdict.NOT_PROVEN, "Nothing came in while the link was cut, so there was nothing to prove."
    if any(window.state is WindowState.MISSING for window in windows):
        missing = sum(size(window.missing) for window in windows)
        what = f"{missing:,} readings" if missing else "Readings that are as they were written down"
        return Verdict.FAILED, f"{what} are missing in the lake."
    if not is_settled(windows, course):
        return Verdict.NOT_PROVEN, "All was acknowledged, but the cloud has not said that all of it is in the lake."
    if totals["difference"]:
        return Verdict.FAILED, f"{totals['difference']:,} readings are unaccounted for."
    dropped = sum(totals["dropped"].values())
    if dropped:
        return Verdict.PASSED, f"Every reading is accounted for; {dropped:,} were dropped, and gaps say why."
    return Verdict.PASSED, "Every reading that came in while the link was cut is in the lake."


def totals_of(windows: Sequence[Window]) -> dict[str, Any]:
    """The sums of the windows; `difference` is what was produced and is neither in the lake nor dropped."""
    sums = [_sum(window.accounts) for window in windows]
    dropped = _dropped(account for window in windows for account in window.accounts)
    total = {key: sum(each[key] for each in sums) for key in ("produced", "acknowledged", "in_lake")}
    missing = sum(size(window.missing) for window in windows)
    difference = total["produced"] - total["in_lake"] - sum(dropped.values())
    return {**total, "dropped": dropped, "missing": missing, "difference": difference}


def facts_of(
    course: Course, windows: Sequence[Window], verdict: Verdict, sentence: str, version: str, zone: str, ended_us: int
) -> dict[str, Any]:
    """All that the report says, as JSON has it."""
    length_s = course.length_s
    if length_s is None:  # A restart has freed the link: only the wall clock knows both ends.
        length_s = max(0, ended_us - course.started_us) / 1_000_000
    return {
        "schema": SCHEMA,
        "version": version,
        "zone": zone,
        "plant": course.plant,
        "epoch": course.epoch,
        "uplink": course.uplink,
        "by": course.by,
        "asked_minutes": course.minutes,
        "started_us": course.started_us,
        "restored_us": course.restored_us,
        "drained_us": course.drained_us,
        "ended_us": ended_us,
        "length_s": _rounded(length_s),
        "first": course.first,
        "last": course.last,
        "count": course.count,
        "peak_waiting": course.peak_waiting,
        "full_forecast_s": _rounded(course.full_forecast_s),
        "drain_forecast_s": _rounded(course.drain_forecast_s),
        "drain_s": _rounded(course.drain_s),
        "live_s": _rounded(course.live_s),
        "out_per_s": round(course.out_per_s, 1),
        "totals": totals_of(windows),
        "windows": [_row(window) for window in windows],
        "verdict": verdict.value,
        "sentence": sentence,
        "notes": list(course.notes),
    }


def _row(window: Window) -> dict[str, Any]:
    return {
        "start_us": window.start_us,
        "first": window.first,
        "last": window.last,
        "state": window.state.value,
        "is_differing": window.is_differing,
        "digest": window.digest,
        **_sum(window.accounts),
        "dropped": _dropped(window.accounts),
        "missing": size(window.missing),
        "missing_ranges": [list(each) for each in window.missing[:RANGES_MAX]],
    }


def _sum(accounts: Sequence[Account]) -> dict[str, int]:
    return {
        "produced": sum(account.produced for account in accounts),
        "stored": sum(account.stored for account in accounts),
        "acknowledged": sum(account.acknowledged for account in accounts),
        "in_lake": sum(account.in_lake for account in accounts),
    }


def _dropped(accounts: Iterable[Account]) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    for account in accounts:
        counts.update(account.dropped)
    return dict(sorted((reason, number) for reason, number in counts.items() if number))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
