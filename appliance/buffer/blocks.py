"""A Block: entries of the log as they leave the plant, sealed once and never changed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple, Self

from appliance.contract.envelope import Sealed, envelopes
from appliance.contract.reading import Reading, Stream

_TOPIC, _SOURCE, _ARRIVAL = (Reading._fields.index(name) for name in ("topic", "source_us", "arrival_us"))


class NewBlock(NamedTuple):
    """A sealed envelope on its way into the file, with the arrival times of what it holds, first and last."""

    sealed: Sealed
    from_us: int
    to_us: int
    latest_us: dict[str, int]
    """The newest source time of each topic in it."""


@dataclass(frozen=True, slots=True)
class Block:
    """What the file says of a block without reading its body."""

    first: int
    count: int
    size: int
    from_us: int
    to_us: int

    @property
    def last(self) -> int:
        return self.first + self.count - 1


class Run(NamedTuple):
    """Consecutive entries read from the file; `first` is the number of the first one."""

    first: int
    entries: list[Reading]

    @classmethod
    def none(cls, after: int) -> Self:
        return cls(after + 1, [])


def chained(previous: bytes, body: bytes) -> bytes:
    """The digest of a block: it speaks for its own body and for every block sealed before it."""
    return hashlib.sha256(previous + body).digest()


def new_blocks(plant: str, epoch: int, stream: Stream, first: int, entries: Sequence[Reading]) -> list[NewBlock]:
    """Seal consecutive entries into as few blocks as the bounds of an envelope allow."""
    blocks = []
    for sealed in envelopes(plant, epoch, stream, first, entries):
        held = entries[sealed.first - first : sealed.first - first + sealed.count]
        arrivals = list(map(itemgetter(_ARRIVAL), held))
        blocks.append(NewBlock(sealed, min(arrivals), max(arrivals), _latest_us(held)))
    return blocks


def _latest_us(entries: Sequence[Reading]) -> dict[str, int]:
    sources = list(map(itemgetter(_SOURCE), entries))
    said = zip(map(itemgetter(_TOPIC), entries), sources, strict=True)
    if sources == sorted(sources):  # As it comes from machines, and then the last one of each topic is the newest.
        return dict(said)
    latest_us: dict[str, int] = {}
    for topic, source_us in said:
        if source_us >= latest_us.get(topic, source_us):
            latest_us[topic] = source_us
    return latest_us
