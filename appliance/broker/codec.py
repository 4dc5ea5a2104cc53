"""Packets from bytes and to bytes, for MQTT 3.1.1 and 5; no socket, no clock."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from appliance.broker.frames import Frame
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
from appliance.broker.properties import NONE, Kind, Properties, decode_properties, encode_properties
from appliance.broker.wire import (
    MqttError,
    Reader,
    Reason,
    Version,
    binary,
    malformed,
    protocol_error,
    text,
    uint16,
    varint,
)

TOPICS_REMEMBERED: Final = 10_000
_ACK_KINDS: Final = (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP)
_FLAGS: Final = {Kind.PUBREL: 2, Kind.SUBSCRIBE: 2, Kind.UNSUBSCRIBE: 2}
_RETURN_CODES: Final = {
    Reason.SUCCESS: 0,
    Reason.UNSUPPORTED_PROTOCOL_VERSION: 1,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: 2,
    Reason.SERVER_UNAVAILABLE: 3,
    Reason.SERVER_SHUTTING_DOWN: 3,
    Reason.QUOTA_EXCEEDED: 3,
    Reason.BAD_USER_NAME_OR_PASSWORD: 4,
    Reason.NOT_AUTHORIZED: 5,
}
_V311_FAILURE: Final = 0x80


def decode(frame: Frame, version: Version) -> Packet:
    """The packet in a frame; raises `MqttError` for anything the standard does not allow."""
    number, flags = frame.header >> 4, frame.header & 0x0F
    if number == Kind.PUBLISH:
        return decode_publish(frame, version)
    if number == 0 or flags != _FLAGS.get(Kind(number), 0):
        raise malformed(f"there is no packet with the first byte {frame.header:#04x}")
    kind, reader = Kind(number), Reader(frame.body)
    packet = _DECODERS[kind](reader, kind, version)
    reader.finish()
    return packet


def decode_publish(frame: Frame, version: Version) -> Publish:
    """A PUBLISH; by far the most frequent packet, so it is cut by hand where a Reader would do."""
    header, body = frame
    qos, size = header >> 1 & 3, len(body)
    if qos == 3:
        raise malformed("a PUBLISH has QoS 3")
    at = (body[0] << 8 | body[1]) + 2 if size >= 2 else 2
    if at + (2 if qos else 0) > size:
        raise malformed("a PUBLISH ends too early")
    topic, packet_id, properties = _topic(body[:at]), 0, NONE
    if qos:
        packet_id, at = body[at] << 8 | body[at + 1], at + 2
        if packet_id == 0:
            raise malformed("a packet identifier is 0")
    if version is Version.V5:
        if body[at : at + 1] == b"\0":
            at += 1
        else:
            reader = Reader(body[at:])
            properties = decode_properties(reader, Kind.PUBLISH)
            at = size - reader.left
    return Publish(topic, body[at:], qos, bool(header & 1), bool(header & 8), packet_id, properties)


@lru_cache(TOPICS_REMEMBERED)
def _topic(field: bytes) -> str:
    """The topic in a length-prefixed field; machines say the same few again and again."""
    topic = Reader(field).text()
    if "+" in topic or "#" in topic:
        raise MqttError(Reason.TOPIC_NAME_INVALID, f"the topic {topic!r} of a PUBLISH holds a wildcard")
    return topic


def encode(packet: Packet, version: Version) -> bytes:
    """The packet as bytes."""
    match packet:
        case Publish():
            flags = packet.dup << 3 | packet.qos << 1 | packet.retain
            before, after = publish_parts(
                flags, packet.topic, packet.payload, encode_properties(packet.properties), version
            )
            return before + (uint16(packet.packet_id) if packet.qos else b"") + after
        case Ack():
            return _framed(packet.kind, uint16(packet.packet_id) + _tail(packet.reason, packet.properties, version))
        case Farewell():
            return _framed(packet.kind, _tail(packet.reason, packet.properties, version))
        case Ping():
            return _framed(packet.kind, b"")
        case Answers():
            return _framed(packet.kind, _answers(packet, version))
        case Connack():
            return _framed(Kind.CONNACK, _connack(packet, version))
        case Subscribe():
            wishes = b"".join(text(its.topic) + bytes((_options(its),)) for its in packet.filters)
            return _framed(Kind.SUBSCRIBE, uint16(packet.packet_id) + _listed(packet.properties, version) + wishes)
        case Unsubscribe():
            topics = b"".join(map(text, packet.topics))
            return _framed(Kind.UNSUBSCRIBE, uint16(packet.packet_id) + _listed(packet.properties, version) + topics)
        case Connect():
            return _framed(Kind.CONNECT, _connect(packet))


def publish_parts(flags: int, topic: str, payload: bytes, properties: bytes, version: Version) -> tuple[bytes, bytes]:
    """A PUBLISH in two pieces, between which the packet identifier goes when the flags say QoS 1 or 2."""
    name = text(topic)
    after = properties + payload if version is Version.V5 else payload
    size = len(name) + len(after) + (2 if flags & 6 else 0)
    return bytes((Kind.PUBLISH << 4 | flags,)) + varint(size) + name, after


def _framed(kind: Kind, body: bytes) -> bytes:
    return bytes((kind << 4 | _FLAGS.get(kind, 0),)) + varint(len(body)) + body


def _listed(properties: Properties, version: Version) -> bytes:
    return encode_properties(properties) if version is Version.V5 else b""


def _tail(reason: int, properties: Properties, version: Version) -> bytes:
    if version is not Version.V5 or (not reason and not properties):
        return b""
    return bytes((reason,)) + (encode_properties(properties) if properties else b"")


def _answers(packet: Answers, version: Version) -> bytes:
    if version is Version.V5:
        return uint16(packet.packet_id) + encode_properties(packet.properties) + bytes(packet.reasons)
    if packet.kind is Kind.UNSUBACK:
        return uint16(packet.packet_id)
    return uint16(packet.packet_id) + bytes(min(reason, _V311_FAILURE) for reason in packet.reasons)


def _connack(packet: Connack, version: Version) -> bytes:
    if version is Version.V5:
        return bytes((packet.session_present, packet.reason)) + encode_properties(packet.properties)
    return bytes((packet.session_present, _RETURN_CODES.get(Reason(packet.reason), 5)))


def _options(wish: Filter) -> int:
    return wish.qos | wish.no_local << 2 | wish.retain_as_published << 3 | wish.retain_handling << 4


def _connect(packet: Connect) -> bytes:
    will, version = packet.will, packet.version
    flags = packet.clean_start << 1 | (packet.password is not None) << 6 | (packet.username is not None) << 7
    parts = [_listed(packet.properties, version), text(packet.client_id)]
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        parts += [_listed(will.properties, version), text(will.topic), binary(will.payload)]
    if packet.username is not None:
        parts.append(text(packet.username))
    if packet.password is not None:
        parts.append(binary(packet.password))
    return text("MQTT") + bytes((version, flags)) + uint16(packet.keepalive_s) + b"".join(parts)


def _read_connect(reader: Reader, _kind: Kind, _version: Version) -> Packet:
    protocol, level = reader.text(), reader.byte()
    if protocol not in ("MQTT", "MQIsdp"):
        raise malformed(f"the protocol is called {protocol[:16]!r}, not 'MQTT'")
    if protocol != "MQTT" or level not in (Version.V311, Version.V5):
        raise MqttError(Reason.UNSUPPORTED_PROTOCOL_VERSION, f"{protocol} level {level}; 3.1.1 and 5 are spoken")
    version, flags, keepalive_s = Version(level), reader.byte(), reader.uint16()
    if flags & 1 or (not flags & 4 and flags & 0x38) or flags >> 3 & 3 == 3:
        raise malformed(f"the CONNECT flags {flags:#04x} contradict each other")
    if version is Version.V311 and flags & 0xC0 == 0x40:
        raise malformed("a CONNECT has a password but no user name")
    properties = decode_properties(reader, Kind.CONNECT) if version is Version.V5 else NONE
    client_id = reader.text()
    will = _read_will(reader, flags, version) if flags & 4 else None
    username = reader.text() if flags & 0x80 else None
    password = reader.binary() if flags & 0x40 else None
    return Connect(version, client_id, bool(flags & 2), keepalive_s, will, username, password, properties)


def _read_will(reader: Reader, flags: int, version: Version) -> Will:
    properties = decode_properties(reader, Kind.WILL) if version is Version.V5 else NONE
    topic = reader.text()
    if not topic or "+" in topic or "#" in topic:
        raise MqttError(Reason.TOPIC_NAME_INVALID, f"the will's topic {topic!r} is empty or holds a wildcard")
    return Will(topic, reader.binary(), flags >> 3 & 3, bool(flags & 0x20), properties)


def _read_connack(reader: Reader, _kind: Kind, version: Version) -> Packet:
    present, reason = reader.byte(), reader.byte()
    if present > 1:
        raise malformed("the CONNACK flags are not 0 or 1")
    if version is Version.V5:
        return Connack(reason, bool(present), decode_properties(reader, Kind.CONNACK))
    reasons = {code: its for its, code in reversed(_RETURN_CODES.items())}
    return Connack(reasons.get(reason, Reason.UNSPECIFIED_ERROR), bool(present))


def _read_ack(reader: Reader, kind: Kind, version: Version) -> Packet:
    packet_id = reader.packet_id()
    reason, properties = _read_tail(reader, kind, version)
    return Ack(kind, packet_id, reason, properties)


def _read_farewell(reader: Reader, kind: Kind, version: Version) -> Packet:
    if kind is Kind.AUTH and version is not Version.V5:
        raise malformed("MQTT 3.1.1 has no AUTH")
    return Farewell(kind, *_read_tail(reader, kind, version))


def _read_tail(reader: Reader, kind: Kind, version: Version) -> tuple[int, Properties]:
    if version is not Version.V5 or not reader.left:
        return Reason.SUCCESS, NONE
    reason = reader.byte()
    return reason, decode_properties(reader, kind) if reader.left else NONE


def _read_subscribe(reader: Reader, kind: Kind, version: Version) -> Packet:
    packet_id = reader.packet_id()
    properties = decode_properties(reader, kind) if version is Version.V5 else NONE
    filters: list[Filter] = []
    while reader.left:
        filters.append(_read_filter(reader.text(), reader.byte(), version))
    if not filters:
        raise protocol_error("a SUBSCRIBE without topic filters")
    return Subscribe(packet_id, tuple(filters), properties)


def _read_filter(topic: str, options: int, version: Version) -> Filter:
    if options & 3 == 3 or options & (0xC0 if version is Version.V5 else 0xFC) or options >> 4 == 3:
        raise malformed(f"the subscription options {options:#04x} do not exist")
    return Filter(topic, options & 3, bool(options & 4), bool(options & 8), options >> 4)


def _read_unsubscribe(reader: Reader, kind: Kind, version: Version) -> Packet:
    packet_id = reader.packet_id()
    properties = decode_properties(reader, kind) if version is Version.V5 else NONE
    topics: list[str] = []
    while reader.left:
        topics.append(reader.text())
    if not topics:
        raise protocol_error("an UNSUBSCRIBE without topic filters")
    return Unsubscribe(packet_id, tuple(topics), properties)


def _read_answers(reader: Reader, kind: Kind, version: Version) -> Packet:
    packet_id = reader.packet_id()
    properties = decode_properties(reader, kind) if version is Version.V5 else NONE
    return Answers(kind, packet_id, tuple(reader.rest()), properties)


def _read_ping(_reader: Reader, kind: Kind, _version: Version) -> Packet:
    return Ping(kind)


_DECODERS: Final[dict[Kind, Callable[[Reader, Kind, Version], Packet]]] = {
    Kind.CONNECT: _read_connect,
    Kind.CONNACK: _read_connack,
    Kind.SUBSCRIBE: _read_subscribe,
    Kind.UNSUBSCRIBE: _read_unsubscribe,
    Kind.SUBACK: _read_answers,
    Kind.UNSUBACK: _read_answers,
    Kind.PINGREQ: _read_ping,
    Kind.PINGRESP: _read_ping,
    Kind.DISCONNECT: _read_farewell,
    Kind.AUTH: _read_farewell,
    **dict.fromkeys(_ACK_KINDS, _read_ack),
}
