"""Sets of numbers as ranges with both ends included, in order and disjoint."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Range(NamedTuple):
    """The numbers `first` to `last`."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


def union(*sets: Iterable[tuple[int, int]]) -> list[Range]:
    """All that is in any of these, which need be neither in order nor disjoint."""
    merged: list[Range] = []
    for first, last in sorted(part for ranges in sets for part in ranges if part[0] <= part[1]):
        if merged and first <= merged[-1].last + 1:
            merged[-1] = Range(merged[-1].first, max(merged[-1].last, last))
        else:
            merged.append(Range(first, last))
    return merged


def common(one: Sequence[Range], other: Sequence[Range]) -> list[Range]:
    """What is in both."""
    found: list[Range] = []
    i = j = 0
    while i < len(one) and j < len(other):
        first, last = max(one[i].first, other[j].first), min(one[i].last, other[j].last)
        if first <= last:
            found.append(Range(first, last))
        if one[i].last <= other[j].last:
            i += 1
        else:
            j += 1
    return found


def minus(ranges: Sequence[Range], taken: Sequence[Range]) -> list[Range]:
    """What is in the first and not in the second."""
    if not ranges:
        return []
    holes: list[Range] = []
    after = ranges[0].first - 1
    for first, last in taken:
        holes.append(Range(after + 1, first - 1))
        after = max(after, last)
    holes.append(Range(after + 1, ranges[-1].last))
    return common(ranges, [hole for hole in holes if hole.first <= hole.last])
