"""The Tail: the newest entries of one stream in memory, so that followers who keep up never read the file."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from appliance.contract.reading import Reading

TAIL_ENTRIES_MAX = 50_000
"""Newest entries kept for each stream."""


class Batch(NamedTuple):
    """Consecutive entries of a stream; `first` is the number of the first one."""

    first: int
    entries: tuple[Reading, ...]

    @property
    def last(self) -> int:
        return self.first + len(self.entries) - 1


@dataclass(slots=True)
class Tail:
    """The newest entries of one stream in memory."""

    last: int
    entries: deque[Reading] = field(default_factory=deque)

    @property
    def first(self) -> int:
        return self.last - len(self.entries) + 1

    def extend(self, entries: Sequence[Reading]) -> None:
        self.entries.extend(entries)
        self.last += len(entries)
        for _ in range(len(self.entries) - TAIL_ENTRIES_MAX):
            self.entries.popleft()

    def after(self, seq: int, limit: int) -> tuple[Reading, ...]:
        waiting, start = max(0, self.last - seq), seq + 1 - self.first
        if waiting > start + limit:
            return tuple(islice(self.entries, start, start + limit))
        newest = list(islice(reversed(self.entries), waiting))  # A deque is walked from its nearer end.
        newest.reverse()
        return tuple(newest[:limit])
