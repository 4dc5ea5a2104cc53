"""A Reading: one value of one topic at one moment."""

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

Value: TypeAlias = bool | int | float | str | None
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


class Quality(IntEnum):
    """How far a value can be trusted, with the numbers of classic OPC."""

    BAD = 0
    UNCERTAIN = 64
    GOOD = 192


class Stream(StrEnum):
    """The two streams of a plant's log; each has contiguous numbers of its own."""

    READINGS = "readings"
    EVENTS = "events"


class Reading(NamedTuple):
    """One entry of the log. Times are microseconds since 1970 in UTC.

    A tuple rather than a dataclass: thousands are made each second, and the columns of an
    envelope are made of them. In the stream `events` the value is the JSON of a Prediction,
    Alarm or Gap and `origin` is its kind; in `readings` the origin is where the value came from,
    such as `opcua:boiler` or `mqtt:scada-1`.
    """

    topic: str
    value: Value
    quality: int
    source_us: int
    """When the machine says it happened."""
    server_us: int
    """When the server or gateway in front of the machine saw it."""
    arrival_us: int
    """When this appliance received it."""
    origin: str


_FIELDS: Final = tuple(map(itemgetter, range(len(Reading._fields))))


def columns_of(entries: Sequence[Reading]) -> tuple[list[Any], ...]:
    """The seven columns of entries.

    `zip(*entries)` would make an iterator for each entry, and so many of them set the garbage collector to work.
    """
    return tuple(list(map(field, entries)) for field in _FIELDS)


def message_id(plant: str, epoch: int, stream: str, seq: int) -> str:
    """The name of one entry everywhere: log, UNS, lake. It is the only key for deduplication."""
    return f"{plant}:{epoch}:{stream}:{seq}"


def storable(value: Value) -> Value:
    """The value as the log keeps it: an integer beyond 64 bits becomes its decimal text, never a rounded number."""
    if type(value) is int and not INT64_MIN <= value <= INT64_MAX:
        return str(value)
    return value
