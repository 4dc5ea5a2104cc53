"""Facts: what is known of the fates of numbers, by epoch and stream: gaps, acknowledgements, receipts, losses."""

import math
from typing import NamedTuple

from appliance.contract.gap import Gap, GapReason
from appliance.contract.ranges import Ranges, clipped, minus, union
from appliance.contract.reading import Stream
from appliance.contract.receipt import Receipt
from appliance.contract.sent import Sent
from appliance.ledger.accounts import Fates

ACKNOWLEDGED, LOST, GAP = "acknowledged", "lost", "gap "
"""Kinds of numbers in the file; behind the last one stands the reason."""


class Key(NamedTuple):
    """One stream of one epoch."""

    epoch: int
    stream: Stream


class Said(NamedTuple):
    """A window of an epoch was said in the event `seq` of the epoch `at_epoch`."""

    at_epoch: int
    seq: int
    epoch: int
    start_us: int


class Facts:
    """Kept in the Ledger's file, all but `under_way`. `changes` rises with whatever changes a window's state."""

    def __init__(self) -> None:
        self.gaps: dict[Key, dict[str, Ranges]] = {}
        self.acknowledged: dict[Key, Ranges] = {}
        self.under_way: dict[Key, Ranges] = {}
        self.lost: dict[Key, Ranges] = {}
        self.receipts: dict[Key, Receipt] = {}
        self.said: dict[tuple[int, int], set[Said]] = {}
        self._stood_us: dict[Said, int] = {}
        """When an event was first known to stand in the lake, by the cloud's clock."""
        self._gone: dict[Key, Ranges] = {}
        self.changes = 0

    def recall(self, key: Key, kind: str, ranges: Ranges) -> None:
        """Take in what the file has kept: numbers of one kind, as `numbers` gives them."""
        if kind == ACKNOWLEDGED:
            self.acknowledged[key] = ranges
        elif kind == LOST:
            self.lost[key] = ranges
        else:
            self.gaps.setdefault(key, {})[kind.removeprefix(GAP)] = ranges

    def gap(self, gap: Gap) -> None:
        """Take in what left the log; what was lost before it got a number is no number's fate."""
        if gap.last < gap.first:
            return
        reasons = self.gaps.setdefault(Key(gap.epoch, gap.stream), {})
        reasons[gap.reason] = union(reasons.get(gap.reason, ()), [(gap.first, gap.last)])
        self._gone.pop(Key(gap.epoch, gap.stream), None)
        self.changes += 1

    def gone(self, key: Key) -> Ranges:
        """All that gaps name."""
        if key not in self._gone:
            self._gone[key] = union(*self.gaps.get(key, {}).values())
        return self._gone[key]

    def sent(self, key: Key, sent: Sent) -> bool:
        """Take in what the Bridge says, given that all gaps so far are known; gives whether it is news.

        The Bridge takes what has left the log for done. What a gap names and was not acknowledged before it was
        dropped is therefore not acknowledged now.
        """
        known, under_way = self.acknowledged.get(key, ()), self.under_way.get(key, ())
        acknowledged = union(known, minus(union(sent.acknowledged), self.gone(key)))
        self.acknowledged[key], self.under_way[key] = acknowledged, union(sent.under_way)
        is_news = acknowledged != known or under_way != self.under_way[key]
        self.changes += is_news
        return acknowledged != known

    def receipt(self, receipt: Receipt) -> bool:
        """Take in a receipt; gives whether it is newer than what was known."""
        key = Key(receipt.epoch, receipt.stream)
        if key in self.receipts and self.receipts[key].at_us >= receipt.at_us:
            return False
        self.receipts[key] = receipt
        self.lost[key] = minus(self.lost.get(key, ()), receipt.held)
        self.changes += 1
        return True

    def lose(self, key: Key, lost: Ranges) -> Ranges:
        """Take in what is proven to be lost; gives what of it is new."""
        new = minus(lost, self.lost.get(key, ()))
        if new:
            self.lost[key] = union(self.lost.get(key, ()), new)
            self.changes += 1
        return new

    def say(self, said: Said) -> None:
        self.said.setdefault((said.epoch, said.start_us), set()).add(said)
        self.changes += 1

    def fates(self, epoch: int) -> Fates:
        """All that is known of the readings of an epoch."""
        key = Key(epoch, Stream.READINGS)
        receipt, acknowledged = self.receipts.get(key), self.acknowledged.get(key, ())
        return Fates(
            acknowledged,
            self.under_way.get(key, ()),
            receipt.held if receipt else (),
            receipt.speaks_to if receipt else 0,
            self.lost.get(key, ()),
            dict(self.gaps.get(key, {})),
            frozenset(receipt.differing) if receipt else frozenset(),
        )

    def is_said(self, epoch: int, start_us: int) -> bool:
        """Whether the cloud had all that was said of a window when it made its newest receipt: it has compared."""
        receipt = self.receipts.get(Key(epoch, Stream.READINGS))
        at_us = receipt.at_us if receipt else 0
        return all(self._stood(said) <= at_us for said in self.said.get((epoch, start_us), ()))

    def forget_said(self, epoch: int, start_us: int) -> None:
        for said in self.said.pop((epoch, start_us), ()):
            self._stood_us.pop(said, None)

    def unsent(self, key: Key) -> Ranges:
        """What left the log before the hub had taken it."""
        return minus(self.gone(key), self.acknowledged.get(key, ()))

    def carried_to(self, epoch: int) -> int:
        """The readings up to this number stand in the lake under the names of the epoch before."""
        parts = self.gaps.get(Key(epoch, Stream.READINGS), {}).get(GapReason.CARRIED, ())
        return max((last for _, last in parts), default=0)

    def _stood(self, said: Said) -> float:
        """Since when an event stands in the lake; 0 when it has left the log and nobody can compare any more."""
        if said in self._stood_us:
            return self._stood_us[said]
        key = Key(said.at_epoch, Stream.EVENTS)
        receipt = self.receipts.get(key)
        if receipt and clipped(receipt.held, said.seq, said.seq):
            return self._stood_us.setdefault(said, receipt.at_us)
        return 0 if clipped(self.gone(key), said.seq, said.seq) else math.inf
