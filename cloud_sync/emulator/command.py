"""The emulator as a program: its doors, opened as the command line asks."""

import asyncio
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloud_sync.emulator.eventhubs import HOST, HUBS, PARTITIONS, STORE_NAME, EventHubs
from cloud_sync.emulator.tokens import Trust

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Doors:
    """How clients come in, beside AMQP on the main port; a door without a port stays shut."""

    websocket_port: int | None = None
    faults_port: int | None = None
    cert: Path | None = None
    key: Path | None = None

    def tls(self) -> ssl.SSLContext | None:
        """What AMQP and WebSocket are encrypted with; raises `OSError` or `ValueError` for files of no use."""
        if self.cert is None and self.key is None:
            return None
        if self.cert is None or self.key is None:
            raise ValueError("--cert and --key go together; name both")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.cert, self.key)
        except ssl.SSLError as error:
            raise ValueError(f"{self.cert} and {self.key} are no certificate and its key: {error.reason}") from error
        return context


async def emulate(
    data: Path,
    port: int,
    hubs: Sequence[str] = HUBS,
    partitions: int = PARTITIONS,
    doors: Doors = Doors(),
    trust: Trust = Trust(),  # noqa: B008 - frozen
    throughput_units: int = 0,
) -> None:
    """Serve hubs from the folder `data` on loopback until cancelled.

    Raises `OSError` when a port is taken or a file is missing, `ValueError` for TLS files of no use.
    """
    tls = doors.tls()
    await asyncio.to_thread(data.mkdir, parents=True, exist_ok=True)
    opened = EventHubs.open(data / STORE_NAME, hubs, partitions, trust=trust, throughput_units=throughput_units)
    async with opened as server:
        try:
            await server.serve(HOST, port, tls)
            log.info("emulator: hubs %s on %s:%d, kept in %s", ", ".join(hubs), HOST, server.port, data)
            if doors.websocket_port is not None:
                at = await server.serve_websocket(HOST, doors.websocket_port, tls)
                log.info("emulator: WebSocket on %s:%d", HOST, at)
            if doors.faults_port is not None:
                at = await server.serve_switchboard(HOST, doors.faults_port)
                log.info("emulator: faults at http://%s:%d/faults", HOST, at)
        except OSError as error:
            refused = error  # Raised below: from within it would come wrapped in an ExceptionGroup.
        else:
            await asyncio.Event().wait()
    raise refused
