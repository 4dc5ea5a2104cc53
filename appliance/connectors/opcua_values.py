"""From OPC UA data values to Readings: pure conversions, no clock and no socket."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from asyncua import ua

from appliance.contract.reading import Quality, Reading, Value, storable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_OVERFLOW_MASK = 0x0480
"""InfoType DataValue together with the overflow bit (OPC UA part 4, 7.39): the server's queue was too short."""
_INTEGERS = frozenset(
    {
        ua.VariantType.SByte,
        ua.VariantType.Byte,
        ua.VariantType.Int16,
        ua.VariantType.UInt16,
        ua.VariantType.Int32,
        ua.VariantType.UInt32,
        ua.VariantType.Int64,
        ua.VariantType.UInt64,
    }
)
_FLOATS = frozenset({ua.VariantType.Float, ua.VariantType.Double})


class Unreadable(ValueError):
    """A value of a kind that the log does not keep, such as an array or a structure."""


class Sample(NamedTuple):
    """A data value as a Reading, and whether the server says that others before it were lost."""

    reading: Reading
    is_after_overflow: bool


def sample_of(data: ua.DataValue, topic: str, arrival_us: int, origin: str) -> Sample:
    """The Reading of one data value; raises `Unreadable`."""
    status = int(data.StatusCode.value) if data.StatusCode is not None else 0
    server_us = _us(data.ServerTimestamp)
    source_us = _us(data.SourceTimestamp)
    if server_us is None:
        server_us = arrival_us
    if source_us is None:
        source_us = server_us
    reading = Reading(topic, value_of(data.Value), _quality(status), source_us, server_us, arrival_us, origin)
    return Sample(reading, status & _OVERFLOW_MASK == _OVERFLOW_MASK)


def value_of(variant: ua.Variant | None) -> Value:
    """A scalar as the log keeps it; raises `Unreadable`."""
    if variant is None or variant.VariantType is ua.VariantType.Null:
        return None
    kind, value = variant.VariantType, variant.Value
    if isinstance(value, list):
        raise Unreadable(f"an array of {_name(kind)}")
    if value is None:
        return None
    if kind in _FLOATS:
        return float(value)
    if kind is ua.VariantType.Boolean:
        return bool(value)
    if kind in _INTEGERS:
        return storable(int(value))
    if kind is ua.VariantType.String:
        return str(value)
    raise Unreadable(f"a {_name(kind)}")


def _quality(status: int) -> int:
    return (int(Quality.GOOD), int(Quality.UNCERTAIN), int(Quality.BAD), int(Quality.BAD))[status >> 30 & 3]


def _us(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def _name(kind: object) -> str:
    return str(getattr(kind, "name", kind))
