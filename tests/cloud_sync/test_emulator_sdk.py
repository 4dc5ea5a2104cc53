"""The emulator as the unmodified azure-eventhub client sees it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubConsumerClient, EventHubProducerClient
from azure.eventhub.exceptions import EventHubError

from cloud_sync.emulator.command import emulate
from cloud_sync.emulator.eventhubs import EventHubs

DEADLINE_S = 20.0


@pytest.fixture
async def hubs(tmp_path: Path) -> AsyncIterator[EventHubs]:
    async with EventHubs.open(tmp_path / "hubs.db", ("readings", "other"), partitions=2) as server:
        await server.serve()
        yield server


@asynccontextmanager
async def producer(hubs: EventHubs, hub: str = "readings", **options: Any) -> AsyncIterator[EventHubProducerClient]:
    client = EventHubProducerClient.from_connection_string(hubs.connection_string(hub), retry_total=0, **options)
    async with client, asyncio.timeout(DEADLINE_S):
        yield client


async def received(
    hubs: EventHubs, count: int, partition: str = "0", begin: str | int | datetime = "-1", **options: Any
) -> list[Any]:
    """The first `count` events of a partition from a position on, by an SDK receiver."""
    return [event for event, _ in await received_with_metrics(hubs, count, partition, begin, **options)]


async def received_with_metrics(
    hubs: EventHubs, count: int, partition: str = "0", begin: str | int | datetime = "-1", **options: Any
) -> list[tuple[Any, Any]]:
    """The same, each with what the receiver then knows of the end of its partition."""
    events: list[tuple[Any, Any]] = []
    enough = asyncio.Event()

    async def on_event(place: Any, event: Any) -> None:
        events.append((event, place.last_enqueued_event_properties))
        if len(events) >= count:
            enough.set()

    client = EventHubConsumerClient.from_connection_string(hubs.connection_string("readings"), "$Default")
    async with client, asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        receiving = tasks.create_task(
            client.receive(on_event, partition_id=partition, starting_position=begin, **options)
        )
        await enough.wait()
        receiving.cancel()
    return events[:count]


def bodies(events: list[Any]) -> list[bytes]:
    return [b"".join(event.body) for event in events]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not true():  # noqa: ASYNC110 - what is looked at has no event to wait for
            await asyncio.sleep(0.01)


async def test_a_batch_sent_to_a_partition_comes_back_with_its_properties(hubs: EventHubs) -> None:
    """Events keep bytes, properties and order, and get number, offset and time; the hub tells what it holds."""
    before = datetime.now(UTC).timestamp() - 1
    async with producer(hubs) as client:
        assert await client.get_partition_ids() == ["0", "1"]
        batch = await client.create_batch(partition_id="1")
        for number in range(3):
            event = EventData(b"body-%d" % number)
            event.properties = {"schema": "test/1", "first": 2**30 + number}
            batch.add(event)
        await client.send_batch(batch)
        partition = await client.get_partition_properties("1")
        hub = await client.get_eventhub_properties()
    assert (partition["last_enqueued_sequence_number"], partition["is_empty"]) == (2, False)
    assert hub["eventhub_name"] == "readings"
    pairs = await received_with_metrics(hubs, 3, "1", track_last_enqueued_event_properties=True)
    events = [event for event, _ in pairs]
    assert bodies(events) == [b"body-0", b"body-1", b"body-2"]
    assert [event.sequence_number for event in events] == [0, 1, 2]
    assert [event.properties[b"first"] for event in events] == [2**30, 2**30 + 1, 2**30 + 2]
    assert all(before < event.enqueued_time.timestamp() < before + 60 for event in events)
    assert pairs[0][1]["sequence_number"] == 2


async def test_one_partition_key_always_means_one_partition(hubs: EventHubs) -> None:
    """Sends with a key land together, in order; keys spread; sends without a key take turns."""
    async with producer(hubs) as client:
        for number in range(3):
            await client.send_event(EventData(b"%d" % number), partition_key="northfield/readings")
        await client.send_batch([EventData(b"3")], partition_key="northfield/readings")
        home = 0 if hubs.extent("readings", 0).next else 1
        assert (hubs.extent("readings", home).next, hubs.extent("readings", 1 - home).next) == (4, 0)
        for _ in range(2):
            await client.send_event(EventData(b"x"))
        for letter in "abcdefgh":
            await client.send_event(EventData(b"x"), partition_key=letter)
    assert min(hubs.extent("readings", number).next for number in (0, 1)) > 1
    events = await received(hubs, 4, str(home))
    assert bodies(events)[:4] == [b"0", b"1", b"2", b"3"]
    assert events[0].partition_key == b"northfield/readings"


async def test_a_receiver_begins_where_its_selector_says(hubs: EventHubs) -> None:
    """By number and by offset, with and without the event itself; by time; and at the end."""
    async with producer(hubs) as client:
        for number in range(4):
            await client.send_event(EventData(b"%d" % number), partition_id="0")
        offset = hubs.events("readings", 0)[1].offset
        hour_ago = datetime.fromtimestamp(hubs.events("readings", 0)[-1].enqueued_ms / 1000 - 3600, UTC)
        firsts = await asyncio.gather(
            received(hubs, 1, begin=1),
            received(hubs, 1, begin=1, starting_position_inclusive=True),
            received(hubs, 1, begin=offset),
            received(hubs, 1, begin=offset, starting_position_inclusive=True),
            received(hubs, 1, begin=hour_ago),
        )
        assert [bodies(events) for events in firsts] == [[b"2"], [b"1"], [b"2"], [b"1"], [b"0"]]
        async with asyncio.TaskGroup() as tasks:
            newest = tasks.create_task(received(hubs, 1, begin="@latest"))
            while not newest.done():
                await client.send_event(EventData(b"new"), partition_id="0")
        assert bodies(newest.result()) == [b"new"]


async def test_large_events_travel_in_many_frames_both_ways_and_too_large_ones_are_refused(hubs: EventHubs) -> None:
    """900 kB arrive equal; more than 1 MiB is refused, and the link can be had again at once."""
    body = bytes(range(256)) * 3600
    async with producer(hubs) as client:
        await client.send_event(EventData(body), partition_id="0")
        with pytest.raises(EventHubError):
            await client.send_event(EventData(bytes(1024 * 1024 + 1)), partition_id="0")
        await client.send_event(EventData(b"small"), partition_id="0")
    assert bodies(await received(hubs, 2)) == [body, b"small"]


async def test_a_receiver_gets_more_events_than_one_credit_allows(hubs: EventHubs) -> None:
    """2,000 events in one go, over several rounds of credit, each once and in order."""
    async with producer(hubs) as client:
        for start in range(0, 2_000, 500):
            await client.send_batch([EventData(b"%d" % (start + n)) for n in range(500)], partition_id="0")
    assert bodies(await received(hubs, 2_000)) == [b"%d" % number for number in range(2_000)]


async def test_the_receiver_with_the_higher_epoch_takes_over(hubs: EventHubs) -> None:
    """A second owner of a partition ends the first one's receiving, and a lower epoch does not get in."""
    lost: list[str] = []
    got: list[bytes] = []

    async def on_event(_: Any, event: Any) -> None:
        got.append(b"".join(event.body))

    async def on_error(_: Any, error: Exception) -> None:
        lost.append(str(error))

    first = EventHubConsumerClient.from_connection_string(hubs.connection_string("readings"), "$Default", retry_total=0)
    async with producer(hubs) as sender, first, asyncio.TaskGroup() as tasks:
        receiving = tasks.create_task(
            first.receive(on_event, partition_id="0", owner_level=1, starting_position="-1", on_error=on_error)
        )
        await sender.send_event(EventData(b"one"), partition_id="0")
        await until(lambda: got == [b"one"])
        assert bodies(await received(hubs, 1, owner_level=2)) == [b"one"]
        await until(lambda: bool(lost))
        receiving.cancel()
    assert "higher epoch" in lost[0]


async def test_a_forgetful_far_side_accepts_and_keeps_nothing(hubs: EventHubs) -> None:
    """The sender is told that all is well; only who counts at both ends learns otherwise."""
    hubs.faults.forget = 1
    async with producer(hubs) as client:
        for body in (b"forgotten", b"kept"):
            await client.send_batch([EventData(body)], partition_id="0")
    assert bodies(await received(hubs, 1)) == [b"kept"]
    assert hubs.faults.forget == 0


async def test_an_unknown_hub_is_not_found(hubs: EventHubs) -> None:
    async with producer(hubs, "nowhere") as client:
        with pytest.raises(EventHubError, match="NotFound"):
            await client.send_event(EventData(b"x"), partition_id="0")


async def test_numbers_go_on_after_the_emulator_is_opened_again(tmp_path: Path) -> None:
    """Events of the first run are read in the second, and new numbers follow the old ones."""
    for run in range(2):
        async with EventHubs.open(tmp_path / "hubs.db") as server:
            await server.serve()
            async with producer(server) as client:
                await client.send_event(EventData(b"run-%d" % run), partition_id="0")
            assert [event.sequence for event in server.events("readings", 0)] == list(range(run + 1))
            if run == 1:
                events = await received(server, 2)
                assert bodies(events) == [b"run-0", b"run-1"]
                assert [event.sequence_number for event in events] == [0, 1]


async def test_a_taken_port_is_an_os_error(hubs: EventHubs, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        await emulate(tmp_path / "second", hubs.port)
