"""The wire of one connection: frames read and written within their limits, sign-in, and heartbeats."""

import asyncio
import struct
import time
from typing import Any, Final

from cloud_sync.emulator.amqp import AmqpError, Described, decode
from cloud_sync.emulator.faults import Faults
from cloud_sync.emulator.performatives import (
    FRAME_HEAD_BYTES,
    Close,
    Performative,
    error,
    frame,
    performative_bytes,
    sasl_mechanisms,
    sasl_outcome,
)
from cloud_sync.emulator.streams import Stream
from cloud_sync.emulator.tokens import Tokens, password_of

FRAME_BYTES_MAX: Final = 65_536
FRAME_BYTES_LEAST: Final = 512
"""The largest frame a client must take, by the standard."""
IDLE_S: Final = 240.0
"""After this long without a frame from the client its connection is closed."""
_SASL_HEADER: Final = b"AMQP\x03\x01\x00\x00"
_AMQP_HEADER: Final = b"AMQP\x00\x01\x00\x00"
_BLACK_HOLE_LOOK_S: Final = 0.02


class Wire:
    """Frames to and from one client."""

    def __init__(self, stream: Stream, faults: Faults) -> None:
        self._stream, self._faults = stream, faults
        self._unpaid_bytes = 0
        self._heard_s = self._said_s = time.monotonic()
        self.client_idle_s = 0.0
        self.client_frame_bytes = FRAME_BYTES_LEAST

    async def greet(self, tokens: Tokens) -> None:
        """Agree on the protocol and sign in, by password or else by tokens later; raises `AmqpError`."""
        header = await self._read(8)
        if header == _SASL_HEADER:
            self._write(header + sasl_mechanisms())
            is_welcome = _signs_in((await self.frame())[1], tokens)
            self._write(sasl_outcome(is_welcome))
            if not is_welcome:
                raise AmqpError("the password does not open this namespace")
            header = await self._read(8)
        if header != _AMQP_HEADER:
            self._write(_AMQP_HEADER)
            raise AmqpError("this is not AMQP 1.0")
        self._write(header)

    async def frame(self) -> tuple[int, bytes]:
        """The next frame that is not empty, as channel and body; raises `AmqpError` when it is malformed."""
        while True:
            size, words, _, channel = struct.unpack(">IBBH", await self._read(FRAME_HEAD_BYTES))
            if not FRAME_HEAD_BYTES <= words * 4 <= size <= FRAME_BYTES_MAX:
                raise AmqpError(f"a frame of {size} bytes")
            body = await self._read(size - FRAME_HEAD_BYTES)
            self._heard_s = time.monotonic()
            if words * 4 < size:
                return channel, body[words * 4 - FRAME_HEAD_BYTES :]

    def send(self, channel: int, performative: Performative, payload: bytes = b"") -> None:
        self._write(frame(channel, performative_bytes(performative) + payload))

    async def drained(self) -> None:
        """Return once the client has taken most of what was sent."""
        await self._stream.drain()
        unpaid_bytes, self._unpaid_bytes = self._unpaid_bytes, 0
        await self._paced(unpaid_bytes)

    async def keep_alive(self) -> None:
        """Send empty frames as often as the client wants, and close when nothing comes from it."""
        while True:
            await asyncio.sleep(min(1.0, max(0.1, self.client_idle_s / 4)) if self.client_idle_s else 1.0)
            now_s = time.monotonic()
            if self.client_idle_s and now_s - self._said_s > self.client_idle_s / 2:
                self._write(frame(0, b""))
            if now_s - self._heard_s > IDLE_S and not self._faults.black_hole:
                self.send(0, Close(error("amqp:connection:forced", f"The connection was inactive for {IDLE_S:.0f} s.")))
                self._stream.close()
                return

    def close(self) -> None:
        """Say what was written, then close; a client that does not read cannot hold this up."""
        self._stream.close()

    def cut(self) -> None:
        """Break the connection off, as a cable would."""
        self._stream.cut()

    async def _read(self, size: int) -> bytes:
        data = await self._stream.read(size)
        await self._paced(size)
        while self._faults.black_hole and not self._stream.is_closing():  # noqa: ASYNC110 - a plain switch, for tests
            await asyncio.sleep(_BLACK_HOLE_LOOK_S)
        return data

    def _write(self, data: bytes) -> None:
        if self._faults.black_hole or self._stream.is_closing():
            return
        self._said_s = time.monotonic()
        self._unpaid_bytes += len(data)
        self._stream.write(data)

    async def _paced(self, size: int) -> None:
        """Take the time that so many bytes need over a narrow line."""
        if self._faults.bandwidth_bytes_s and size:
            await asyncio.sleep(size / self._faults.bandwidth_bytes_s)


def _signs_in(body: bytes, tokens: Tokens) -> bool:
    """Whether the client may go on: only a wrong password ends it here, whoever has none must show tokens."""
    said: Any = decode(body)[0]
    fields = said.value if isinstance(said, Described) and isinstance(said.value, list) else []
    if fields[:1] != ["PLAIN"]:
        return True
    return tokens.sign_in(password_of(fields[1] if len(fields) > 1 else None))
