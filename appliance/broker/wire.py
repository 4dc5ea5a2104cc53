"""What MQTT packets are made of: reason codes, integers, texts, and a Reader that trusts no byte."""

from enum import IntEnum
from typing import Final

VARINT_MAX: Final = 268_435_455
TEXT_BYTES_MAX: Final = 65_535


class Version(IntEnum):
    """The protocol levels the broker speaks."""

    V311 = 4
    V5 = 5


class Reason(IntEnum):
    """MQTT 5 reason codes (section 2.4); 3.1.1 has return codes only in CONNACK and SUBACK."""

    SUCCESS = 0x00
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL = 0x04
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    PAYLOAD_FORMAT_INVALID = 0x99
    QOS_NOT_SUPPORTED = 0x9B
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E


class MqttError(Exception):
    """Something the peer must not do; carries the reason code with which the connection ends."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason, self.text = reason, text


def malformed(text: str) -> MqttError:
    """The error for bytes that are no packet at all."""
    return MqttError(Reason.MALFORMED_PACKET, text)


def protocol_error(text: str) -> MqttError:
    """The error for a well-formed packet that is not allowed."""
    return MqttError(Reason.PROTOCOL_ERROR, text)


class Reader:
    """Reads the fields of one packet in order; raises `MqttError` instead of reading beyond its end."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._end = data, 0, len(data)

    @property
    def left(self) -> int:
        return self._end - self._at

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > self._end:
            raise malformed(f"the packet ends {self._at - self._end} bytes too early")
        return self._data[start : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def uint16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise malformed("a variable byte integer is longer than 4 bytes")

    def binary(self) -> bytes:
        return self.take(self.uint16())

    def text(self) -> str:
        try:
            text = self.binary().decode("utf-8")
        except UnicodeDecodeError as error:
            raise malformed("a text is not UTF-8") from error
        if "\0" in text:
            raise malformed("a text holds the character U+0000")
        return text

    def packet_id(self) -> int:
        packet_id = self.uint16()
        if packet_id == 0:
            raise malformed("a packet identifier is 0")
        return packet_id

    def rest(self) -> bytes:
        return self.take(self.left)

    def finish(self) -> None:
        """The packet must end here."""
        if self.left:
            raise malformed(f"{self.left} bytes follow the end of the packet")


def varint(value: int) -> bytes:
    """A variable byte integer."""
    assert 0 <= value <= VARINT_MAX, value
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def uint16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def binary(value: bytes) -> bytes:
    """Bytes behind their length."""
    assert len(value) <= TEXT_BYTES_MAX, len(value)
    return uint16(len(value)) + value


def text(value: str) -> bytes:
    """UTF-8 behind its length."""
    return binary(value.encode("utf-8"))
