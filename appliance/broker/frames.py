"""Frames: cuts a stream of bytes into MQTT packets, and never keeps more than one packet may have."""

from typing import NamedTuple

from appliance.broker.wire import MqttError, Reason, malformed


class Frame(NamedTuple):
    """One packet as it came: the first byte, and what follows the length."""

    header: int
    body: bytes


class Frames:
    """Bytes go in as they arrive, whole packets come out."""

    def __init__(self, packet_bytes_max: int) -> None:
        self._packet_bytes_max = packet_bytes_max
        self._buffer = bytearray()
        self._at = 0

    def push(self, data: bytes) -> None:
        """Add received bytes."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def peek(self) -> int | None:
        """The first byte of the next packet, whole or not."""
        return self._buffer[self._at] if len(self._buffer) > self._at else None

    def pop(self) -> Frame | None:
        """The next whole packet, or None when more bytes are needed; raises `MqttError`."""
        buffer, at = self._buffer, self._at
        size = len(buffer)
        start = at + 2
        if size < start:
            return None
        length = buffer[at + 1]
        if length >= 0x80:
            length &= 0x7F
            for shift in (7, 14, 21, 28):
                if shift == 28:
                    raise malformed("the remaining length is longer than 4 bytes")
                if size <= start:
                    return None
                byte = buffer[start]
                start += 1
                length |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
        end = start + length
        if end - at > self._packet_bytes_max:
            text = f"a packet of {end - at} bytes; {self._packet_bytes_max} are accepted"
            raise MqttError(Reason.PACKET_TOO_LARGE, text)
        if size < end:
            return None
        self._at = end
        return Frame(buffer[at], bytes(buffer[start:end]))
