"""The wire of one connection: frames read and written within their limits, sign-in, and heartbeats."""

import asyncio
import struct
import time
from typing import Final

from cloud_sync.emulator.amqp import AmqpError
from cloud_sync.emulator.faults import Faults
from cloud_sync.emulator.performatives import (
    FRAME_HEAD_BYTES,
    Close,
    Performative,
    error,
    frame,
    performative_bytes,
    sasl_mechanisms,
    sasl_welcome,
)

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

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: Faults) -> None:
        self._reader, self._writer, self._faults = reader, writer, faults
        self._heard_s = self._said_s = time.monotonic()
        self.client_idle_s = 0.0
        self.client_frame_bytes = FRAME_BYTES_LEAST

    async def greet(self) -> None:
        """Agree on the protocol; every way to sign in is welcome. Raises `AmqpError`."""
        header = await self._read(8)
        if header == _SASL_HEADER:
            self._write(header + sasl_mechanisms())
            await self.frame()
            self._write(sasl_welcome())
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
        await self._writer.drain()

    async def keep_alive(self) -> None:
        """Send empty frames as often as the client wants, and close when nothing comes from it."""
        while True:
            await asyncio.sleep(min(1.0, max(0.1, self.client_idle_s / 4)) if self.client_idle_s else 1.0)
            now_s = time.monotonic()
            if self.client_idle_s and now_s - self._said_s > self.client_idle_s / 2:
                self._write(frame(0, b""))
            if now_s - self._heard_s > IDLE_S and not self._faults.black_hole:
                self.send(0, Close(error("amqp:connection:forced", f"The connection was inactive for {IDLE_S:.0f} s.")))
                self._writer.close()
                return

    def close(self) -> None:
        """Say what was written, then close; a client that does not read cannot hold this up."""
        self._writer.close()

    def cut(self) -> None:
        """Break the connection off, as a cable would."""
        self._writer.transport.abort()

    async def _read(self, size: int) -> bytes:
        data = await self._reader.readexactly(size)
        while self._faults.black_hole and not self._writer.is_closing():  # noqa: ASYNC110 - a plain switch, for tests
            await asyncio.sleep(_BLACK_HOLE_LOOK_S)
        return data

    def _write(self, data: bytes) -> None:
        if self._faults.black_hole or self._writer.is_closing():
            return
        self._said_s = time.monotonic()
        self._writer.write(data)
