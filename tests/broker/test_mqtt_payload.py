"""Payloads become Readings; what is no value is refused with a hint."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.broker.payload import TEXT_CHARS_MAX, PayloadError, iso, to_payload, to_reading
from appliance.contract.columns import decode, encode
from appliance.contract.reading import Reading

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/flow"
ARRIVAL_US = 1_790_000_000_000_000


def read(payload: str | bytes) -> Reading:
    data = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
    return to_reading(TOPIC, data, "mqtt:scada-1", ARRIVAL_US)


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        ("12.5", 12.5),
        (" 7 ", 7),
        ("true", True),
        ("false", False),
        ("running", "running"),
        ('"running"', "running"),
        ("0x1F", "0x1F"),
        ("-0.0", -0.0),
        ("9223372036854775808", "9223372036854775808"),
        ("Größe", "Größe"),
        ("Infinity", math.inf),
        ('{"value": 3}', 3),
        ('{"value": "on", "unit": "-"}', "on"),
    ],
)
def test_values(payload: str, value: object) -> None:
    """Scalars are taken as JSON has them, anything else that is plain text as text."""
    reading = read(payload)
    assert (reading.value, type(reading.value)) == (value, type(value))
    assert reading[2:] == (192, ARRIVAL_US, ARRIVAL_US, ARRIVAL_US, "mqtt:scada-1")


@pytest.mark.parametrize(
    ("timestamp", "source_us"),
    [
        ('"2015-01-01T06:00:00Z"', 1_420_092_000_000_000),
        ('"2015-01-01T06:00:00"', 1_420_092_000_000_000),
        ('"2015-01-01T07:00:00.000250+01:00"', 1_420_092_000_000_250),
        ("1420092000000", 1_420_092_000_000_000),
        ("1420092000000.25", 1_420_092_000_000_250),
        ("null", ARRIVAL_US),
    ],
)
def test_timestamps(timestamp: str, source_us: int) -> None:
    """The source time is the payload's, in ISO 8601 or milliseconds; without one it is the arrival."""
    reading = read(f'{{"value": 1, "timestamp": {timestamp}}}')
    assert (reading.source_us, reading.arrival_us) == (source_us, ARRIVAL_US)


@pytest.mark.parametrize(
    ("quality", "number"),
    [('"GOOD"', 192), ('"bad"', 0), ('"Uncertain"', 64), ("192", 192), ("216", 192), ("24", 0), ("null", 192)],
)
def test_qualities(quality: str, number: int) -> None:
    """Qualities come by name, or by number with classic OPC's details."""
    assert read(f'{{"value": 1, "quality": {quality}}}').quality == number


def test_no_value_is_not_good() -> None:
    """A null without a quality is bad."""
    assert read("null")[1:3] == (None, 0)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"\xff\xfe", "not UTF-8"),
        ("", "empty"),
        ("[1, 2]", "array"),
        ('{"value": {"a": 1}}', "object"),
        ('{"velue": 1}', "no 'value'"),
        ('{"value": 1', "begins like JSON"),
        ("[" * 100_000, "begins like JSON"),
        ('{"value": 1, "timestamp": "noon"}', "'noon' is no time"),
        ('{"value": 1, "timestamp": true}', "neither text nor number"),
        ('{"value": 1, "timestamp": -1}', "outside 1970"),
        ('{"value": 1, "timestamp": 1e300}', "no time|outside"),
        ('{"value": 1, "quality": "FINE"}', "'FINE' is unknown"),
        ('{"value": 1, "quality": 130}', "unknown"),
        ('"\\ud800"', "surrogate"),
        ("x" * (TEXT_CHARS_MAX + 1), "characters"),
    ],
)
def test_what_is_no_value(payload: str | bytes, says: str) -> None:
    """Each fault is named in one line with a hint."""
    with pytest.raises(PayloadError, match=says) as caught:
        read(payload)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: json.dumps({"value": text}).encode()))
def test_any_payload_is_a_storable_reading_or_refused(payload: bytes) -> None:
    """Whatever clients send, the log can keep what comes out."""
    try:
        reading = read(payload)
    except PayloadError:
        return
    assert repr(decode(encode([reading]))[0].value) == repr(reading.value)


values = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()


@given(values, st.sampled_from([0, 64, 192]), st.integers(0, 4_000_000_000_000_000))
def test_a_reading_shown_on_the_uns_reads_the_same(value: object, quality: int, source_us: int) -> None:
    """What the appliance publishes, it would read as it was; numbers JSON does not have become texts."""
    reading = Reading(TOPIC, value, quality, source_us, source_us, source_us, "opcua:boiler")  # type: ignore[arg-type]
    again = read(to_payload(reading))
    shown = {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, value) if type(value) is float else value
    assert (again.value, again.quality, again.source_us) == (shown, quality, source_us)


def test_times_are_written_with_as_many_decimals_as_they_need() -> None:
    """Milliseconds, and microseconds where there are any."""
    assert iso(1_420_092_000_250_000) == "2015-01-01T06:00:00.250Z"
    assert iso(1_420_092_000_000_001) == "2015-01-01T06:00:00.000001Z"
