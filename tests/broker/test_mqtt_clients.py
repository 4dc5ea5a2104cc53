"""The broker with the clients that plants use: gmqtt and mosquitto, in 3.1.1 and 5."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from gmqtt import Client
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

FLOW = "acme/northfield/utilities/boiler-house/feed/pmp-204/flow"
DEADLINE_S = 20.0
versions = pytest.mark.parametrize("version", [MQTTv311, MQTTv50], ids=["3.1.1", "5"])
needs_mosquitto = pytest.mark.skipif(
    not (shutil.which("mosquitto_sub") and shutil.which("mosquitto_pub")),
    reason="mosquitto_pub and mosquitto_sub are not installed; apt-get install mosquitto-clients",
)


@asynccontextmanager
async def connected(port: int, version: int, client_id: str = "gmqtt") -> AsyncIterator[Client]:
    client = Client(client_id, optimistic_acknowledgement=False)
    await client.connect("127.0.0.1", port, version=version)
    try:
        yield client
    finally:
        await client.disconnect()


async def mosquitto(command: str, port: int, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        command, "-p", str(port), *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(DEADLINE_S):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@versions
async def test_gmqtt_publishes_and_subscribes(serve: Any, eventually: Any, version: int) -> None:
    """A thousand values out and back at QoS 1, each once, in order, each recorded before it is delivered."""
    async with serve() as served, connected(served.port, version) as client:
        received: list[tuple[str, bytes, int]] = []
        subscribed = asyncio.Event()

        async def on_message(_client: Client, topic: str, payload: bytes, qos: int, _properties: Any) -> int:
            received.append((topic, payload, qos))
            return 0

        client.on_message = on_message
        client.on_subscribe = lambda *_: subscribed.set()
        client.subscribe("acme/#", qos=1)
        await asyncio.wait_for(subscribed.wait(), DEADLINE_S)
        for number in range(1000):
            client.publish(FLOW, number, qos=1)
        await eventually(lambda: len(received) == 1000)
        await asyncio.wait_for(client._persistent_storage.wait_empty(), DEADLINE_S)
        assert received == [(FLOW, b"%d" % number, 1) for number in range(1000)]
        assert [entry.value for entry in served.log.entries] == list(range(1000))
        assert {entry.origin for entry in served.log.entries} == {"mqtt:gmqtt"}


async def test_gmqtt_sees_v5_properties(serve: Any, eventually: Any) -> None:
    """User properties and content type reach the subscriber unchanged."""
    async with serve() as served, connected(served.port, MQTTv50) as client:
        received: list[dict[str, Any]] = []
        subscribed = asyncio.Event()

        async def on_message(_client: Client, _topic: str, _payload: bytes, _qos: int, properties: Any) -> int:
            received.append(properties)
            return 0

        client.on_message = on_message
        client.on_subscribe = lambda *_: subscribed.set()
        client.subscribe(FLOW, qos=0)
        await asyncio.wait_for(subscribed.wait(), DEADLINE_S)
        client.publish(FLOW, "12.5", qos=1, user_property=[("unit", "m3/h")], content_type="text/plain")
        await eventually(lambda: bool(received))
        assert received[0]["user_property"] == [("unit", "m3/h")]
        assert received[0]["content_type"] == ["text/plain"]


@needs_mosquitto
@pytest.mark.parametrize("version", ["311", "5"])
async def test_mosquitto_sees_all_of_the_namespace(serve: Any, eventually: Any, version: str) -> None:
    """`mosquitto_sub -t '#'` shows what `mosquitto_pub` sends, and what was retained before."""
    async with serve() as served:
        assert await mosquitto("mosquitto_pub", served.port, "-t", FLOW, "-m", "1", "-q", "1", "-r") == (0, "")
        wanted = ["-V", version, "-q", "1", "-C", "3", "-F", "%t %p %q %r", "-t", "#"]
        listening = asyncio.create_task(mosquitto("mosquitto_sub", served.port, *wanted))
        await eventually(lambda: served.broker.statistics().subscriptions == 1)
        for number, qos in (("2", "0"), ("3", "1")):
            words = ["-V", version, "-t", FLOW, "-m", number, "-q", qos]
            assert await mosquitto("mosquitto_pub", served.port, *words) == (0, "")
        assert await listening == (0, f"{FLOW} 1 1 1\n{FLOW} 2 0 0\n{FLOW} 3 1 0\n")


@needs_mosquitto
async def test_mosquitto_prints_why_a_topic_is_refused(serve: Any) -> None:
    """A person with mosquitto_pub reads the level that offends."""
    async with serve() as served:
        _, said = await mosquitto("mosquitto_pub", served.port, "-V", "5", "-q", "1", "-m", "1", "-t", "acme/flow")
        assert "Topic Name invalid" in said
        assert "area: is missing" in said


@needs_mosquitto
async def test_mosquitto_is_told_about_qos_2(serve: Any) -> None:
    """QoS 2 is announced as missing, and a client that insists is not left waiting."""
    async with serve() as served:
        _, said = await mosquitto("mosquitto_pub", served.port, "-V", "5", "-q", "2", "-m", "1", "-t", FLOW)
        assert "QoS not supported" in said
        assert served.log.entries == []
