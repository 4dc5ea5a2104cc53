"""Ranges: the set of whole numbers seen so far, kept as intervals so that its cost does not grow with the table."""

from bisect import bisect_left
from collections.abc import Iterator


class Ranges:
    """Disjoint intervals with both ends included, in order; neighbours are joined."""

    __slots__ = ("_highs", "_lows")

    def __init__(self) -> None:
        self._lows: list[int] = []
        self._highs: list[int] = []

    def take(self, lo: int, hi: int) -> list[tuple[int, int]]:
        """Add `lo` to `hi`, and return the parts of it that were not in the set before, in order."""
        start = bisect_left(self._highs, lo - 1)
        end = start
        new, next_unseen = [], lo
        while end < len(self._lows) and self._lows[end] <= hi + 1:
            if next_unseen < self._lows[end]:
                new.append((next_unseen, min(hi, self._lows[end] - 1)))
            next_unseen = max(next_unseen, self._highs[end] + 1)
            end += 1
        if next_unseen <= hi:
            new.append((next_unseen, hi))
        joined_lo = min(lo, self._lows[start]) if end > start else lo
        joined_hi = max(hi, self._highs[end - 1]) if end > start else hi
        self._lows[start:end] = [joined_lo]
        self._highs[start:end] = [joined_hi]
        return new

    def holds(self, lo: int, hi: int) -> bool:
        """Whether all of `lo` to `hi` is in the set; nothing is, when `hi` is below `lo`."""
        place = bisect_left(self._highs, hi)
        return hi < lo or (place < len(self._lows) and self._lows[place] <= lo)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._lows, self._highs, strict=True))

    def __len__(self) -> int:
        return len(self._lows)
