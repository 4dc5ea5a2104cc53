"""EventHubs: a local server that speaks the AMQP 1.0 of Azure Event Hubs, with its events in one file.

The unmodified azure-eventhub client talks to it, given a connection string with
`UseDevelopmentEmulator=true`. It is for demonstrations, tests and plants without a cloud: plain TCP on
loopback, every token is taken. An event is on disk before its sender learns that it was accepted.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

from cloud_sync.emulator.connection import Connection
from cloud_sync.emulator.deliveries import Deliveries
from cloud_sync.emulator.faults import Faults
from cloud_sync.emulator.links import Receivers
from cloud_sync.emulator.store import Event, Extent, Store
from cloud_sync.emulator.wire import Wire

log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
PARTITIONS: Final = 2
CONNECTIONS_MAX: Final = 200
STORE_NAME: Final = "eventhubs.db"


class EventHubs:
    """The hubs, and the server in front of them. Open with `EventHubs.open`, then `serve`."""

    def __init__(self, store: Store, faults: Faults, tasks: asyncio.TaskGroup) -> None:
        self._store, self._tasks = store, tasks
        self._receivers, self._turns = Receivers(), itertools.count()
        self._server: asyncio.Server | None = None
        self._wires: set[Wire] = set()
        self.faults = faults
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        hubs: Sequence[str] = ("readings",),
        partitions: int = PARTITIONS,
        faults: Faults | None = None,
    ) -> AsyncIterator[Self]:
        """Open the file of the hubs, creating both where absent; raises `sqlite3.Error` when it cannot be used."""
        async with Store.open(path, hubs, partitions) as store, asyncio.TaskGroup() as tasks:
            server = cls(store, faults or Faults(), tasks)
            try:
                yield server
            finally:
                await server.stop()

    async def serve(self, host: str = HOST, port: int = 0) -> int:
        """Take connections from now on; gives the port. Raises `OSError` when it is taken."""
        self._server = await asyncio.start_server(self._connected, host, port)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def stop(self) -> None:
        """Take no more connections, and cut those that stand. `serve` may follow."""
        if self._server is not None:
            self._server.close()
        self.cut()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def cut(self) -> None:
        """Cut every connection that stands, as a cable would."""
        for wire in list(self._wires):
            wire.cut()

    def connection_string(self, hub: str) -> str:
        """What a client needs to reach a hub of this server."""
        key = "SharedAccessKeyName=emulator;SharedAccessKey=bG9jYWw=;UseDevelopmentEmulator=true"
        return f"Endpoint=sb://{HOST}:{self.port};{key};EntityPath={hub}"

    def extent(self, hub: str, partition: int) -> Extent:
        return self._store.extent(hub, partition)

    def events(self, hub: str, partition: int, sequence: int = 0, limit: int = 1_000) -> list[Event]:
        """The stored events of a partition from a number on, as encoded messages."""
        return self._store.read(hub, partition, sequence, limit)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer, self.faults)
        if len(self._wires) >= CONNECTIONS_MAX:
            log.warning("emulator: a connection was refused, %d stand", CONNECTIONS_MAX)
            wire.cut()
            return
        self._wires.add(wire)
        self._tasks.create_task(self._converse(wire), name="emulator connection")

    async def _converse(self, wire: Wire) -> None:
        deliveries = Deliveries(wire, self._store, self.faults, self._turns)
        try:
            await Connection(wire, self._store, self._receivers, deliveries).run()
        finally:
            self._wires.discard(wire)


async def emulate(data: Path, port: int, hubs: Sequence[str] = ("readings",), partitions: int = PARTITIONS) -> None:
    """Serve hubs from the folder `data` on loopback until cancelled; raises `OSError` when the port is taken."""
    await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)
    async with EventHubs.open(data / STORE_NAME, hubs, partitions) as server:
        try:
            await server.serve(HOST, port)
        except OSError as error:
            refused = error  # Raised below: from within it would come wrapped in an ExceptionGroup.
        else:
            log.info("emulator: hubs %s on %s:%d, kept in %s", ", ".join(hubs), HOST, server.port, data)
            await asyncio.Event().wait()
    raise refused
