"""What the lake holds is read off silver itself and said to the plants: numbers, windows, and how complete it is."""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from azure.eventhub.aio import EventHubConsumerClient
from lakes import START_US, Hub, sealed

from appliance.contract.envelope import Envelope, seal
from appliance.contract.gap import Gap, GapReason, gap_topic
from appliance.contract.ledger import WINDOW_US, WindowTally, ledger_topic, tallies, window_of
from appliance.contract.reading import Reading, Stream
from appliance.contract.receipt import Receipt
from cloud_sync import reconciliation, tables
from cloud_sync.drain import Drain
from cloud_sync.emulator.eventhubs import EventHubs
from cloud_sync.lake import Lake, compact
from cloud_sync.receipt_door import DoorError, FolderDoor, HubDoor
from cloud_sync.receipts import Receipts
from cloud_sync.silver import Silver

VALUES = (1.5, -0.0, math.nan, math.inf, 7, -(2**63), True, "warm", "", None)
BASE_US = window_of(START_US)


class Heard:
    """A door behind which all is kept that was said."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []

    async def send(self, changed: Sequence[Receipt], every: Sequence[Receipt]) -> None:
        self.receipts += changed

    async def close(self) -> None:
        """Nothing is held open."""

    def last(self, stream: Stream = Stream.READINGS) -> Receipt:
        return [receipt for receipt in self.receipts if receipt.stream is stream][-1]


def entries(first: int, count: int) -> tuple[Reading, ...]:
    """Readings of three machines with values of every type, some without a usable time of their own."""
    found = []
    for seq in range(first, first + count):
        at_us = BASE_US + seq * 10_000_000
        source_us = -5 if seq % 11 == 0 else at_us - 1_000
        topic = f"acme/northfield/utilities/boiler-house/feed/pmp-{seq % 3}/t{seq % 2}"
        found.append(
            Reading(topic, VALUES[seq % len(VALUES)], (192, 64, 0)[seq % 3], source_us, at_us, at_us, "mqtt:x")
        )
    return tuple(found)


def windows(first: int, readings: Sequence[Reading]) -> list[Reading]:
    """The plant's own account of these readings, as events."""
    told: list[Reading] = []
    starts = [window_of(reading.arrival_us) for reading in readings]
    for start_us in dict.fromkeys(starts):
        begin, count = starts.index(start_us), starts.count(start_us)
        part = readings[begin : begin + count]
        window = WindowTally(1, start_us, first + begin, first + begin + count - 1, tallies(first + begin, part))
        told.append(window.entry(ledger_topic("acme", "northfield"), start_us + WINDOW_US))
    return told


def send(hub: Hub, stream: Stream, first: int, said: Sequence[Reading], partition: int = 0) -> None:
    hub.send(seal(Envelope("northfield", 1, stream, first, tuple(said))), partition)


async def filled(tmp_path: Path, count: int = 100) -> tuple[Lake, Hub]:
    """A lake with readings 1 to `count` and the plant's account of them."""
    lake, hub = Lake(tmp_path / "lake"), Hub(tmp_path / "hub")
    said = entries(1, count)
    send(hub, Stream.READINGS, 1, said[:40])
    send(hub, Stream.READINGS, 41, said[40:], 1)
    send(hub, Stream.EVENTS, 1, windows(1, said))
    await taken_up(lake, hub)
    return lake, hub


async def taken_up(lake: Lake, hub: Hub) -> None:
    await Drain(lake, hub).once()
    Silver(lake).run_once()


async def test_counts_and_fingerprints_in_silver_are_those_of_the_plant(tmp_path: Path) -> None:
    """Readings of every type went through envelope, bronze and silver: both sides come to the same sums."""
    lake, hub = await filled(tmp_path)
    door = Heard()
    found = await Receipts(lake, hub, door).once()
    assert (found.equal, found.doubled) == (len(windows(1, entries(1, 100))), 0)
    assert (door.last().held, door.last().speaks_to, door.last().differing) == (((1, 100),), 100, ())
    assert door.last(Stream.EVENTS).held == ((1, found.equal),)


async def test_three_deleted_rows_are_named_exactly(tmp_path: Path) -> None:
    """Whoever deletes rows of the lake, by whatever tool, is found out at the next look."""
    lake, hub = await filled(tmp_path)
    door = Heard()
    receipts = Receipts(lake, hub, door)
    await receipts.once()
    lake.table(tables.READINGS.name).delete("seq IN (17, 18, 60)")
    found = await receipts.once()
    assert door.last().held == ((1, 16), (19, 59), (61, 100))
    assert not door.last().differing, "windows that are not held in full are not compared"
    assert found.doubled == 0
    assert [balance.missing for balance in reconciliation.of(lake).balances] == [(), ((17, 18), (60, 60))]


async def test_a_changed_value_is_found_in_its_window(tmp_path: Path) -> None:
    """All numbers stand, and yet it is not what the plant wrote down."""
    lake, hub = await filled(tmp_path)
    door = Heard()
    receipts = Receipts(lake, hub, door)
    await receipts.once()
    lake.table(tables.READINGS.name).update(predicate="seq = 50", updates={"value": "1.25"})
    await receipts.once()
    assert door.last().held == ((1, 100),)
    assert door.last().differing == (window_of(entries(50, 1)[0].arrival_us),)


async def test_numbers_that_stand_twice_are_counted(tmp_path: Path) -> None:
    lake, _ = await filled(tmp_path)
    handle = lake.table(tables.READINGS.name)
    rows = handle.to_pyarrow_table(filters=[("seq", "<=", 5)])
    from deltalake import write_deltalake

    write_deltalake(handle, rows, mode="append")
    found = reconciliation.of(lake)
    assert found.doubled == 5
    assert not found.is_fine


async def test_joining_files_changes_nothing_that_is_said(tmp_path: Path) -> None:
    """The files are others, the numbers are the same: nobody is told anew."""
    lake, hub = await filled(tmp_path)
    for first in range(101, 111):
        send(hub, Stream.READINGS, first, entries(first, 1))
        await taken_up(lake, hub)
    door = Heard()
    receipts = Receipts(lake, hub, door)
    await receipts.once()
    said = len(door.receipts)
    assert compact(lake, tables.READINGS, 1) > 0
    found = await receipts.once()
    assert [receipt.held for receipt in found.receipts if receipt.stream is Stream.READINGS] == [((1, 110),)]
    assert [receipt for receipt in door.receipts[said:] if receipt.complete_to_us == 0] == []


async def test_it_is_complete_only_when_every_partition_has_been_taken_up(tmp_path: Path) -> None:
    """What the hub had at one look is opened at a later one: until then nothing counts as lost."""
    lake, hub = await filled(tmp_path)
    door = Heard()
    receipts = Receipts(lake, hub, door, clock=iter(range(1, 100)).__next__)
    await receipts.once()
    send(hub, Stream.READINGS, 101, entries(101, 5), 1)
    await receipts.once()
    assert (door.last().at_us, door.last().complete_to_us) == (2, 1), "the fifth event came after the first look's end"
    await receipts.once()
    assert door.last().complete_to_us == 1, "what came in partition 1 before the second look is not opened yet"
    await taken_up(lake, hub)
    await receipts.once()
    assert (door.last().complete_to_us, door.last().held) == (3, ((1, 105),))


async def test_gaps_explain_what_is_not_there(tmp_path: Path) -> None:
    """Numbers 101 to 110 left the plant's log on purpose, 111 to 112 are simply missing."""
    lake, hub = await filled(tmp_path)
    send(hub, Stream.READINGS, 113, entries(113, 5))
    gap = Gap(1, Stream.READINGS, 101, 110, 10, 10, GapReason.SIZE, ("a/b/c/d/e/f/g",), 1, BASE_US, BASE_US + 5)
    send(hub, Stream.EVENTS, 100, [gap.entry(gap_topic("acme", "northfield"), BASE_US)])
    await taken_up(lake, hub)
    found = reconciliation.of(lake)
    readings = next(balance for balance in found.balances if balance.stream == "readings")
    assert (readings.held, readings.explained, readings.missing) == (105, 10, ((111, 112),))
    assert json.loads(found.to_json())["is_fine"] is False
    assert "missing: 2 in 1 ranges: 111-112" in found.to_text()
    rows = lake.table(tables.GAPS.name).to_pyarrow_table().to_pylist()
    assert [(row["first"], row["last"], row["reason"], row["unread"]) for row in rows] == [(101, 110, "size", 10)]


async def test_epochs_are_told_apart_and_the_old_one_is_not_repeated(tmp_path: Path) -> None:
    lake, hub = await filled(tmp_path)
    hub.send(sealed(1, 10, epoch=2))
    await taken_up(lake, hub)
    door = Heard()
    receipts = Receipts(lake, hub, door)
    for _ in range(3):
        await receipts.once()
    said: Mapping[int, int] = {epoch: sum(its.epoch == epoch for its in door.receipts) for epoch in (1, 2)}
    assert said[1] == 2, "both streams of the old epoch, once"
    assert said[2] == 3, "the new one each time, as it becomes complete further on"


async def test_receipts_go_over_a_hub(tmp_path: Path) -> None:
    """Through the real client; a hub that is not there is an error with a hint, and works once it is."""
    lake, hub = await filled(tmp_path)
    async with EventHubs.open(tmp_path / "hubs.db", ("receipts",), partitions=1) as server:
        await server.serve()
        with pytest.raises(DoorError, match="Data Sender"):
            await Receipts(lake, hub, HubDoor(server.connection_string("receipts"), "nowhere")).once()
        door = HubDoor(server.connection_string("receipts"), "receipts")
        found = await Receipts(lake, hub, door).once()
        await door.close()
        bodies: list[bytes] = []
        client = EventHubConsumerClient.from_connection_string(server.connection_string("receipts"), "$Default")
        enough = asyncio.Event()

        async def on_event(_: object, event: object) -> None:
            bodies.append(b"".join(event.body))  # type: ignore[attr-defined]
            if len(bodies) == len(found.receipts):
                enough.set()

        async with client, asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            receiving = tasks.create_task(client.receive(on_event, partition_id="0", starting_position="-1"))
            await enough.wait()
            receiving.cancel()
    assert tuple(map(Receipt.from_body, bodies)) == found.receipts


async def test_receipts_go_beside_carried_envelopes(tmp_path: Path) -> None:
    """One file a plant, replaced as a whole."""
    lake, hub = await filled(tmp_path)
    (tmp_path / "stick").mkdir()
    found = await Receipts(lake, hub, FolderDoor(tmp_path / "stick")).once()
    (file,) = (tmp_path / "stick" / "receipts").iterdir()
    assert file.name == "northfield.json"
    said = [Receipt.from_body(json.dumps(each).encode()) for each in json.loads(file.read_text())]
    assert tuple(said) == found.receipts
    with pytest.raises(DoorError, match="writable"):
        await Receipts(lake, hub, FolderDoor(tmp_path / "nowhere")).once()
