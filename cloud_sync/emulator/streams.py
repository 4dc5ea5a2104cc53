"""Streams: the bytes of one connection, over TCP or through a WebSocket."""

import asyncio
from typing import Any, Final, Protocol

WAITING_BYTES_MAX: Final = 64 * 1024
"""What may wait to leave before `drain` waits too."""


class Stream(Protocol):
    """Bytes to and from one client."""

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes; raises `asyncio.IncompleteReadError` or `OSError` when the client is gone."""
        ...

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        """Return once the client has taken most of what was written; raises `OSError` when it is gone."""
        ...

    def is_closing(self) -> bool: ...

    def close(self) -> None:
        """Say what was written, then close."""
        ...

    def cut(self) -> None:
        """Break off, as a cable would."""
        ...


class SocketStream:
    """A TCP connection, with or without TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.write, self.drain = writer.write, writer.drain
        self.is_closing, self.close = writer.is_closing, writer.close

    async def read(self, size: int) -> bytes:
        return await self._reader.readexactly(size)

    def cut(self) -> None:
        self._writer.transport.abort()


class WebSocketStream:
    """A WebSocket whose binary messages are read as one run of bytes. `carry` must run as long as it is used."""

    def __init__(self, socket: Any, transport: asyncio.Transport) -> None:
        self._socket, self._transport = socket, transport
        self._arrived, self._leaving = bytearray(), bytearray()
        self._written, self._sent = asyncio.Event(), asyncio.Event()
        self._is_closing = False

    async def read(self, size: int) -> bytes:
        while len(self._arrived) < size:
            message = await self._socket.receive()
            if not isinstance(message.data, bytes):  # Closed, broken, or text, which AMQP never is.
                raise asyncio.IncompleteReadError(bytes(self._arrived), size)
            self._arrived += message.data
        data = bytes(self._arrived[:size])
        del self._arrived[:size]
        return data

    def write(self, data: bytes) -> None:
        self._leaving += data
        self._written.set()

    async def drain(self) -> None:
        while len(self._leaving) > WAITING_BYTES_MAX:
            if self.is_closing():
                raise ConnectionResetError("the WebSocket is closed")
            self._sent.clear()
            await self._sent.wait()

    def is_closing(self) -> bool:
        return self._is_closing or self._transport.is_closing()

    def close(self) -> None:
        self._is_closing = True
        self._written.set()

    def cut(self) -> None:
        self._is_closing = True
        self._transport.abort()
        self._written.set()

    async def carry(self) -> None:
        """Send what is written, until it is closed or the client is gone."""
        try:
            while self._leaving or not self._is_closing:
                await self._written.wait()
                self._written.clear()
                leaving, self._leaving = bytes(self._leaving), bytearray()
                if leaving:
                    await self._socket.send_bytes(leaving)
                self._sent.set()
            await self._socket.close()
        except OSError:
            self.cut()
        finally:
            self._sent.set()
