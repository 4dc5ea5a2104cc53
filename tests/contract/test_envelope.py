"""Envelopes: what is sealed opens as exactly the same entries, or not at all."""

import contextlib
import math
import random
import struct
from dataclasses import replace

import google_crc32c
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.contract.columns import dumps, to_columns
from appliance.contract.envelope import (
    BODY_BYTES_MAX,
    PACKED_ENTRIES_MIN,
    Codec,
    Envelope,
    EnvelopeError,
    Lane,
    Sealed,
    entries_of,
    envelopes,
    open_sealed,
    seal,
)
from appliance.contract.reading import INT64_MAX, INT64_MIN, Reading, Stream, storable

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"
both_codecs = pytest.mark.parametrize("count", [3, PACKED_ENTRIES_MIN])
time_us = st.integers(-(2**53), 2**53)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(INT64_MIN, INT64_MAX),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(),
    st.sampled_from([INT64_MIN, INT64_MAX, math.nan, math.inf, -math.inf, -0.0, "", "NaN", "ü€😀", 5e-324]),
)
readings = st.builds(
    Reading,
    topic=st.sampled_from([TOPIC, TOPIC + "/x", "acme/ü/a/l/c/e/t"]),
    value=values,
    quality=st.sampled_from([0, 64, 192]),
    source_us=time_us,
    server_us=time_us,
    arrival_us=time_us,
    origin=st.sampled_from(["opcua:plant", "mqtt:client/1", ""]),
)


def exact(entries: tuple[Reading, ...]) -> list[tuple[object, ...]]:
    """Entries in a form where equal means equal in type and bits (a NaN equals a NaN)."""
    plain = [bits(entry.value) if isinstance(entry.value, float) else entry.value for entry in entries]
    return [
        (*entry._replace(value=None), type(entry.value), value) for entry, value in zip(entries, plain, strict=True)
    ]


def bits(value: float) -> bytes:
    return b"NaN" if math.isnan(value) else struct.pack(">d", value)


def an_envelope(count: int = 3) -> Envelope:
    entries = tuple(Reading(TOPIC, 1.5 * i, 192, i, i, i + 7, "opcua:plant") for i in range(count))
    return Envelope("northfield", 42, Stream.READINGS, 1001, entries)


@given(st.lists(readings, min_size=1, max_size=40), st.sampled_from([1, PACKED_ENTRIES_MIN]), st.integers(1, 2**53))
def test_what_is_sealed_opens_as_the_same_entries(entries: list[Reading], times: int, first: int) -> None:
    """All value types keep type and bits, through the application properties and the body, in both codecs."""
    entries = entries * times
    envelope = Envelope("northfield", 7, Stream.EVENTS, first, tuple(entries))
    sealed = seal(envelope)
    opened = open_sealed(Sealed.from_wire(sealed.properties(Lane.LIVE), sealed.body))
    assert exact(opened.entries) == exact(envelope.entries)
    assert (opened.first, opened.last, opened.message_id(0)) == (
        first,
        first + len(entries) - 1,
        f"northfield:7:events:{first}",
    )
    for topic in (TOPIC, "acme/absent"):
        assert exact(tuple(entries_of(sealed, topic))) == exact(tuple(each for each in entries if each.topic == topic))


@both_codecs
def test_a_truncated_body_is_refused_at_every_length(count: int) -> None:
    """However much of the body is missing, the answer is an error and never a value."""
    sealed = seal(an_envelope(count))
    for length in range(len(sealed.body)):
        with pytest.raises(EnvelopeError, match="bad-checksum"):
            open_sealed(replace(sealed, body=sealed.body[:length]))


@both_codecs
def test_every_flipped_bit_is_noticed(count: int) -> None:
    """CRC-32C finds each single bit that differs."""
    sealed = seal(an_envelope(count))
    for position in range(len(sealed.body) * 8):
        body = bytearray(sealed.body)
        body[position // 8] ^= 1 << position % 8
        with pytest.raises(EnvelopeError):
            open_sealed(replace(sealed, body=bytes(body)))


@both_codecs
@pytest.mark.parametrize("key", ["plant", "epoch", "stream", "first", "count"])
def test_properties_that_contradict_the_body_are_refused(key: str, count: int) -> None:
    """An envelope cannot be passed off as another range, plant or stream."""
    sealed = seal(an_envelope(count))
    properties = sealed.properties(Lane.LIVE)
    wrong = {"plant": "other", "epoch": 1, "stream": "events", "first": 1, "count": 2}[key]
    with pytest.raises(EnvelopeError, match="bad-properties"):
        open_sealed(Sealed.from_wire({**properties, key: wrong}, sealed.body))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": "plantward.envelope/2"}, "unknown-schema"),
        ({"schema": None}, "unknown-schema"),
        ({"codec": "arrow"}, "unknown-codec"),
        ({"first": "many"}, "bad-properties"),
        ({"stream": "rumours"}, "bad-properties"),
    ],
)
def test_what_is_not_ours_is_named(change: dict[str, object], reason: str) -> None:
    """Each reason has its own code, for the dead letters."""
    sealed = seal(an_envelope())
    with pytest.raises(EnvelopeError) as caught:
        Sealed.from_wire({**sealed.properties(Lane.LIVE), **change}, sealed.body)
    assert caught.value.reason == reason


def test_properties_may_arrive_as_bytes() -> None:
    """The AMQP SDK hands application properties over as bytes."""
    sealed = seal(an_envelope())
    as_bytes = {
        key.encode(): value.encode() if isinstance(value, str) else value
        for key, value in sealed.properties(Lane.EVENTS).items()
    }
    assert Sealed.from_wire(as_bytes, sealed.body) == sealed


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 12_000), st.integers(0, 400))
def test_any_number_of_entries_is_packed_in_contiguous_envelopes(count: int, text_chars: int) -> None:
    """Both bounds hold, and the ranges follow one another without a gap."""
    entries = [
        Reading(TOPIC, f"{i * 2654435761 % 2**32:x}" * (text_chars // 8 + 1), 192, i, i, i, "o") for i in range(count)
    ]
    packed = envelopes("northfield", 1, Stream.READINGS, 5, entries)
    assert [sealed.first for sealed in packed] == [5 + sum(s.count for s in packed[:i]) for i in range(len(packed))]
    assert sum(sealed.count for sealed in packed) == count
    assert all(len(sealed.body) <= BODY_BYTES_MAX and sealed.count <= 5_000 for sealed in packed)


def test_an_integer_beyond_64_bits_is_kept_as_text() -> None:
    """A wide counter is never rounded."""
    assert storable(2**63) == "9223372036854775808"
    assert storable(INT64_MAX) == INT64_MAX
    for count in (1, PACKED_ENTRIES_MIN):
        wide = [entry._replace(value=2**64) for entry in an_envelope(count).entries]
        with pytest.raises(TypeError, match="storable"):
            seal(replace(an_envelope(), entries=tuple(wide)))


def as_json(envelope: Envelope) -> Sealed:
    """The envelope as it was written before columns were packed."""
    head = {"plant": envelope.plant, "epoch": envelope.epoch, "stream": str(envelope.stream), "first": envelope.first}
    body = zstandard.compress(dumps({**head, **to_columns(envelope.entries)}), 3)
    return replace(seal(envelope), body=body, crc32c=google_crc32c.value(body))


@given(st.lists(readings, min_size=1, max_size=40))
def test_envelopes_of_the_older_codec_stay_readable(entries: list[Reading]) -> None:
    """A log or lake of before opens like a new one, and says its codec by itself."""
    sealed = as_json(Envelope("northfield", 7, Stream.EVENTS, 9, tuple(entries)))
    assert sealed.properties(Lane.LIVE)["codec"] == "json-columns+zstd"
    opened = open_sealed(Sealed.from_wire(sealed.properties(Lane.LIVE), sealed.body))
    assert exact(opened.entries) == exact(tuple(entries))


def test_a_time_beyond_64_bits_is_written_in_the_older_codec() -> None:
    """A clock gone mad costs compression, not the entry."""
    entries = [entry._replace(source_us=2**70, server_us=-(2**70)) for entry in an_envelope(40).entries]
    assert seal(an_envelope(40)).codec is Codec.PACKED
    sealed = seal(replace(an_envelope(), entries=tuple(entries)))
    assert sealed.codec is Codec.JSON
    assert open_sealed(sealed).entries == tuple(entries)


@pytest.mark.parametrize("seed", range(10))
def test_a_body_sealed_by_someone_else_opens_or_is_refused(seed: int) -> None:
    """Any change behind a checksum that fits gives entries or an `EnvelopeError`, never another error."""
    chance = random.Random(seed)
    sealed = seal(Envelope("northfield", 1, Stream.READINGS, 1, tuple(of_many_kinds(chance, 60))))
    data = zstandard.decompress(sealed.body[1:])
    for _ in range(100):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(data))] = chance.choice(b"0127,[]{}-\x00\xff" + chance.randbytes(1))
        del changed[chance.choice([len(data), chance.randrange(len(data))]) :]
        body = sealed.body[:1] + zstandard.compress(bytes(changed))
        with contextlib.suppress(EnvelopeError):
            open_sealed(replace(sealed, body=body, crc32c=google_crc32c.value(body)))


def of_many_kinds(chance: random.Random, count: int) -> list[Reading]:
    """Entries of 7 topics, each with a kind of value of its own, with times that wander."""
    kinds = [
        lambda: chance.gauss(20, 1),
        lambda: struct.unpack("f", struct.pack("f", chance.gauss(5e3, 1)))[0],
        lambda: round(chance.gauss(20, 1), 3),
        lambda: chance.choice([0.0, -0.0, math.inf, 1e300, 5e-324]),
        lambda: chance.randint(-3, 2**40),
        lambda: chance.random() < 0.5,
        lambda: chance.choice([None, "a\0", "ü"]),
    ]
    at = [1_790_000_000_000_000 + i * 1_000_000 + chance.randrange(900) for i in range(count)]
    return [
        Reading(f"{TOPIC}{i % 7}", kinds[i % 7](), 192, at[i], at[i] + i % 2, at[i] + 40_000, "opcua:plant")
        for i in range(count)
    ]


def test_each_kind_of_float_takes_the_bits_it_has() -> None:
    """Decimals, and doubles that were floats of 32 bits, are smaller than doubles of full precision; all are exact."""
    sizes = []
    for kind in (2, 1, 0):
        entries = [entry for entry in of_many_kinds(random.Random(5), 14_000) if entry.topic == f"{TOPIC}{kind}"]
        sealed = seal(Envelope("northfield", 1, Stream.READINGS, 1, tuple(entries)))
        assert exact(open_sealed(sealed).entries) == exact(tuple(entries))
        sizes.append(len(sealed.body))
    assert sizes[0] < sizes[1] < sizes[2] / 1.5
