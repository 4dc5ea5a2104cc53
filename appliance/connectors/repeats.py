"""Knows a value that was taken before when a server tells it again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from appliance.contract.reading import Reading, Value

REWIND_US_MAX = 3_600_000_000
"""A server that tells old values again does not go back further than this; a clock that was set back may."""
REPEATS_MAX = 1_000
"""So many readings of one tag may be dropped as told before after one subscribing, then they count as new."""


@dataclass(slots=True)
class _Last:
    source_us: int
    value: Value = None
    quality: int | None = None
    """None when only the time is known, from the log of an earlier run."""
    patience: int = 0
    """How many readings may still be taken for a repetition of what came before."""

    def is_told_again_by(self, reading: Reading) -> bool:
        if reading.source_us == self.source_us:
            if self.quality is None:
                return True
            same_value = self.value == reading.value and type(self.value) is type(reading.value)
            return same_value and self.quality == reading.quality
        return self.patience > 0 and self.source_us - REWIND_US_MAX < reading.source_us < self.source_us


@dataclass(slots=True)
class Sifted:
    """The readings to take, and what `Repeats` has to remember once they are in the log."""

    readings: list[Reading] = field(default_factory=list)
    repeated: int = 0
    last: dict[str, _Last] = field(default_factory=dict)


class Repeats:
    """What was taken last of each topic; tells a new reading from one that is told again.

    A new monitored item always tells the current value first, and a server may replay what it holds.
    After `expect` those are dropped as long as they are not newer than the last one taken. A reading
    equal to the last one in time, value and quality is dropped always.
    """

    def __init__(self) -> None:
        self._last: dict[str, _Last] = {}

    def know(self, latest: Mapping[str, int]) -> None:
        """Source times that are in the log already, from an earlier run."""
        for topic, source_us in latest.items():
            known = self._last.get(topic)
            if known is None or known.source_us < source_us:
                self._last[topic] = _Last(source_us)

    def expect(self, topics: Sequence[str]) -> None:
        """These topics were subscribed to anew: their first values may be told again."""
        for topic in topics:
            if last := self._last.get(topic):
                last.patience = REPEATS_MAX

    def sift(self, readings: Sequence[Reading]) -> Sifted:
        """Sort out what is told again; nothing is remembered before `remember`."""
        sifted = Sifted()
        for reading in readings:
            last = sifted.last.get(reading.topic) or self._last.get(reading.topic)
            if last is not None and last.is_told_again_by(reading):
                sifted.repeated += 1
                patience = max(0, last.patience - 1)
                sifted.last[reading.topic] = _Last(last.source_us, last.value, last.quality, patience)
                continue
            sifted.readings.append(reading)
            sifted.last[reading.topic] = _Last(reading.source_us, reading.value, reading.quality)
        return sifted

    def remember(self, sifted: Sifted) -> None:
        """The sifted readings are in the log."""
        self._last.update(sifted.last)
