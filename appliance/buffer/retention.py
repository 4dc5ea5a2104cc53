"""Retention: what the log may take, and which whole blocks leave it when it takes more."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from appliance.buffer.blocks import Block
from appliance.buffer.schema import WAL_BYTES
from appliance.buffer.store import Room
from appliance.contract.gap import GapReason

KEPT_BYTES_MIN: Final = 16 * 1024 * 1024
"""What the log keeps even when others have filled the disk: dropping more would not help them."""
HYSTERESIS: Final = 50
"""One part in so many of the bound is freed beyond what is needed, so that it is not done for every block."""
LEEWAY: Final = 20
"""One part in so many of the bound is kept for what comes in while the oldest leaves."""
_AGE_STEPS: Final = 100
"""An age is measured to one part in so many."""
_GROWTH_S: Final = 3_600.0
_GROWTH_S_MIN: Final = 60.0


class Policy(StrEnum):
    """What happens at a bound of bytes or free disk. Age always drops the oldest."""

    DROP_OLDEST = "drop-oldest"
    REJECT = "reject"
    """Producers wait; only what every follower has taken leaves the log."""
    THIN = "thin"
    """The older half loses every second block before whole stretches go."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A part of the namespace whose new readings give way first: they wait, or every second of them comes in."""

    topic: str
    """The levels the branch begins with, such as `acme/north/utilities`."""
    policy: Policy
    """`REJECT` or `THIN`."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the log may take, for how long, and what the disk must keep free."""

    size_max_bytes: int = 20_000_000_000
    age_max_s: float = math.inf
    free_min_bytes: int = 1_000_000_000
    policy: Policy = Policy.DROP_OLDEST
    branches: tuple[Branch, ...] = ()

    @property
    def used_max_bytes(self) -> int:
        """What the pages may take, so that the file with its write-ahead log stays under its bound."""
        return max(0, self.size_max_bytes - WAL_BYTES) * (LEEWAY - 1) // LEEWAY

    @property
    def unseen_max_bytes(self) -> int:
        """What may be written before the bounds are looked at, or producers wait for that."""
        return max(0, self.size_max_bytes - WAL_BYTES) // LEEWAY

    def tightness(self, room: Room, unsent_share: float) -> float:
        """Which part of all that the log could take holds what some follower still needs; 1 is all of it."""
        could_take = room.used_bytes + room.spare_bytes + room.disk_free_bytes - self.free_min_bytes
        return room.used_bytes * unsent_share / max(1, min(self.used_max_bytes, could_take))

    def excess(self, room: Room) -> tuple[int, GapReason]:
        """How many bytes must go now, with some to spare so that it is not done for every block; 0 when none."""
        over = room.used_bytes - self.used_max_bytes
        if over > 0:
            return over + self.used_max_bytes // HYSTERESIS, GapReason.SIZE
        short = self.free_min_bytes - room.disk_free_bytes - room.spare_bytes
        if short > 0 and room.used_bytes > KEPT_BYTES_MIN:
            return min(short, room.used_bytes - KEPT_BYTES_MIN), GapReason.DISK
        return 0, GapReason.SIZE


def oldest(blocks: Iterable[Block], bytes_wanted: int) -> list[Block]:
    """As many of these blocks, oldest first, as make up the bytes."""
    chosen: list[Block] = []
    for block in blocks:
        if bytes_wanted <= 0:
            break
        chosen.append(block)
        bytes_wanted -= block.size
    return chosen


def every_second(blocks: Sequence[Block], bytes_wanted: int) -> list[Block]:
    """Blocks whose elder neighbour stays, so that no two neighbours go."""
    chosen: list[Block] = []
    kept: Block | None = None
    for block in blocks:
        if bytes_wanted > 0 and kept is not None and kept.last + 1 == block.first:
            chosen.append(block)
            bytes_wanted -= block.size
            kept = None
        else:
            kept = block
    return chosen


def stretches(blocks: Sequence[Block]) -> list[list[Block]]:
    """The blocks grouped into neighbours: each group is one gap."""
    groups: list[list[Block]] = []
    for block in blocks:
        if groups and groups[-1][-1].last + 1 == block.first:
            groups[-1].append(block)
        else:
            groups.append([block])
    return groups


class Seen:
    """Which entries this process has had for how long, by its steady clock: whatever the time of day does."""

    def __init__(self, age_s: float, at_s: float, last: int) -> None:
        self._age_s, self._samples, self._old_to = age_s, deque([(at_s, last)]), 0

    def sample(self, at_s: float, last: int) -> int:
        """Take note of the newest number; gives the last one that has been here for longer than the age."""
        if at_s - self._samples[-1][0] >= self._age_s / _AGE_STEPS:
            self._samples.append((at_s, last))
        while self._samples[0][0] <= at_s - self._age_s:
            self._old_to = self._samples.popleft()[1]
            if not self._samples:
                self._samples.append((at_s, last))
        return self._old_to


class Growth:
    """How fast the log grows, by what it took over the last hour."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._dropped_bytes = 0

    def dropped(self, size_bytes: int) -> None:
        self._dropped_bytes += size_bytes

    def sample(self, at_s: float, used_bytes: int) -> None:
        self._samples.append((at_s, used_bytes + self._dropped_bytes))
        while len(self._samples) > 2 and self._samples[1][0] < at_s - _GROWTH_S:
            self._samples.popleft()

    def days_to_full(self, room: Room, bounds: Bounds) -> float | None:
        """Days until a bound of bytes is reached; None while it cannot be told, or nothing grows."""
        if not self._samples:
            return None
        (from_s, before), (to_s, now) = self._samples[0], self._samples[-1]
        if to_s - from_s < _GROWTH_S_MIN or now <= before:
            return None
        left = min(
            bounds.used_max_bytes - room.used_bytes,
            room.disk_free_bytes + room.spare_bytes - bounds.free_min_bytes,
        )
        return max(0.0, left / ((now - before) / (to_s - from_s)) / 86_400)
