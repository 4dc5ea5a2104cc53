"""Progress: what of one stream the far side has, what is planned, and what comes next, as ranges of numbers.

Pure: no log, no clock. `floor` is the last number up to which everything is acknowledged. With the newest
sent before the older ones there are acknowledged ranges ahead of it, and holes between.
"""

import json
from bisect import insort
from collections.abc import Iterable
from typing import Final, NamedTuple

from appliance.contract.envelope import ENTRIES_MAX, Lane
from appliance.contract.ranges import Range, Ranges, size, union

AHEAD_MAX: Final = 128
"""Acknowledged ranges ahead of the floor; at this bound the live lane goes on in order instead of jumping."""
LIVE_ENTRIES_MAX: Final = 2 * ENTRIES_MAX
"""A live lane that is further behind jumps to the newest envelope, and what it leaves out becomes backlog."""


class Plan(NamedTuple):
    """An envelope to be: its bounds and its lane, fixed before it is sent for the first time."""

    first: int
    last: int
    lane: Lane

    @property
    def range(self) -> Range:
        return self.first, self.last


class Progress:
    """Keeps count for one stream. What is planned is either acknowledged or sent again, never planned anew."""

    def __init__(self, floor: int = 0, ahead: Iterable[Range] = (), planned: Iterable[Plan] = ()) -> None:
        self.floor = floor
        self.ahead: Ranges = tuple(sorted(ahead))
        self.planned: list[Plan] = sorted(planned)

    @classmethod
    def from_state(cls, floor: int, state: str, epoch: int) -> "Progress":
        """As it was written down; what another version or another epoch wrote is passed over.

        That is safe: what is sent twice, the cloud counts once.
        """
        try:
            document = json.loads(state or "{}")
            if document.get("epoch") != epoch:
                return cls(floor)
            ahead = [(int(first), int(last)) for first, last in document["ahead"]]
            planned = [Plan(int(first), int(last), Lane(lane)) for first, last, lane in document["planned"]]
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls(floor)
        return cls(floor, ahead, planned)

    def to_state(self, epoch: int) -> str:
        """Everything but the floor, which is the cursor's own number."""
        return json.dumps({"epoch": epoch, "ahead": self.ahead, "planned": self.planned}, separators=(",", ":"))

    @property
    def frontier(self) -> int:
        """The highest number that is acknowledged or planned: the newest entries stand beyond it."""
        ahead = self.ahead[-1][1] if self.ahead else self.floor
        return max(ahead, self.planned[-1].last if self.planned else self.floor)

    def waiting(self, last: int) -> int:
        """How many of the entries up to `last` are not acknowledged."""
        return last - self.floor - size(self.ahead)

    def newest(self, last: int) -> Range | None:
        """What the live lane sends next, given the newest entry of the log."""
        first = self.frontier + 1
        if last - self.frontier > LIVE_ENTRIES_MAX and len(self.ahead) + len(self.planned) < AHEAD_MAX:
            first = last - ENTRIES_MAX + 1
        return (first, min(last, first + ENTRIES_MAX - 1)) if first <= last else None

    def acknowledged(self) -> Ranges:
        """Nothing of these is to be sent any more; in order and disjoint."""
        return ((1, self.floor), *self.ahead) if self.floor else self.ahead

    def oldest(self, entries_max: int = ENTRIES_MAX) -> Range | None:
        """What the backlog sends next: the first entries below the frontier that are in no plan."""
        after = self.floor
        for first, last in sorted([*self.ahead, *(plan.range for plan in self.planned)]):
            if first > after + 1:
                return after + 1, min(first - 1, after + entries_max)
            after = max(after, last)
        return None

    def backlog(self) -> int:
        """How many entries below the frontier are in no plan."""
        known = size(self.ahead) + size(plan.range for plan in self.planned)
        return max(0, self.frontier - self.floor - known)

    def plan(self, plan: Plan) -> None:
        insort(self.planned, plan)

    def acknowledge(self, plan: Plan) -> None:
        """The far side has this envelope."""
        self.planned.remove(plan)
        self.skip(plan.range)

    def drop(self, plan: Plan) -> None:
        """The plan cannot be kept: the log no longer holds all of its entries."""
        self.planned.remove(plan)

    def skip(self, done: Range) -> None:
        """Nothing is to be sent of this range any more."""
        self.ahead = union(self.ahead, [done])
        if self.ahead[0][0] <= self.floor + 1:
            self.floor = max(self.floor, self.ahead[0][1])
            self.ahead = self.ahead[1:]
