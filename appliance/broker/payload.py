"""Payloads: what an MQTT message says as a Reading, and a Reading as a message says it."""

import json
import math
from datetime import UTC, datetime
from typing import Any, Final

from appliance.contract.reading import Quality, Reading, Value, storable

TEXT_CHARS_MAX: Final = 32_768
"""A longer text would not fit an envelope."""
_TIME_US_MAX: Final = 253_402_300_799_999_999  # The end of the year 9999.
_QUALITIES: Final = {quality.name: quality for quality in Quality}
_EXPECTED: Final = 'send a number, true, false, a text, or {"value": ..., "timestamp": ..., "quality": ...}'


class PayloadError(ValueError):
    """A payload that is no value; the text says what would be."""


def to_reading(topic: str, payload: bytes, origin: str, arrival_us: int) -> Reading:
    """Read a payload: a scalar, or an object with `value` and perhaps `timestamp` and `quality`."""
    try:
        text = payload.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise PayloadError(f"the payload is not UTF-8; {_EXPECTED}") from None
    document = _parsed(text)
    if not isinstance(document, dict):
        value = _value(document)
        return Reading(topic, value, _quality(None, value), arrival_us, arrival_us, arrival_us, origin)
    if "value" not in document:
        raise PayloadError(f"the object has no 'value'; {_EXPECTED}")
    value = _value(document["value"])
    source_us = _time_us(document["timestamp"]) if document.get("timestamp") is not None else arrival_us
    quality = _quality(document.get("quality"), value)
    return Reading(topic, value, quality, source_us, arrival_us, arrival_us, origin)


def to_payload(reading: Reading) -> bytes:
    """The reading as the UNS shows it; a number that JSON does not have becomes a text."""
    value: Any = reading.value
    if isinstance(value, float) and not math.isfinite(value):
        value = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    quality = Quality(reading.quality).name if reading.quality in _NAMED else reading.quality
    document = {"value": value, "timestamp": iso(reading.source_us), "quality": quality}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


_NAMED: Final = {int(quality) for quality in Quality}


def iso(at_us: int) -> str:
    """A time as ISO 8601 in UTC, with as many decimals as it needs."""
    seconds, rest_us = divmod(at_us, 1_000_000)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if rest_us % 1000:
        return f"{whole}.{rest_us:06d}Z"
    return f"{whole}.{rest_us // 1000:03d}Z"


def _parsed(text: str) -> Any:
    if not text:
        raise PayloadError(f"the payload is empty; {_EXPECTED}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if text[0] in '{["':
            raise PayloadError(f"the payload begins like JSON but is none; {_EXPECTED}") from None
        return text


def _value(value: Any) -> Value:
    if isinstance(value, str):
        if len(value) > TEXT_CHARS_MAX:
            raise PayloadError(f"the text has {len(value)} characters; {TEXT_CHARS_MAX} are accepted")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise PayloadError("the text holds half a surrogate pair; send whole characters") from None
        return value
    if value is None or isinstance(value, bool | int | float):
        return storable(value)
    raise PayloadError(f"the value is {'an array' if isinstance(value, list) else 'an object'}; {_EXPECTED}")


def _time_us(timestamp: Any) -> int:
    hint = "write 2026-01-31T12:00:00.250Z, or milliseconds since 1970"
    try:
        if isinstance(timestamp, str):
            at = datetime.fromisoformat(timestamp)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            since = at - datetime(1970, 1, 1, tzinfo=UTC)
            at_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        elif isinstance(timestamp, int | float) and not isinstance(timestamp, bool):
            at_us = round(timestamp * 1000)
        else:
            raise PayloadError(f"the timestamp is neither text nor number; {hint}")
    except (ValueError, OverflowError) as error:
        if isinstance(error, PayloadError):
            raise
        raise PayloadError(f"the timestamp {str(timestamp)[:40]!r} is no time; {hint}") from None
    if not 0 <= at_us <= _TIME_US_MAX:
        raise PayloadError(f"the timestamp {str(timestamp)[:40]} lies outside 1970 to 9999; {hint}")
    return at_us


def _quality(quality: Any, value: Value) -> int:
    if quality is None:
        return Quality.BAD if value is None else Quality.GOOD
    if isinstance(quality, str) and quality.upper() in _QUALITIES:
        return _QUALITIES[quality.upper()]
    if isinstance(quality, int) and not isinstance(quality, bool) and 0 <= quality <= 255:
        # The two upper bits of classic OPC say good, uncertain or bad; the rest says why.
        if quality & 0xC0 in _NAMED:
            return quality & 0xC0
    raise PayloadError(f"the quality {str(quality)[:20]!r} is unknown; send GOOD, UNCERTAIN, BAD, or 192, 64, 0")
