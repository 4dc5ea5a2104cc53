"""Accounts: for a window of five minutes and each equipment in it, what has become of every number that was given.

Pure: what is known comes in as `Fates`, and every number has exactly one of four fates: it stands in the lake, it is
missing there, it was dropped, or it waits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from appliance.contract.ranges import Ranges, common, minus, union

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


_FROM_BEST: Final = (WindowState.GREEN, WindowState.EXPLAINED, WindowState.WAITING, WindowState.MISSING)


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
    """Taken by the hub, or standing in the lake."""
    in_lake: int
    dropped: Mapping[str, int]
    """By the reason that a gap gives, without what stands in the lake all the same."""
    missing: int
    """Acknowledged, and proven not to have reached the lake."""

    def plus(self, other: "Account") -> "Account":
        reasons = sorted(self.dropped.keys() | other.dropped.keys())
        return Account(
            self.equipment,
            self.produced + other.produced,
            self.stored + other.stored,
            self.sent + other.sent,
            self.acknowledged + other.acknowledged,
            self.in_lake + other.in_lake,
            {reason: self.dropped.get(reason, 0) + other.dropped.get(reason, 0) for reason in reasons},
            self.missing + other.missing,
        )


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
    """Numbers that the cloud had acknowledged and lacks, also those it lost after the window was settled; the accounts
    of a settled window are those of the day it was settled."""
    accounts: tuple[Account, ...]

    def plus(self, other: "Window") -> "Window":
        """Two parts of the same window as one."""
        accounts = {account.equipment: account for account in self.accounts}
        for account in other.accounts:
            known = accounts.get(account.equipment)
            accounts[account.equipment] = known.plus(account) if known else account
        return Window(
            self.epoch,
            self.start_us,
            min(self.first, other.first),
            max(self.last, other.last),
            max(self.state, other.state, key=_FROM_BEST.index),
            self.is_differing or other.is_differing,
            digest_of(int(self.digest, 16) + int(other.digest, 16)),
            union(self.missing, other.missing),
            tuple(account for _, account in sorted(accounts.items())),
        )


@dataclass(frozen=True, slots=True)
class Fates:
    """What is known of the readings of one epoch."""

    acknowledged: Ranges = ()
    """What the hub has ever taken; without what had left the log before it could be sent."""
    under_way: Ranges = ()
    held: Ranges = ()
    """What stands in the lake by the newest receipt."""
    speaks_to: int = 0
    """Of numbers beyond, that receipt says nothing."""
    lost: Ranges = ()
    dropped: Mapping[str, Ranges] = field(default_factory=dict)
    """What the gaps name, by reason."""
    differing: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Split:
    """Numbers by their fate; each is in exactly one of the four."""

    in_lake: Ranges
    missing: Ranges
    dropped: Mapping[str, Ranges]
    waiting: Ranges


def split(numbers: Ranges, fates: Fates) -> Split:
    """What became of numbers. The lake's word goes first.

    What was acknowledged before it left the log waits for the lake all the same: the drop is not why it is not there.
    """
    in_lake = common(numbers, fates.held)
    rest = minus(numbers, in_lake)
    missing = common(rest, fates.lost)
    rest = minus(rest, missing)
    unsent = minus(rest, fates.acknowledged)
    dropped: dict[str, Ranges] = {}
    for reason, ranges in sorted(fates.dropped.items()):
        if part := common(unsent, ranges):
            dropped[reason] = part
            unsent, rest = minus(unsent, part), minus(rest, part)
    return Split(in_lake, missing, dropped, rest)


def state_of(parts: Split, *, is_differing: bool, is_said: bool) -> WindowState:
    """The state of a window; `is_said` when the cloud has what it compares the window with."""
    if is_differing or parts.missing:
        return WindowState.MISSING
    if parts.waiting or not is_said:
        return WindowState.WAITING
    return WindowState.EXPLAINED if parts.dropped else WindowState.GREEN


def digest_of(fingerprint: int) -> str:
    """A sum of fingerprints as text."""
    return f"{fingerprint % (1 << 64):016x}"
