"""Resends: numbers that the far side had acknowledged and the lake lacks all the same. Pure, and in memory only."""

from collections.abc import Iterable, Sequence
from typing import Final

from appliance.contract.envelope import ENTRIES_MAX
from appliance.contract.ranges import Range, Ranges, common, minus, size, union

RESENDS_MAX: Final = 4_000
"""Ranges that wait to be sent again; whoever asked for more of them asks again."""


class Resends:
    """Which numbers of one stream wait to be sent again, and which of them are on their way."""

    def __init__(self) -> None:
        self.waiting: Ranges = ()
        self.under_way: Ranges = ()
        self._had_turn = False

    @property
    def entries(self) -> int:
        """How many entries wait."""
        return size(self.waiting)

    def ask(self, ranges: Iterable[Range], acknowledged: Sequence[Range]) -> Ranges:
        """Take in what is to be sent again; gives what there is no room for.

        What is not acknowledged is sent anyway, and what is on its way again already is not doubled.
        """
        wanted = minus(common(union(ranges), acknowledged), self.under_way)
        merged = union(self.waiting, wanted)
        self.waiting, beyond = merged[:RESENDS_MAX], merged[RESENDS_MAX:]
        return beyond

    def next(self, *, has_rest: bool) -> Range | None:
        """What is to be sent again next; every other turn is that of the rest, if there is a rest."""
        self._had_turn = bool(self.waiting) and not (self._had_turn and has_rest)
        if not self._had_turn:
            return None
        first, last = self.waiting[0]
        return first, min(last, first + ENTRIES_MAX - 1)

    def pass_over(self, gone: Range) -> None:
        """The log no longer holds these."""
        self.waiting = minus(self.waiting, [gone])

    def leave(self, sent: Range) -> None:
        """These are on their way."""
        self.waiting = minus(self.waiting, [sent])
        self.under_way = union(self.under_way, [sent])

    def arrived(self, sent: Range) -> None:
        self.under_way = minus(self.under_way, [sent])

    def returned(self, sent: Range) -> None:
        """These did not get through: they wait again."""
        self.under_way = minus(self.under_way, [sent])
        self.waiting = union(self.waiting, [sent])

    def restart(self) -> None:
        """Nothing is on its way any more."""
        self.waiting, self.under_way = union(self.waiting, self.under_way), ()
