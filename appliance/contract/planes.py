"""Integers as byte planes: the small differences between neighbours, all lowest bytes first, then the next ones.

A column of int64 is one of three things in the header of its block:

- `value`: all are equal;
- `[first, width]`: differences to the entry before, of so many bytes each;
- `[first, width, width]`: the same within each group (all entries of one topic), the first entry of each group as
  difference to the first of the group before.

Differences are taken modulo 2^64 and folded, so that small negative ones are small too. Planes of noise stay as they
are, planes of what hardly changes compress to nothing, and neither spoils the other.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T", np.int64, np.float64)
Ints: TypeAlias = NDArray[np.int64]
Spec: TypeAlias = int | list[int]
WIDTH_MAX = 8


class PlanesError(ValueError):
    """Bytes or a description that do not fit together."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Which entries belong together: `order` puts them side by side, `is_first` marks where a group begins there."""

    order: NDArray[np.intp]
    is_first: NDArray[np.bool_]
    starts: NDArray[np.intp]
    counts: NDArray[np.intp]

    @classmethod
    def of(cls, numbers: Ints) -> Self:
        """Groups of entries with the same number, of which none is negative or beyond 16 bits."""
        order = np.argsort(numbers.astype(np.uint16), kind="stable")
        ordered = numbers[order]
        is_first = np.ones(len(numbers), np.bool_)
        is_first[1:] = ordered[1:] != ordered[:-1]
        starts = np.flatnonzero(is_first)
        return cls(order, is_first, starts, np.diff(starts, append=len(numbers)))

    def scattered(self, ordered: NDArray[_T]) -> NDArray[_T]:
        """What stood side by side, back in its places."""
        values = np.empty_like(ordered)
        values[self.order] = ordered
        return values


class Writer:
    """Takes columns and gives the planes they make."""

    def __init__(self) -> None:
        self.planes: list[bytes] = []

    def column(self, values: Ints, groups: Groups | None = None) -> Spec:
        """Write a column of at least one value, in groups when that makes the differences smaller."""
        if (values == values[0]).all():
            return int(values[0])
        plain = _folded(np.diff(values))
        if groups is not None:
            ordered = values[groups.order]
            firsts, rest = _grouped(ordered, groups)
            if _bits(firsts) + _bits(rest) < _bits(plain):
                return [int(ordered[0]), self._write(firsts), self._write(rest)]
        return [int(values[0]), self._write(plain)]

    def grouped(self, ordered: Ints, groups: Groups) -> Spec:
        """Write a column whose values stand side by side already, and stay so."""
        firsts, rest = _grouped(ordered, groups)
        return [int(ordered[0]), self._write(firsts), self._write(rest)]

    def _write(self, folded: NDArray[np.uint64]) -> int:
        width = (int(folded.max(initial=0)).bit_length() + 7) // 8
        as_bytes = folded.astype("<u8").view(np.uint8).reshape(-1, WIDTH_MAX)
        self.planes.extend(as_bytes[:, position].tobytes() for position in range(width))
        return width


class Reader:
    """Reads columns in the order in which they were written; raises `PlanesError` when the bytes are too few."""

    def __init__(self, data: bytes, offset: int) -> None:
        self._data, self._offset = data, offset

    def column(self, spec: Spec, count: int, groups: Groups | None = None) -> Ints:
        """A column as it was."""
        if isinstance(spec, int):
            return np.full(count, spec, np.int64)
        if len(spec) == 3 and groups is not None:
            return groups.scattered(self.grouped(spec, groups))
        first, width = spec
        return np.cumsum(np.concatenate((np.array([first], np.int64), self._read(count - 1, width))))

    def grouped(self, spec: Sequence[int], groups: Groups) -> Ints:
        """A column with the entries of each group side by side."""
        first, firsts_width, rest_width = spec
        firsts = np.cumsum(
            np.concatenate((np.array([first], np.int64), self._read(len(groups.starts) - 1, firsts_width)))
        )
        differences = np.zeros(len(groups.order), np.int64)
        differences[~groups.is_first] = self._read(len(groups.order) - len(groups.starts), rest_width)
        sums = np.cumsum(differences)
        return sums + np.repeat(firsts - sums[groups.starts], groups.counts)

    def end(self) -> None:
        """Nothing may be left."""
        if self._offset != len(self._data):
            raise PlanesError(f"{len(self._data) - self._offset} bytes are left over")

    def _read(self, count: int, width: int) -> Ints:
        if not 0 <= width <= WIDTH_MAX or self._offset + count * width > len(self._data):
            raise PlanesError(f"{count} numbers of {width} bytes are not there")
        planes = np.frombuffer(self._data, np.uint8, count * width, self._offset).reshape(width, count)
        self._offset += count * width
        as_bytes = np.zeros((count, WIDTH_MAX), np.uint8)
        as_bytes[:, :width] = planes.T
        folded = as_bytes.view("<u8").reshape(count)
        return (folded >> np.uint64(1)).astype(np.int64) ^ -(folded & np.uint64(1)).astype(np.int64)


def _folded(differences: Ints) -> NDArray[np.uint64]:
    return ((differences << 1) ^ (differences >> 63)).view(np.uint64)


def _grouped(ordered: Ints, groups: Groups) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    firsts = np.diff(ordered[groups.starts])
    rest = np.diff(ordered)[~groups.is_first[1:]]
    return _folded(firsts), _folded(rest)


def _bits(folded: NDArray[np.uint64]) -> float:
    return float(np.log2(folded + 1.0).sum())


def as_ints(numbers: Sequence[Any]) -> Ints:
    """The numbers as an array; raises OverflowError beyond 64 bits, TypeError for what is no integer."""
    return np.frombuffer(array("q", numbers), np.int64)
