"""EventHubs: a local server that speaks the AMQP 1.0 of Azure Event Hubs, with its events in one file.

The unmodified azure-eventhub client talks to it, over TCP, TLS or WebSocket. It is for demonstrations, tests and
plants without a cloud, on loopback. An event is on disk before its sender learns that it was accepted.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cloud_sync.emulator.connection import Connection
from cloud_sync.emulator.deliveries import Namespace
from cloud_sync.emulator.faults import Faults
from cloud_sync.emulator.store import Event, Extent, Store
from cloud_sync.emulator.streams import SocketStream, Stream
from cloud_sync.emulator.throughput import Throughput
from cloud_sync.emulator.tokens import Tokens, Trust
from cloud_sync.emulator.wire import Wire

if TYPE_CHECKING:
    from aiohttp.web import AppRunner

log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
PARTITIONS: Final = 2
CONNECTIONS_MAX: Final = 200
HUBS: Final = ("readings", "receipts")
STORE_NAME: Final = "eventhubs.db"


class EventHubs:
    """The hubs, and the server in front of them. Open with `EventHubs.open`, then `serve`."""

    def __init__(self, shared: Namespace, trust: Trust, tasks: asyncio.TaskGroup) -> None:
        self._shared, self._store, self._trust, self._tasks = shared, shared.store, trust, tasks
        self._server: asyncio.Server | None = None
        self._sites: list[AppRunner] = []
        self._wires: set[Wire] = set()
        self._is_tls = False
        self.faults = shared.faults
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        hubs: Sequence[str] = HUBS,
        partitions: int = PARTITIONS,
        faults: Faults | None = None,
        trust: Trust = Trust(),  # noqa: B008 - frozen
        throughput_units: int = 0,
    ) -> AsyncIterator[Self]:
        """Open the file of the hubs, creating both where absent; raises `sqlite3.Error` when it cannot be used.

        With 0 throughput units nothing is throttled.
        """
        async with Store.open(path, hubs, partitions) as store, asyncio.TaskGroup() as tasks:
            server = cls(Namespace(store, faults or Faults(), Throughput(throughput_units)), trust, tasks)
            try:
                yield server
            finally:
                await server.stop()

    async def serve(self, host: str = HOST, port: int = 0, tls: ssl.SSLContext | None = None) -> int:
        """Take connections from now on; gives the port. Raises `OSError` when it is taken."""
        self._server = await asyncio.start_server(self._connected, host, port, ssl=tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._is_tls = tls is not None
        return self.port

    async def serve_websocket(self, host: str = HOST, port: int = 0, tls: ssl.SSLContext | None = None) -> int:
        """Take WebSockets too; gives the port. Raises `OSError` when it is taken."""
        from cloud_sync.emulator.websocket import open_door, port_of

        self._sites.append(await open_door(self._converse, host, port, tls))
        return port_of(self._sites[-1])

    async def serve_switchboard(self, host: str = HOST, port: int = 0) -> int:
        """Let faults be switched over HTTP; gives the port. Raises `OSError` when it is taken."""
        from cloud_sync.emulator.switchboard import open_switchboard
        from cloud_sync.emulator.websocket import port_of

        self._sites.append(await open_switchboard(self.faults, self.cut, host, port))
        return port_of(self._sites[-1])

    async def stop(self) -> None:
        """Take no more connections, and cut those that stand. `serve` may follow."""
        if self._server is not None:
            self._server.close()
        self.cut()
        while self._sites:
            await self._sites.pop().cleanup()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def cut(self) -> int:
        """Cut every connection that stands, as a cable would; gives how many."""
        wires = list(self._wires)
        for wire in wires:
            wire.cut()
        return len(wires)

    def connection_string(self, hub: str) -> str:
        """What a client needs to reach a hub of this server."""
        key = f"SharedAccessKeyName=emulator;SharedAccessKey={self._trust.access_key or 'bG9jYWw='}"
        # Only without TLS does the client take the port from here; with it, from `custom_endpoint_address`.
        return f"Endpoint=sb://{HOST}:{self.port};{key};EntityPath={hub}" + (
            "" if self._is_tls else ";UseDevelopmentEmulator=true"
        )

    def extent(self, hub: str, partition: int) -> Extent:
        return self._store.extent(hub, partition)

    def events(self, hub: str, partition: int, sequence: int = 0, limit: int = 1_000) -> list[Event]:
        """The stored events of a partition from a number on, as encoded messages."""
        return self._store.read(hub, partition, sequence, limit)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.create_task(self._converse(SocketStream(reader, writer)), name="emulator connection")

    async def _converse(self, stream: Stream) -> None:
        wire = Wire(stream, self.faults)
        if len(self._wires) >= CONNECTIONS_MAX:
            log.warning("emulator: a connection was refused, %d stand", CONNECTIONS_MAX)
            wire.cut()
            return
        self._wires.add(wire)
        try:
            await Connection(wire, self._shared, Tokens(self._trust)).run()
        finally:
            self._wires.discard(wire)
