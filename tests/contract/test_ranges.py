"""Sets of numbers as ranges do what Python's own sets do."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from appliance.contract.ranges import Ranges, clipped, common, minus, normal, size, union

NUMBERS_MAX = 60
SETS = st.sets(st.integers(1, NUMBERS_MAX))


def ranges(numbers: set[int]) -> Ranges:
    return normal((number, number) for number in numbers)


def members(parts: Ranges) -> set[int]:
    return {number for first, last in parts for number in range(first, last + 1)}


@given(SETS, SETS, st.integers(1, NUMBERS_MAX), st.integers(0, NUMBERS_MAX))
def test_ranges_do_what_sets_do(one: set[int], other: set[int], low: int, length: int) -> None:
    """Union, difference, intersection and clipping; results are in order and never adjacent."""
    a, b = ranges(one), ranges(other)
    for result, expected in (
        (union(a, b), one | other),
        (minus(a, b), one - other),
        (common(a, b), one & other),
        (clipped(a, low, low + length), one & set(range(low, low + length + 1))),
    ):
        assert members(result) == expected
        assert size(result) == len(expected)
        assert result == normal(result), "in order, disjoint, not adjacent"


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(-3, 8))))
def test_any_parts_become_one_set(parts: list[tuple[int, int]]) -> None:
    """They may overlap, touch, stand in no order, and hold nothing when the last is before the first."""
    merged = normal((first, first + length) for first, length in parts)
    assert members(merged) == {n for first, length in parts for n in range(first, first + length + 1)}
    assert all(low[1] + 1 < high[0] for low, high in pairwise(merged))
