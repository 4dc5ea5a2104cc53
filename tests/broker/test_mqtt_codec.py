"""Packets survive the wire; bytes that are none are refused, never anything worse."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.broker.codec import decode, encode
from appliance.broker.frames import Frame, Frames
from appliance.broker.packets import (
    Ack,
    Answers,
    Connack,
    Connect,
    Farewell,
    Filter,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
)
from appliance.broker.properties import _ALLOWED, _FLAGS, _FOUR_BYTES, _TEXTS, _TWO_BYTES, Kind, Property
from appliance.broker.wire import MqttError, Reason, Version, varint

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
topics = st.text(string.ascii_letters + "/äµ$ ", min_size=1, max_size=40)
ids = st.integers(1, 65535)
qos = st.integers(0, 2)
payloads = st.binary(max_size=300)
versions = st.sampled_from(Version)


def _value(name: Property) -> st.SearchStrategy[Any]:
    if name is Property.USER_PROPERTY:
        return st.lists(st.tuples(texts, texts), min_size=1, max_size=3).map(tuple)
    if name is Property.SUBSCRIPTION_IDENTIFIER:
        return st.lists(st.integers(1, 268_435_455), min_size=1, max_size=3).map(tuple)
    if name in _TEXTS:
        return texts
    if name in _TWO_BYTES:
        return st.integers(1, 65535)
    if name in _FOUR_BYTES:
        return st.integers(1, 2**32 - 1)
    return st.integers(0, 1) if name in _FLAGS else st.binary(max_size=20)


def properties(kind: Kind, version: Version) -> st.SearchStrategy[Any]:
    if version is Version.V311:
        return st.just({})
    names = [name for name in Property if kind in _ALLOWED[name]]
    return st.fixed_dictionaries({}, optional={name: _value(name) for name in names})


def packets(version: Version) -> st.SearchStrategy[Packet]:
    def of(kind: Kind) -> st.SearchStrategy[Any]:
        return properties(kind, version)

    v5 = version is Version.V5
    flag = st.booleans() if v5 else st.just(False)
    reason = st.integers(0, 255) if v5 else st.just(0)
    will = st.builds(Will, topics, payloads, qos, st.booleans(), of(Kind.WILL))
    wish = st.builds(Filter, topics, qos, flag, flag, st.integers(0, 2) if v5 else st.just(0))
    acks = [Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP]
    return st.one_of(
        st.builds(
            Connect,
            st.just(version),
            texts,
            st.booleans(),
            st.integers(0, 65535),
            st.none() | will,
            texts,
            st.none() | payloads,
            of(Kind.CONNECT),
        ),
        st.builds(Connack, reason, st.booleans(), of(Kind.CONNACK)),
        st.builds(Publish, topics, payloads, st.just(0), st.booleans(), st.just(False), properties=of(Kind.PUBLISH)),
        st.builds(Publish, topics, payloads, st.integers(1, 2), st.booleans(), st.booleans(), ids, of(Kind.PUBLISH)),
        *(st.builds(Ack, st.just(kind), ids, reason, of(kind)) for kind in acks),
        st.builds(Subscribe, ids, st.lists(wish, min_size=1, max_size=4).map(tuple), of(Kind.SUBSCRIBE)),
        st.builds(Unsubscribe, ids, st.lists(topics, min_size=1, max_size=4).map(tuple), of(Kind.UNSUBSCRIBE)),
        st.builds(
            Answers,
            st.just(Kind.SUBACK),
            ids,
            st.lists(st.sampled_from([0, 1, 2, 0x80]), max_size=4).map(tuple),
            of(Kind.SUBACK),
        ),
        st.builds(Ping, st.sampled_from([Kind.PINGREQ, Kind.PINGRESP])),
        st.builds(Farewell, st.just(Kind.DISCONNECT), reason, of(Kind.DISCONNECT)),
    )


@given(versions.flatmap(lambda version: st.tuples(st.just(version), packets(version))))
def test_packets_survive_the_wire(case: tuple[Version, Packet]) -> None:
    """Whatever can be sent is read again as it was."""
    version, packet = case
    frames = Frames(1 << 20)
    frames.push(encode(packet, version))
    frame = frames.pop()
    assert frame is not None
    assert frames.pop() is None
    assert decode(frame, version) == packet


@given(st.lists(packets(Version.V5), max_size=5), st.integers(1, 7))
def test_packets_survive_being_cut(sent: list[Packet], size: int) -> None:
    """Packets come out whole, however the stream of bytes is cut."""
    data = b"".join(encode(packet, Version.V5) for packet in sent)
    frames, received = Frames(1 << 20), []
    for start in range(0, len(data), size):
        frames.push(data[start : start + size])
        while (frame := frames.pop()) is not None:
            received.append(decode(frame, Version.V5))
    assert received == sent


@given(st.binary(max_size=200), versions)
def test_garbage_is_refused_and_nothing_worse(data: bytes, version: Version) -> None:
    """Any bytes are packets, or an MqttError; no other exception comes out."""
    frames = Frames(1 << 16)
    frames.push(data)
    try:
        while (frame := frames.pop()) is not None:
            decode(frame, version)
    except MqttError as error:
        assert error.text


@given(versions.flatmap(lambda v: st.tuples(st.just(v), packets(v))), st.data())
def test_a_flipped_bit_is_refused_or_read(case: tuple[Version, Packet], data: st.DataObject) -> None:
    """A damaged packet is another packet or an MqttError."""
    version, packet = case
    wire = bytearray(encode(packet, version))
    bit = data.draw(st.integers(0, len(wire) * 8 - 1))
    wire[bit // 8] ^= 1 << bit % 8
    frames = Frames(1 << 20)
    frames.push(bytes(wire))
    try:
        if (frame := frames.pop()) is not None:
            decode(frame, version)
    except MqttError as error:
        assert error.reason >= 0x80


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (Frame(0x00, b""), Reason.MALFORMED_PACKET),
        (Frame(0x36, b"\0\1a\0\1"), Reason.MALFORMED_PACKET),
        (Frame(0x32, b"\0\1a\0\0\0"), Reason.MALFORMED_PACKET),
        (Frame(0x30, b"\0\1#\0"), Reason.TOPIC_NAME_INVALID),
        (Frame(0x30, b"\0\2\xc3\x28\0"), Reason.MALFORMED_PACKET),
        (Frame(0x80, b"\0\1\0\0\1a\0"), Reason.MALFORMED_PACKET),
        (Frame(0x82, b"\0\1\0"), Reason.PROTOCOL_ERROR),
        (Frame(0x30, b"\0\1a\2\x11\0"), Reason.PROTOCOL_ERROR),
        (Frame(0x30, b"\0\1a\4\x01\0\x01\0"), Reason.PROTOCOL_ERROR),
        (Frame(0x30, b"\0\1a\2\x7f\0"), Reason.MALFORMED_PACKET),
        (Frame(0x10, b"\0\6MQIsdp\3\2\0\0\0\0"), Reason.UNSUPPORTED_PROTOCOL_VERSION),
        (Frame(0x10, b"\0\4MQTT\5\1\0\0\0\0\0"), Reason.MALFORMED_PACKET),
        (Frame(0xC0, b"x"), Reason.MALFORMED_PACKET),
    ],
)
def test_what_the_standard_forbids(frame: Frame, reason: Reason) -> None:
    """Each fault has the reason code that MQTT 5 gives it."""
    with pytest.raises(MqttError) as caught:
        decode(frame, Version.V5)
    assert caught.value.reason is reason


def test_a_packet_too_large_is_refused_before_it_is_kept() -> None:
    """The length alone is enough to refuse; not one byte of the body is waited for."""
    frames = Frames(1000)
    frames.push(b"\x30" + varint(200_000_000))
    with pytest.raises(MqttError) as caught:
        frames.pop()
    assert caught.value.reason is Reason.PACKET_TOO_LARGE
