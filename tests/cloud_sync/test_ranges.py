"""Ranges: a set of whole numbers kept as intervals."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.ranges import Ranges


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=30))
def test_ranges_are_a_set(spans: list[tuple[int, int]]) -> None:
    """Whatever the order and overlap, a number is new exactly once, and neighbours are joined."""
    ranges, seen = Ranges(), set()
    for lo, length in spans:
        numbers = set(range(lo, lo + length + 1))
        new = [number for a, b in ranges.take(lo, lo + length) for number in range(a, b + 1)]
        assert new == sorted(numbers - seen)
        seen |= numbers
    kept = list(ranges)
    assert [number for a, b in kept for number in range(a, b + 1)] == sorted(seen)
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(kept))
