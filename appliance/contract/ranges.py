"""Ranges: sets of numbers as `(first, last)` pairs, both ends included, in order, disjoint and never adjacent."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Range: TypeAlias = tuple[int, int]
Ranges: TypeAlias = tuple[Range, ...]


def normal(parts: Iterable[Range]) -> Ranges:
    """Any ranges as one set; a range whose last is before its first holds nothing."""
    merged: list[Range] = []
    for first, last in sorted(parts):
        if last < first:
            continue
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def union(*sets: Iterable[Range]) -> Ranges:
    return normal(part for each in sets for part in each)


def clipped(ranges: Sequence[Range], first: int, last: int) -> Ranges:
    """What of a set lies between two numbers; costs a search, however long the set is."""
    start = max(0, bisect_right(ranges, (first,)) - 1)
    end = bisect_left(ranges, (last + 1,))
    clips = ((max(low, first), min(high, last)) for low, high in ranges[start:end])
    return tuple((low, high) for low, high in clips if low <= high)


def common(ranges: Sequence[Range], others: Sequence[Range]) -> Ranges:
    """The numbers that both sets hold."""
    return normal(part for first, last in ranges for part in clipped(others, first, last))


def minus(ranges: Sequence[Range], others: Sequence[Range]) -> Ranges:
    """The numbers of the first set that the second does not hold."""
    left: list[Range] = []
    for first, last in ranges:
        for low, high in clipped(others, first, last):
            if low > first:
                left.append((first, low - 1))
            first = high + 1
        if first <= last:
            left.append((first, last))
    return tuple(left)


def size(ranges: Iterable[Range]) -> int:
    """How many numbers a set holds."""
    return sum(last - first + 1 for first, last in ranges)
