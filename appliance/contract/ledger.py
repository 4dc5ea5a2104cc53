"""The ledger's words: how many entries each equipment had in a 5-minute window, and a fingerprint of what they said.

The plant counts what it wrote down, the cloud counts what stands in silver, and both use the functions of this
file. Counts and fingerprints of disjoint sets of entries add up, so it does not matter in which pieces or in
which order either side comes by them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, Self, TypeAlias

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from appliance.contract.reading import Quality, Reading, Value

LEDGER_ORIGIN: Final = "ledger"
LEDGER_TAG: Final = "_ledger"
WINDOW_US: Final = 300_000_000
"""Five minutes of arrival time, which is the appliance's own clock."""
TALLIES_MAX: Final = 500
"""Equipment in one event of the ledger; a plant with more says a window in several parts."""
YEAR_1970_US, YEAR_2200_US = 0, 7_258_118_400_000_000
"""A source time outside is no time; the entry then stands at its arrival."""
KINDS: Final[dict[type, int]] = {float: 1, int: 2, bool: 3, str: 4, type(None): 5}
"""What a value is, as a number that goes into the fingerprint."""
EQUIPMENT_LEVELS: Final = 6
_MODULUS: Final = 1 << 64
_NAN_BITS: Final = 0x7FF8_0000_0000_0000
_MULTIPLIERS: Final = (np.uint64(0xBF58_476D_1CE4_E5B9), np.uint64(0x94D0_49BB_1331_11EB))
_GOLDEN: Final = np.uint64(0x9E37_79B9_7F4A_7C15)
_TOPICS_MAX: Final = 100_000

Words: TypeAlias = NDArray[np.uint64]
Times: TypeAlias = NDArray[np.int64]


class Tally(NamedTuple):
    """How many entries, and the sum of their fingerprints modulo 2^64."""

    entries: int = 0
    fingerprint: int = 0

    def plus(self, other: "Tally") -> "Tally":
        return Tally(self.entries + other.entries, (self.fingerprint + other.fingerprint) % _MODULUS)


@dataclass(frozen=True, slots=True)
class WindowTally:
    """What the plant wrote down in one window, as numbers `first` to `last` of the stream `readings` of an epoch.

    An event of the log like any other. A window may be said in several events, for different numbers, when the
    clock was stepped back, and for different equipment, when there is much of it: they add up.
    A window without entries has `last` = `first` - 1: silence is said too.
    """

    epoch: int
    start_us: int
    first: int
    last: int
    equipment: Mapping[str, Tally]

    def entry(self, topic: str, now_us: int) -> Reading:
        """The window as an entry of the stream `events`."""
        tallies = {path: [tally.entries, tally.fingerprint] for path, tally in self.equipment.items()}
        body = {"epoch": self.epoch, "start_us": self.start_us, "first": self.first, "last": self.last}
        text = json.dumps({**body, "equipment": tallies}, separators=(",", ":"), ensure_ascii=False)
        return Reading(topic, text, Quality.GOOD, now_us, now_us, now_us, LEDGER_ORIGIN)

    @classmethod
    def from_entry(cls, entry: Reading) -> Self:
        """Raises ValueError, TypeError or KeyError for anything but what `entry` wrote."""
        body = json.loads(str(entry.value))
        equipment = {path: Tally(int(entries), int(mark)) for path, (entries, mark) in body["equipment"].items()}
        return cls(int(body["epoch"]), int(body["start_us"]), int(body["first"]), int(body["last"]), equipment)


def ledger_topic(root: str, plant: str) -> str:
    """Where a plant's windows are said: a place of the appliance itself in the namespace."""
    return f"{root}/{plant}/plantward/buffer/ledger/appliance/{LEDGER_TAG}"


def window_of(arrival_us: int) -> int:
    """The start of the window that an arrival falls into."""
    return arrival_us - arrival_us % WINDOW_US


def equipment_of_any(topic: str) -> str:
    """To whom a topic's entries are counted: its first six levels, or all but the last when it has fewer."""
    return "/".join(topic.split("/")[:-1][:EQUIPMENT_LEVELS]) or topic


def tallies(first: int, entries: Sequence[Reading]) -> dict[str, Tally]:
    """The tally of each equipment of consecutive entries, the first of which has the number `first`."""
    return tallies_of([entry.topic for entry in entries], fingerprints(first, entries))


def tallies_of(topics: Sequence[str], marks: Words) -> dict[str, Tally]:
    """The tally of each equipment, from the topics and fingerprints of entries."""
    places = {topic: equipment_of_any(topic) for topic in dict.fromkeys(topics)}
    names = list(dict.fromkeys(places.values()))
    number_of = {name: number for number, name in enumerate(names)}
    numbers = np.fromiter((number_of[places[topic]] for topic in topics), np.int64, len(topics))
    counts = np.bincount(numbers, minlength=len(names))
    sums = np.zeros(len(names), np.uint64)
    np.add.at(sums, numbers, marks)
    return {name: Tally(int(counts[number]), int(sums[number])) for number, name in enumerate(names)}


def fingerprints(first: int, entries: Sequence[Reading]) -> Words:
    """A 64-bit mark of each of these consecutive entries: its number, topic, value, quality and time."""
    if not entries:
        return np.zeros(0, np.uint64)
    topics, values, qualities, sources, _, arrivals, _ = zip(*entries, strict=True)
    types = list(map(type, values))
    return fingerprints_of(
        np.arange(first, first + len(entries), dtype=np.uint64),
        np.fromiter(map(text_hash, topics), np.uint64, len(topics)),
        np.fromiter((KINDS[its] for its in types), np.uint64, len(types)),
        _value_bits(values, types),
        np.array(qualities, np.uint64),
        event_times_us(sources, arrivals),
    )


def fingerprints_of(seqs: Words, topics: Words, kinds: Words, bits: Words, qualities: Words, times_us: Times) -> Words:
    """The mark of each entry, column by column: `topics` are `text_hash`es, `bits` what `number_bits` says of floats,
    two's complement of integers and booleans, the `text_hash` of texts, and 0 of null.
    """
    what = _mixed(topics << np.uint64(32) | qualities << np.uint64(8) | kinds)
    return _mixed(seqs * _GOLDEN ^ _mixed(bits + what) ^ _mixed(times_us.view(np.uint64)))


def number_bits(values: NDArray[np.float64]) -> Words:
    """The bits of doubles, one and the same for every NaN."""
    return np.where(np.isnan(values), np.uint64(_NAN_BITS), values.view(np.uint64))


@lru_cache(_TOPICS_MAX)
def text_hash(text: str) -> int:
    """CRC-32C of the text in UTF-8."""
    return int(google_crc32c.value(text.encode("utf-8", "surrogatepass")))


def event_times_us(sources: Sequence[int], arrivals: Sequence[int]) -> Times:
    """When entries happened: their source times, or their arrival where the source time is none."""
    at = int64_times(sources)
    inside = (at >= YEAR_1970_US) & (at < YEAR_2200_US)
    if inside.all():
        return at
    return np.where(inside, at, np.clip(int64_times(arrivals), YEAR_1970_US, YEAR_2200_US - 1))


def int64_times(times: Sequence[int]) -> Times:
    """Times as 64-bit numbers; -1 for those that are too large."""
    try:
        return np.array(times, np.int64)
    except OverflowError:
        return np.array([time if abs(time) < 2**62 else -1 for time in times], np.int64)


def _value_bits(values: Sequence[Value], types: Sequence[type]) -> Words:
    if types.count(float) == len(types):
        return number_bits(np.array(values, np.float64))
    return np.fromiter(map(_bits, values), np.uint64, len(values))


def _bits(value: Value) -> int:
    if type(value) is float:
        return int(np.float64(value).view(np.uint64)) if value == value else _NAN_BITS
    if type(value) is str:
        return int(google_crc32c.value(value.encode("utf-8", "surrogatepass")))
    return int(value or 0) % _MODULUS


def _mixed(words: Words) -> Words:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014): each bit of the input turns half of the output's."""
    words = (words ^ (words >> np.uint64(30))) * _MULTIPLIERS[0]
    words = (words ^ (words >> np.uint64(27))) * _MULTIPLIERS[1]
    return words ^ (words >> np.uint64(31))
