"""The emulator before clients that are neither ours nor Microsoft's: Apache Qpid Proton and rhea."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubProducerClient

from cloud_sync.emulator.eventhubs import EventHubs
from cloud_sync.emulator.tokens import Trust

KEY = "c2VjcmV0"
PEER = Path(__file__).parents[1] / "peers" / "rhea"
PLACE = "readings/ConsumerGroups/$Default/Partitions/0"
ALL = "amqp.annotation.x-opt-offset > '-1'"


@pytest.fixture
async def hubs(tmp_path: Path) -> AsyncIterator[EventHubs]:
    async with EventHubs.open(tmp_path / "hubs.db", trust=Trust(access_key=KEY)) as server, asyncio.timeout(60):
        await server.serve()
        yield server


async def sent_as_one_batch(hubs: EventHubs, count: int, size_bytes: int = 1) -> None:
    """Events 0 to `count` - 1 of partition 0, in one batch of the SDK."""
    client = EventHubProducerClient.from_connection_string(hubs.connection_string("readings"), retry_total=0)
    async with client:
        events = [EventData(b"%d" % number + b"." * size_bytes) for number in range(count)]
        await client.send_batch(events, partition_id="0")


class Proton:
    """Apache Qpid Proton, the reference implementation of AMQP 1.0."""

    def __init__(self, hubs: EventHubs, password: str = KEY) -> None:
        self.utils = pytest.importorskip("proton.utils", reason="python-qpid-proton is not installed")
        self.proton = pytest.importorskip("proton")
        self.reactor = pytest.importorskip("proton.reactor")
        self.port, self.password = hubs.port, password

    def connection(self) -> Any:
        url = f"amqp://127.0.0.1:{self.port}"
        options = {"allowed_mechs": "PLAIN", "allow_insecure_mechs": True, "user": "emulator"}
        return self.utils.BlockingConnection(url, timeout=10, password=self.password, **options)

    def send(self, address: str, bodies: list[bytes]) -> Any:
        connection = self.connection()
        try:
            sender = connection.create_sender(address)
            for body in bodies:
                sender.send(self.proton.Message(body=body, properties={"n": len(bodies)}, inferred=True))
            return {"accepted": len(bodies)}
        except self.utils.LinkDetached as error:
            return {"error": error.condition}
        finally:
            connection.close()

    def receive(self, address: str, selector: str, count: int) -> Any:
        connection = self.connection()
        try:
            receiver = connection.create_receiver(address, credit=10, options=self.reactor.Selector(selector))
            seen = []
            for _ in range(count):
                message = receiver.receive(timeout=10)
                receiver.accept()
                marks = message.annotations
                seen.append([bytes(message.body).decode(), marks["x-opt-sequence-number"], marks["x-opt-offset"]])
            return seen
        except self.utils.LinkDetached as error:
            return {"error": error.condition}
        finally:
            connection.close()


class Peer:
    """One of the clients, by the same two verbs; a refusal is `{"error": condition}`."""

    def __init__(self, name: str, hubs: EventHubs) -> None:
        self._hubs = hubs
        self._proton = Proton(hubs) if name == "proton" else None
        if name == "rhea":
            if shutil.which("node") is None:
                pytest.skip("node is not installed")
            if not (PEER / "node_modules" / "rhea").is_dir():
                pytest.skip("rhea is not installed; `make test-deps` does it")

    async def send(self, address: str, *bodies: str) -> Any:
        if self._proton is not None:
            proton = self._proton
            return await asyncio.to_thread(proton.send, address, [body.encode() for body in bodies])
        return await self._node("send", address, *bodies)

    async def receive(self, address: str, selector: str, count: int) -> Any:
        if self._proton is not None:
            proton = self._proton
            return await asyncio.to_thread(proton.receive, address, selector, count)
        return await self._node("receive", address, selector, str(count))

    async def drain(self, address: str, credit: int) -> Any:
        return await self._node("drain", address, str(credit))

    async def _node(self, what: str, *arguments: str) -> Any:
        script = str(PEER / "peer.js")
        process = await asyncio.create_subprocess_exec(
            "node", script, what, str(self._hubs.port), KEY, *arguments, stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(20):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return json.loads(said)


@pytest.fixture(params=["proton", "rhea"])
def peer(request: pytest.FixtureRequest, hubs: EventHubs) -> Peer:
    return Peer(request.param, hubs)


async def test_what_a_peer_sends_it_receives(hubs: EventHubs, peer: Peer) -> None:
    """To a partition, with its password instead of tokens: accepted, stored, and back with number and offset."""
    assert await peer.send("readings/Partitions/0", "a", "b", "c") == {"accepted": 3}
    assert hubs.extent("readings", 0).next == 3
    offsets = [event.offset for event in hubs.events("readings", 0)]
    assert await peer.receive(PLACE, ALL, 3) == [[body, n, offsets[n]] for n, body in enumerate("abc")]


async def test_a_peer_opens_the_sdks_batch_and_its_selectors_are_obeyed(hubs: EventHubs, peer: Peer) -> None:
    """A batch is single events to everybody; more than one credit of them; from a number, from an offset."""
    await sent_as_one_batch(hubs, 50)
    seen = await peer.receive(PLACE, ALL, 50)
    assert [body for body, _, _ in seen] == [f"{number}." for number in range(50)]
    after = await peer.receive(PLACE, "amqp.annotation.x-opt-sequence-number > '40'", 2)
    assert [number for _, number, _ in after] == [41, 42]
    from_offset = await peer.receive(PLACE, f"amqp.annotation.x-opt-offset >= '{seen[7][2]}'", 1)
    assert from_offset == [seen[7]]


async def test_a_large_event_crosses_to_a_peer_in_many_frames(hubs: EventHubs, peer: Peer) -> None:
    await sent_as_one_batch(hubs, 1, size_bytes=400_000)
    ((body, number, _),) = await peer.receive(PLACE, ALL, 1)
    assert (len(body), number) == (400_001, 0)


async def test_a_peer_is_told_that_a_hub_does_not_exist(peer: Peer) -> None:
    assert await peer.send("nowhere", "x") == {"error": "amqp:not-found"}
    assert await peer.receive(PLACE, "colour = 'red'", 1) == {"error": "amqp:invalid-field"}


@pytest.mark.parametrize(("credit", "bodies"), [(100, 30), (30, 30), (10, 10)])
async def test_credit_that_is_drained_comes_back(hubs: EventHubs, credit: int, bodies: int) -> None:
    """A receiver that asks for what there is now gets it, more, as much or less than its credit, and then an end."""
    peer = Peer("rhea", hubs)
    assert await peer.drain(PLACE, 5) == []
    await sent_as_one_batch(hubs, 30)
    assert await peer.drain(PLACE, credit) == [f"{number}." for number in range(bodies)]
