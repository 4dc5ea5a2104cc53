"""A running broker, a log that can be held up, and a peer that speaks MQTT packet by packet."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import hypothesis
import pytest

from appliance.broker.codec import decode, encode
from appliance.broker.embedded import EmbeddedBroker
from appliance.broker.frames import Frames
from appliance.broker.limits import Limits
from appliance.broker.packets import Answers, Connack, Connect, Filter, Packet, Publish, Subscribe
from appliance.broker.properties import Kind, Properties
from appliance.broker.wire import Version
from appliance.contract.reading import Reading

DEADLINE_S = 10.0

# A busy machine is slow now and then; that says nothing about the code.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")


@dataclass(frozen=True)
class Listener:
    bind: str = "127.0.0.1:0"
    anonymous: bool = True


@dataclass(frozen=True)
class Settings:
    listener: tuple[Listener, ...] = (Listener(),)


@dataclass
class HeldLog:
    """A log whose commits can be held up, or fail."""

    entries: list[Reading] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    appends: int = 0
    error: Exception | None = None

    async def append(self, entries: Sequence[Reading]) -> int:
        self.appends += 1
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.entries.extend(entries)
        return len(self.entries)


class Peer:
    """One raw MQTT connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: Version) -> None:
        self.reader, self.writer, self.version = reader, writer, version
        self.frames = Frames(1 << 28)

    @classmethod
    async def open(cls, port: int, version: Version = Version.V5) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port), version)

    async def connect(self, client_id: str = "", **more: Any) -> Connack:
        self.send(Connect(self.version, client_id, **more))
        answer = await self.receive()
        assert isinstance(answer, Connack)
        return answer

    def send(self, *packets: Packet) -> None:
        self.writer.write(b"".join(encode(packet, self.version) for packet in packets))

    async def receive(self) -> Packet | None:
        """The next packet, or None when the broker has closed the connection."""
        async with asyncio.timeout(DEADLINE_S):
            while (frame := self.frames.pop()) is None:
                data = b""
                with suppress(ConnectionResetError):
                    data = await self.reader.read(1 << 16)
                if not data:
                    return None
                self.frames.push(data)
        return decode(frame, self.version)

    async def subscribe(self, topic: str, qos: int = 1, properties: Properties | None = None, **more: Any) -> int:
        self.send(Subscribe(1, (Filter(topic, qos, **more),), properties or {}))
        answer = await self.receive()
        assert isinstance(answer, Answers) and answer.kind is Kind.SUBACK
        return answer.reasons[0]

    async def message(self) -> Publish:
        packet = await self.receive()
        assert isinstance(packet, Publish), packet
        return packet

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class Served:
    """A broker that runs, and the log behind it."""

    broker: EmbeddedBroker
    log: HeldLog
    port: int
    task: "asyncio.Task[None]"
    peers: list[Peer] = field(default_factory=list)

    async def peer(self, client_id: str = "", version: Version = Version.V5, **more: Any) -> Peer:
        """A peer that is connected."""
        peer = await self.raw(version)
        assert (await peer.connect(client_id, **more)).reason == 0
        return peer

    async def raw(self, version: Version = Version.V5) -> Peer:
        self.peers.append(await Peer.open(self.port, version))
        return self.peers[-1]


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Any]:
    """Waits until a condition holds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def serve(eventually: Any) -> Serve:
    """Runs a broker for the length of a block."""

    @asynccontextmanager
    async def serving(
        enforce: str = "refuse", held: bool = False, settings: Settings | None = None, **limits: Any
    ) -> AsyncIterator[Served]:
        log = HeldLog()
        if not held:
            log.open.set()
        broker = EmbeddedBroker(settings or Settings(), log, "acme", enforce, limits=Limits(**limits))
        task = asyncio.create_task(broker.run())
        await eventually(lambda: bool(broker.addresses) or task.done())
        if task.done():
            await task
        served = Served(broker, log, broker.addresses[0][1], task)
        try:
            yield served
        finally:
            for peer in served.peers:
                await peer.close()
            task.cancel()
            with suppress(asyncio.CancelledError, RuntimeError):
                await task

    return serving
