"""The SDK's consumer with its checkpoints in blob storage: the emulator beside Azurite."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubConsumerClient, EventHubProducerClient

from appliance.bridge.leftovers import Leftovers
from cloud_sync.emulator.eventhubs import EventHubs

AZURITE = (
    Path(__file__).parents[1] / "peers" / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
)
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key that Azurite's documentation gives to everybody."""


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[str]:
    """The connection string of blob storage on loopback."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not AZURITE.is_file():
        pytest.skip("azurite is not installed; `make test-deps` does it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(tmp_path / "blobs")]
    options += ["--skipApiVersionCheck", "--loose", "--disableTelemetry"]
    process = await asyncio.create_subprocess_exec("node", str(AZURITE), *options, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            while b"listen" not in (said := await process.stdout.readline()):
                assert said, "azurite ended"
        endpoint = f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1"
        yield f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY};{endpoint};"
    finally:
        process.kill()
        await process.communicate()


async def send(hubs: EventHubs, bodies: list[bytes]) -> None:
    client = EventHubProducerClient.from_connection_string(hubs.connection_string("readings"), retry_total=0)
    async with client:
        for partition in ("0", "1"):
            await client.send_batch([EventData(body) for body in bodies], partition_id=partition)


async def consumed(hubs: EventHubs, storage: str, count: int) -> list[tuple[str, bytes]]:
    """What a new consumer gets from both partitions, each event checkpointed, until it has so many."""
    checkpoints = pytest.importorskip("azure.eventhub.extensions.checkpointstoreblobaio")
    store = checkpoints.BlobCheckpointStore.from_connection_string(storage, "checkpoints")
    got: list[tuple[str, bytes]] = []
    enough = asyncio.Event()

    async def on_event(place: Any, event: Any) -> None:
        got.append((place.partition_id, b"".join(event.body)))
        await place.update_checkpoint(event)
        if len(got) >= count:
            enough.set()

    client = EventHubConsumerClient.from_connection_string(
        hubs.connection_string("readings"),
        "$Default",
        checkpoint_store=store,
        load_balancing_interval=0.5,
        load_balancing_strategy="greedy",
    )
    left = Leftovers(client)
    try:
        async with asyncio.timeout(40), client, asyncio.TaskGroup() as tasks:
            receiving = tasks.create_task(client.receive(on_event, starting_position="-1"))
            await enough.wait()
            receiving.cancel()
    finally:
        left.cut()
    await store.close()
    return got


async def test_a_consumer_goes_on_where_its_checkpoints_say(tmp_path: Path, storage: str) -> None:
    """The first takes 20 events of two partitions; the next one gets exactly the 6 that came since."""
    container = pytest.importorskip("azure.eventhub.extensions.checkpointstoreblobaio._vendor.storage.blob.aio")
    async with container.ContainerClient.from_connection_string(storage, "checkpoints") as client:
        await client.create_container()
    async with EventHubs.open(tmp_path / "hubs.db") as hubs:
        await hubs.serve()
        old, new = [b"old %d" % number for number in range(10)], [b"new %d" % number for number in range(3)]
        await send(hubs, old)
        first = await consumed(hubs, storage, 20)
        await send(hubs, new)
        second = await consumed(hubs, storage, 6)
    assert sorted(first) == sorted((partition, body) for partition in "01" for body in old)
    assert sorted(second) == sorted((partition, body) for partition in "01" for body in new)
