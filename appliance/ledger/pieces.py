"""Pieces: consecutive entries of one window, counted by equipment, and whose each of them was."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import zstandard
from numpy.typing import NDArray

from appliance.contract.ledger import WINDOW_US, Tally, equipment_of_any, fingerprints, int64_times
from appliance.contract.ranges import Ranges, clipped, minus, size
from appliance.contract.reading import Reading

TOPICS_MAX: Final = 200_000
"""Topics whose equipment is remembered; beyond them the memory begins anew."""
_TALLY: Final = np.dtype([("equipment", "<u4"), ("entries", "<u8"), ("fingerprint", "<u8")])
_LEVEL: Final = 1

Owners: TypeAlias = NDArray[np.uint32]


class Equipment:
    """Equipment by small numbers, which the file keeps. What has got a number since the last look is `new`."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = dict(names)
        self.new: dict[int, str] = {}
        self._numbers = {name: number for number, name in self.names.items()}
        self._topics: dict[str, int] = {}

    def numbers(self, topics: Sequence[str]) -> Owners:
        """Whose each topic is."""
        known = self._topics
        for topic in set(topics).difference(known):
            known[topic] = self._number(equipment_of_any(topic))
        owners = np.fromiter(map(known.__getitem__, topics), np.uint32, len(topics))
        if len(known) > TOPICS_MAX:
            known.clear()
        return owners

    def _number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        if number not in self.names:
            self.names[number] = self.new[number] = name
        return number


@dataclass(slots=True)
class Piece:
    """Entries `first` to `last` of an epoch's readings; of a hole nothing but the numbers is known."""

    epoch: int
    start_us: int
    first: int
    last: int
    is_hole: bool = False
    tallies: dict[int, Tally] = field(default_factory=dict)
    """By the number of the equipment."""

    def extend(self, other: "Piece") -> None:
        """Take in the piece that follows."""
        self.last = other.last
        for number, tally in other.tallies.items():
            self.tallies[number] = self.tallies.get(number, Tally()).plus(tally)

    def body(self) -> bytes:
        rows = [(number, *tally) for number, tally in self.tallies.items()]
        return zstandard.compress(np.array(rows, _TALLY).tobytes(), _LEVEL)

    @staticmethod
    def tallies_of(body: bytes) -> dict[int, Tally]:
        rows = np.frombuffer(zstandard.decompress(body), _TALLY).tolist()
        return {number: Tally(entries, fingerprint) for number, entries, fingerprint in rows}


def pieces(
    epoch: int, first: int, entries: Sequence[Reading], equipment: Equipment, cut_after: int
) -> Iterator[tuple[Piece, Owners]]:
    """Consecutive entries cut where the window changes, and behind the number `cut_after`; each with its owners."""
    marks = fingerprints(first, entries)
    owners = equipment.numbers([entry.topic for entry in entries])
    arrivals = int64_times([entry.arrival_us for entry in entries])
    starts = arrivals - arrivals % WINDOW_US
    cuts = set((np.flatnonzero(np.diff(starts)) + 1).tolist()) | {0, len(entries)}
    if first <= cut_after < first + len(entries) - 1:
        cuts.add(cut_after + 1 - first)
    bounds = sorted(cuts)
    for low, high in pairwise(bounds):
        mine = owners[low:high]
        yield (
            Piece(epoch, int(starts[low]), first + low, first + high - 1, tallies=_tallies(mine, marks[low:high])),
            mine,
        )


class Stretch(NamedTuple):
    """Whose consecutive entries are: one equipment's number each, packed."""

    first: int
    last: int
    body: bytes


def packed(owners: Owners) -> bytes:
    return zstandard.compress(owners.astype("<u4").tobytes(), _LEVEL)


def unpacked(body: bytes) -> Owners:
    return np.frombuffer(zstandard.decompress(body), "<u4")


def counted(piece: Piece, numbers: Ranges, stretches: Iterable[Stretch]) -> dict[int, int]:
    """How many of these numbers of a piece each equipment has; only stretches that hold one in question are opened."""
    inside = clipped(numbers, piece.first, piece.last)
    whole = {number: tally.entries for number, tally in piece.tallies.items()}
    if not inside or piece.is_hole:
        return {}
    if inside == ((piece.first, piece.last),):
        return whole
    outside = minus(((piece.first, piece.last),), inside)
    if size(inside) <= size(outside):
        return _counted(inside, stretches)
    less = _counted(outside, stretches)
    return {number: count - less.get(number, 0) for number, count in whole.items()}


def _counted(numbers: Ranges, stretches: Iterable[Stretch]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for first, last, body in stretches:
        asked = clipped(numbers, first, last)
        if not asked:
            continue
        owners = unpacked(body)
        for low, high in asked:
            found, how_many = np.unique(owners[low - first : high - first + 1], return_counts=True)
            for number, count in zip(found.tolist(), how_many.tolist(), strict=True):
                counts[number] = counts.get(number, 0) + count
    return counts


def _tallies(owners: Owners, marks: NDArray[np.uint64]) -> dict[int, Tally]:
    numbers, places = np.unique(owners, return_inverse=True)
    sums = np.zeros(len(numbers), np.uint64)
    np.add.at(sums, places, marks)
    counts = np.bincount(places, minlength=len(numbers))
    rows = zip(numbers.tolist(), counts.tolist(), sums.tolist(), strict=True)
    return {number: Tally(count, mark) for number, count, mark in rows}
