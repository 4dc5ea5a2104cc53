"""Spans: arithmetic with ranges of numbers, each `(first, last)`."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same numbers in order, with neighbours and overlaps made one; empty spans leave."""
    whole: list[Span] = []
    for first, last in sorted(span for span in spans if span[0] <= span[1]):
        if whole and first <= whole[-1][1] + 1:
            whole[-1] = (whole[-1][0], max(whole[-1][1], last))
        else:
            whole.append((first, last))
    return whole


def common(some: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """The numbers that stand in both; both are `joined`."""
    found: list[Span] = []
    i = j = 0
    while i < len(some) and j < len(others):
        first, last = max(some[i][0], others[j][0]), min(some[i][1], others[j][1])
        if first <= last:
            found.append((first, last))
        if some[i][1] < others[j][1]:
            i += 1
        else:
            j += 1
    return found


def without(some: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """The numbers of `some` that do not stand in `others`; both are `joined`."""
    if not some:
        return []
    holes, expected = list[Span](), some[0][0]
    for first, last in others:
        holes.append((expected, first - 1))
        expected = max(expected, last + 1)
    holes.append((expected, max(expected, some[-1][1])))
    return common(some, joined(holes))


def size(spans: Iterable[Span]) -> int:
    """How many numbers these are."""
    return sum(last - first + 1 for first, last in spans)
