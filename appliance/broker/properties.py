"""MQTT 5 properties: which exist, of what type, in which packets."""

from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

from appliance.broker.wire import Reader, binary, malformed, protocol_error, text, uint16, varint


class Kind(IntEnum):
    """The packet types; WILL stands for the properties of a will inside CONNECT."""

    WILL = 0
    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class Property(IntEnum):
    """The property identifiers of MQTT 5, section 2.2.2.2."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
    SHARED_AVAILABLE = 0x2A


PropertyValue: TypeAlias = int | str | bytes | tuple[int, ...] | tuple[tuple[str, str], ...]
"""Numbers, texts and bytes; user properties are a tuple of pairs, subscription identifiers a tuple of numbers."""
Properties: TypeAlias = Mapping[Property, PropertyValue]
NONE: Final[Properties] = MappingProxyType({})


def none() -> Properties:
    """The default of fields that hold properties."""
    return NONE


_P, _K = Property, Kind
_ACKS = {_K.PUBACK, _K.PUBREC, _K.PUBREL, _K.PUBCOMP}
_CONTENT = {_K.PUBLISH, _K.WILL}
_ALLOWED: Final[dict[Property, set[Kind]]] = {
    _P.PAYLOAD_FORMAT: _CONTENT,
    _P.MESSAGE_EXPIRY: _CONTENT,
    _P.CONTENT_TYPE: _CONTENT,
    _P.RESPONSE_TOPIC: _CONTENT,
    _P.CORRELATION_DATA: _CONTENT,
    _P.SUBSCRIPTION_IDENTIFIER: {_K.PUBLISH, _K.SUBSCRIBE},
    _P.SESSION_EXPIRY: {_K.CONNECT, _K.CONNACK, _K.DISCONNECT},
    _P.ASSIGNED_CLIENT_ID: {_K.CONNACK},
    _P.SERVER_KEEP_ALIVE: {_K.CONNACK},
    _P.AUTHENTICATION_METHOD: {_K.CONNECT, _K.CONNACK, _K.AUTH},
    _P.AUTHENTICATION_DATA: {_K.CONNECT, _K.CONNACK, _K.AUTH},
    _P.REQUEST_PROBLEM_INFORMATION: {_K.CONNECT},
    _P.WILL_DELAY: {_K.WILL},
    _P.REQUEST_RESPONSE_INFORMATION: {_K.CONNECT},
    _P.RESPONSE_INFORMATION: {_K.CONNACK},
    _P.SERVER_REFERENCE: {_K.CONNACK, _K.DISCONNECT},
    _P.REASON_STRING: {_K.CONNACK, _K.SUBACK, _K.UNSUBACK, _K.DISCONNECT, _K.AUTH} | _ACKS,
    _P.RECEIVE_MAXIMUM: {_K.CONNECT, _K.CONNACK},
    _P.TOPIC_ALIAS_MAXIMUM: {_K.CONNECT, _K.CONNACK},
    _P.TOPIC_ALIAS: {_K.PUBLISH},
    _P.MAXIMUM_QOS: {_K.CONNACK},
    _P.RETAIN_AVAILABLE: {_K.CONNACK},
    _P.USER_PROPERTY: set(Kind) - {_K.PINGREQ, _K.PINGRESP},
    _P.MAXIMUM_PACKET_SIZE: {_K.CONNECT, _K.CONNACK},
    _P.WILDCARD_AVAILABLE: {_K.CONNACK},
    _P.SUBSCRIPTION_IDENTIFIER_AVAILABLE: {_K.CONNACK},
    _P.SHARED_AVAILABLE: {_K.CONNACK},
}
_TWO_BYTES = {_P.SERVER_KEEP_ALIVE, _P.RECEIVE_MAXIMUM, _P.TOPIC_ALIAS_MAXIMUM, _P.TOPIC_ALIAS}
_FOUR_BYTES = {_P.MESSAGE_EXPIRY, _P.SESSION_EXPIRY, _P.WILL_DELAY, _P.MAXIMUM_PACKET_SIZE}
_TEXTS = {
    _P.CONTENT_TYPE,
    _P.RESPONSE_TOPIC,
    _P.ASSIGNED_CLIENT_ID,
    _P.AUTHENTICATION_METHOD,
    _P.RESPONSE_INFORMATION,
    _P.SERVER_REFERENCE,
    _P.REASON_STRING,
}
_BINARIES = {_P.CORRELATION_DATA, _P.AUTHENTICATION_DATA}
_NEVER_ZERO = {_P.RECEIVE_MAXIMUM, _P.MAXIMUM_PACKET_SIZE, _P.TOPIC_ALIAS, _P.SUBSCRIPTION_IDENTIFIER}
_FLAGS = set(Property) - _TWO_BYTES - _FOUR_BYTES - _TEXTS - _BINARIES - {_P.USER_PROPERTY, _P.SUBSCRIPTION_IDENTIFIER}


def _reading() -> dict[Property, Callable[[Reader], Any]]:
    of_type: list[tuple[set[Property], Callable[[Reader], Any]]] = [
        (_TWO_BYTES, Reader.uint16),
        (_FOUR_BYTES, Reader.uint32),
        (_TEXTS, Reader.text),
        (_BINARIES, Reader.binary),
        (_FLAGS, _flag),
        ({_P.SUBSCRIPTION_IDENTIFIER}, Reader.varint),
        ({_P.USER_PROPERTY}, lambda reader: (reader.text(), reader.text())),
    ]
    return {name: read for names, read in of_type for name in names}


def _flag(reader: Reader) -> int:
    flag = reader.byte()
    if flag > 1:
        raise protocol_error(f"a property that is 0 or 1 is {flag}")
    return flag


_READ: Final = _reading()


def decode_properties(reader: Reader, kind: Kind) -> Properties:
    """Read the properties of a packet of this kind; raises `MqttError`."""
    size = reader.varint()
    if not size:
        return NONE
    inner = Reader(reader.take(size))
    properties: dict[Property, PropertyValue] = {}
    while inner.left:
        number = inner.varint()
        name = _name(number, kind)
        value = _READ[name](inner)
        if value == 0 and name in _NEVER_ZERO:
            raise protocol_error(f"the property {name.name} is 0")
        if name in (_P.USER_PROPERTY, _P.SUBSCRIPTION_IDENTIFIER):
            earlier = cast(tuple[Any, ...], properties.get(name, ()))
            properties[name] = (*earlier, value)
        elif name in properties:
            raise protocol_error(f"the property {name.name} is there twice")
        else:
            properties[name] = value
    return properties


def encode_properties(properties: Properties) -> bytes:
    """The properties behind their length."""
    if not properties:
        return b"\0"
    body = b"".join(_encoded(name, value) for name, value in properties.items())
    return varint(len(body)) + body


def _name(number: int, kind: Kind) -> Property:
    try:
        name = Property(number)
    except ValueError:
        raise malformed(f"there is no property {number:#04x}") from None
    if kind not in _ALLOWED[name]:
        raise protocol_error(f"the property {name.name} has no place in {kind.name}")
    return name


def _encoded(name: Property, value: PropertyValue) -> bytes:
    key = bytes((name,))
    if isinstance(value, str):
        return key + text(value)
    if isinstance(value, bytes):
        return key + binary(value)
    if isinstance(value, int):
        return key + _number(name, value)
    if name is _P.USER_PROPERTY:
        pairs = cast(tuple[tuple[str, str], ...], value)
        return b"".join(key + text(its) + text(whose) for its, whose in pairs)
    return b"".join(key + varint(identifier) for identifier in cast(tuple[int, ...], value))


def _number(name: Property, value: int) -> bytes:
    if name in _TWO_BYTES:
        return uint16(value)
    return value.to_bytes(4 if name in _FOUR_BYTES else 1, "big")
