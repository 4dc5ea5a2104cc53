"""`plantward status --ledger`: the accounts of the last hours as lines of text."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

COLUMNS: Final = ("produced", "stored", "sent", "acknowledged", "in_lake", "dropped", "missing", "waiting")
_HEAD: Final = f"{'window':<20}  {'state':<9}  " + "  ".join(f"{name.replace('_', ' '):>12}" for name in COLUMNS)


def lines(document: Mapping[str, Any], hours: float) -> Iterator[str]:
    """The answer of `/api/ledger` as a table: a green window is one line, any other has one for each equipment."""
    windows, status = document["windows"], document["status"]
    states = [window["state"] for window in windows]
    counts = ", ".join(f"{states.count(state):,} {state}" for state in ("green", "explained", "waiting", "missing"))
    yield f"{len(windows):,} windows of the last {hours:g} hours: {counts}"
    age_s = status["receipt_age_s"]
    yield "the cloud has said nothing since the start" if age_s is None else f"the cloud said so {age_s:,.0f} s ago"
    if windows:
        yield f"{_HEAD}  equipment"
    for window in windows:
        yield from _window(window)


def _window(window: Mapping[str, Any]) -> Iterator[str]:
    start = f"{datetime.fromtimestamp(window['start_us'] / 1e6, UTC):%Y-%m-%d %H:%M:%SZ}"
    accounts = window["accounts"]
    rows = [(_counts(account), account["equipment"]) for account in accounts]
    if window["state"] == "green":
        total = {name: sum(counts[name] for counts, _ in rows) for name in COLUMNS}
        rows = [(total, f"all {len(accounts)}")]
    for counts, equipment in rows:
        numbers = "  ".join(f"{counts[name]:>12,}" for name in COLUMNS)
        yield f"{start:<20}  {window['state']:<9}  {numbers}  {equipment}"
    for reason, count in _reasons(accounts).items():
        yield f"  dropped, {reason}: {count:,} readings"
    if window["missing"]:
        ranges = ", ".join(
            f"{first:,}" if first == last else f"{first:,}-{last:,}" for first, last in window["missing"]
        )
        yield f"  missing: readings {ranges} of epoch {window['epoch']}"
    if window["is_differing"]:
        yield f"  differing: the lake does not hold what was written down, whose digest is {window['digest']}"


def _counts(account: Mapping[str, Any]) -> dict[str, int]:
    dropped = sum(account["dropped"].values())
    waiting = account["produced"] - account["in_lake"] - dropped - account["missing"]
    return {**account, "dropped": dropped, "waiting": waiting}


def _reasons(accounts: list[Mapping[str, Any]]) -> dict[str, int]:
    reasons = sorted({reason for account in accounts for reason in account["dropped"]})
    return {reason: sum(account["dropped"].get(reason, 0) for account in accounts) for reason in reasons}
