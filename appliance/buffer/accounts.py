"""Accounts: for a window of five minutes and each equipment in it, what has become of every number that was given."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from appliance.buffer.ranges import Ranges

UNKNOWN: Final = "?"
"""To whom numbers are counted that had left the log before the Ledger could read whose they were."""


class WindowState(StrEnum):
    """What can be said of a window, on the cloud's word."""

    GREEN = "green"
    """Every number stands in the lake, and the fingerprints agree."""
    EXPLAINED = "explained"
    """What does not stand in the lake was dropped, and a gap says why."""
    WAITING = "waiting"
    """Some is not acknowledged yet, or the cloud has not said."""
    MISSING = "missing"
    """The cloud lacks numbers that it had acknowledged, or what it holds differs from what was written down."""


@dataclass(frozen=True, slots=True)
class Account:
    """Numbers of one equipment in one window, counted.

    `produced` = `in_lake` + all of `dropped` + `missing` + what still waits.
    """

    equipment: str
    produced: int
    stored: int
    """Of these, the entries that the Ledger read back from the log."""
    sent: int
    """Acknowledged or under way."""
    acknowledged: int
    in_lake: int
    dropped: Mapping[str, int]
    """By the reason that a gap gives, without what stands in the lake all the same."""
    missing: int
    """Acknowledged, and proven not to have reached the lake."""


@dataclass(frozen=True, slots=True)
class Window:
    """Five minutes of arrival time of one epoch. The clock may have been in it twice: numbers then lie apart."""

    epoch: int
    start_us: int
    first: int
    last: int
    """The lowest and the highest number."""
    state: WindowState
    is_differing: bool
    """The cloud's counts or fingerprints are not those that the plant wrote down."""
    digest: str
    """The sum of the fingerprints of its entries, 16 hexadecimal digits."""
    missing: tuple[tuple[int, int], ...]
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True)
class Fates:
    """What became of numbers of the readings of one epoch, as far as it is known."""

    acknowledged: Ranges = ()
    under_way: Ranges = ()
    held: Ranges = ()
    """What stands in the lake by the newest receipt."""
    lost: Ranges = ()
    dropped: Mapping[str, Ranges] | None = None
    differing: frozenset[int] = frozenset()
