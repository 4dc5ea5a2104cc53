"""What the emulator stands: clients that talk nonsense, and its own violent end."""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubProducerClient
from azure.eventhub.exceptions import EventHubError

from appliance.bridge.leftovers import Leftovers
from cloud_sync.emulator.amqp import Described, Symbol, UInt, ULong, decode, described, encode
from cloud_sync.emulator.eventhubs import STORE_NAME, EventHubs
from cloud_sync.emulator.performatives import (
    Attach,
    Begin,
    Flow,
    Open,
    Performative,
    Transfer,
    frame,
    performative_bytes,
)

HEADER = b"AMQP\x00\x01\x00\x00"


def said(performative: Performative, payload: bytes = b"") -> bytes:
    return frame(0, performative_bytes(performative) + payload)


NONSENSE = {
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "a header cut short": HEADER[:5],
    "a frame larger than allowed": HEADER + b"\x7f\xff\xff\xff\x02\x00\x00\x00",
    "a frame smaller than its head": HEADER + b"\x00\x00\x00\x01\x02\x00\x00\x00",
    "a data offset beyond the frame": HEADER + b"\x00\x00\x00\x0c\xff\x00\x00\x00\x00\x53\x10\x45",
    "a frame of noise": HEADER + frame(0, bytes(range(256))),
    "no performative": HEADER + frame(0, encode([1, 2, 3])),
    "a link before its session": HEADER + said(Attach("a", UInt(0), False)),
    "a flow of text": HEADER + said(Begin(None, UInt(0), UInt(1), UInt(1))) + said(Flow(Symbol("x"), "many")),
    "an open of the wrong types": HEADER + said(Open({}, {}, "large", [], [])),
    "a handle that is text": HEADER + said(Begin(None, UInt(0), UInt(1), UInt(1))) + said(Attach("a", "handle", True)),
    "a handle beyond 32 bits": HEADER
    + said(Begin(None, UInt(0), UInt(1), UInt(1)))
    + said(Attach("a", ULong(2**40), False, target=Described(ULong(0x29), ["readings"]))),
    "a session begun twice": HEADER + said(Begin(None, UInt(0), UInt(1), UInt(1))) * 2,
    "random bytes": HEADER + random.Random(1).randbytes(5_000),
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_ends_its_own_connection_only(tmp_path: Path, name: str) -> None:
    """The client that sent it is cut off; another one goes on sending."""
    async with EventHubs.open(tmp_path / "hubs.db") as hubs, asyncio.timeout(20):
        port = await hubs.serve()
        steady_reader, steady_writer = await asyncio.open_connection("127.0.0.1", port)
        steady_writer.write(HEADER)
        assert await steady_reader.readexactly(8) == HEADER
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(NONSENSE[name])
        writer.write_eof()
        try:
            await reader.read(-1)
        except ConnectionResetError:
            pass  # Cut while it still sent: an end as good as any.
        writer.close()
        steady_writer.write(said(Open("steady")))
        assert await steady_reader.readexactly(8)
        steady_writer.close()


SERVER = """
import asyncio, sys
from pathlib import Path
from cloud_sync.emulator.command import emulate
asyncio.run(emulate(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def free_port() -> int:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def listens(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


async def test_damaged_conversations_end_their_own_connection_only(tmp_path: Path) -> None:
    """300 conversations, each with a few bytes changed at random, and the emulator goes on."""
    source = described(0x28, ["readings/ConsumerGroups/$Default/Partitions/0"] + [None] * 9)
    event = described(0x72, {Symbol("x-opt-partition-key"): "k"}) + described(0x75, b"body")
    sound = HEADER + b"".join(
        said(part, payload)
        for part, payload in [
            (Open("me", max_frame_size=UInt(4_096), idle_timeout_ms=UInt(60_000)), b""),
            (Begin(None, UInt(0), UInt(100), UInt(100)), b""),
            (Attach("out", UInt(0), False, None, None, None, Described(ULong(0x29), ["readings"])), b""),
            (Transfer(UInt(0), UInt(0), b"t", UInt(0), False, False), event),
            (Attach("in", UInt(1), True, None, None, decode(source)[0], None), b""),
            (Flow(UInt(0), UInt(100), UInt(1), UInt(100), UInt(1), UInt(0), UInt(10)), b""),
        ]
    )
    rng = random.Random(2)
    async with EventHubs.open(tmp_path / "hubs.db") as hubs, asyncio.timeout(60):
        port = await hubs.serve()
        for _ in range(300):
            damaged = bytearray(sound)
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(8, len(damaged))] = rng.randrange(256)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(damaged)
            writer.write_eof()
            try:
                await reader.read(-1)
            except ConnectionResetError:
                pass  # Cut while it still sent: an end as good as any.
            writer.close()
        before = hubs.extent("readings", 0).next + hubs.extent("readings", 1).next
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sound)
        while hubs.extent("readings", 0).next + hubs.extent("readings", 1).next == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        writer.close()
    assert before > 10


async def test_what_was_accepted_survives_kill_9(tmp_path: Path) -> None:
    """Killed in the midst of sends: each event whose send returned is there, and numbers go on without a gap."""
    port, accepted = await free_port(), 0
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, str(tmp_path), str(port))
    string = f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=k;SharedAccessKey=a2V5;UseDevelopmentEmulator=true"
    client = EventHubProducerClient.from_connection_string(string, eventhub_name="readings", retry_total=0)
    left = Leftovers(client)
    try:
        async with client, asyncio.timeout(30):
            await listens(port)
            await client.send_event(EventData(b"0"), partition_id="0")
            accepted += 1
            loop = asyncio.get_running_loop()
            loop.call_later(0.3, os.kill, server.pid, signal.SIGKILL)
            try:
                async with asyncio.timeout(1.2):
                    while True:
                        await client.send_event(EventData(b"%d" % accepted), partition_id="0")
                        accepted += 1
            except (TimeoutError, EventHubError):
                pass
    finally:
        await server.wait()
        left.cut()
    async with EventHubs.open(tmp_path / STORE_NAME) as hubs:
        events = hubs.events("readings", 0, limit=100_000)
        assert [event.sequence for event in events] == list(range(len(events)))
        assert accepted > 1
        assert len(events) in (accepted, accepted + 1)
        assert hubs.extent("readings", 0).next == len(events)
