"""A Rollup: what is left of the values of one topic in one span of time; rollups of neighbours merge."""

import math
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Rollup:
    """Minimum, maximum, sum, count, good count, first and last of at least one finite value.

    `first_us` and `last_us` are source times; merging is associative and commutative
    (equal times: the smaller value counts as first, the larger as last), so any order of arrival gives the same rollup.
    """

    minimum: float
    maximum: float
    total: float
    count: int
    good: int
    first: float
    first_us: int
    last: float
    last_us: int

    @classmethod
    def of(cls, value: float, at_us: int, good: bool) -> Self:
        """The rollup of one value, which must be finite."""
        assert math.isfinite(value), "a rollup holds finite values only"
        return cls(value, value, value, 1, int(good), value, at_us, value, at_us)

    @property
    def mean(self) -> float:
        return self.total / self.count

    def merge(self, other: Self) -> Self:
        """The rollup of both."""
        first_us, first = min((self.first_us, self.first), (other.first_us, other.first))
        last_us, last = max((self.last_us, self.last), (other.last_us, other.last))
        return type(self)(
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            total=self.total + other.total,
            count=self.count + other.count,
            good=self.good + other.good,
            first=first,
            first_us=first_us,
            last=last,
            last_us=last_us,
        )
