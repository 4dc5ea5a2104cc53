"""Receipts on their way from the cloud to the Ledger: written by the cloud's own doors, read by the plant's readers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubProducerClient
from ledgers import NOON_US, plant, reading

from appliance.bridge import receipts_eventhubs
from appliance.bridge.eventhubs import EventHubsUplink
from appliance.bridge.receipts import FOLDER, FolderReceipts, ReceiptReader, Take
from appliance.bridge.receipts_eventhubs import EventHubsReceipts, Patience
from appliance.contract.envelope import Lane, envelopes
from appliance.contract.reading import Quality, Reading, Stream
from appliance.contract.receipt import Receipt
from cloud_sync.emulator.eventhubs import EventHubs
from cloud_sync.receipt_door import Door, FolderDoor, HubDoor

PLANT = "northfield"
TOPIC = "acme/northfield/a/l/c/pmp-1/flow"
(SEALED,) = envelopes(PLANT, 1, Stream.READINGS, 1, [Reading(TOPIC, 1.5, Quality.GOOD, 1, 1, 1, "test")] * 100)
QUICK = Patience(call_s=3.0, close_s=1.0, settled_s=0.1, quiet_s=60.0, pause_s_min=0.05, pause_s_max=0.2)


def receipt(at_us: int, last: int, plant: str = PLANT) -> Receipt:
    return Receipt(plant, 7, Stream.READINGS, at_us, 0, last, ((1, last),))


class Side(Protocol):
    """A way for receipts: the cloud's end, the plant's end, and what can go wrong between them."""

    door: Door

    def reader(self, take: Take) -> ReceiptReader: ...
    async def garbage(self) -> None: ...
    async def cut(self) -> None: ...
    async def mend(self) -> None: ...


class FolderWay:
    def __init__(self, path: Path) -> None:
        self.path, self.door = path, FolderDoor(path)
        path.mkdir()

    @property
    def file(self) -> Path:
        return self.path / FOLDER / f"{PLANT}.json"

    def reader(self, take: Take) -> FolderReceipts:
        return FolderReceipts(self.path, PLANT, take, look_s=0.02)

    async def garbage(self) -> None:
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text('[{"schema":"of something else"}]')

    async def cut(self) -> None:
        """What is carried here is only half of a file."""
        self.file.write_text(self.file.read_text()[:-9])

    async def mend(self) -> None:
        """The next one will be whole."""


class HubWay:
    """The switchboard is asked over HTTP, as a person would."""

    def __init__(self, hubs: EventHubs, board: httpx.AsyncClient) -> None:
        self.hubs, self.board, self.port = hubs, board, hubs.port
        self.door = HubDoor(hubs.connection_string("receipts"), "receipts")

    def reader(self, take: Take, patience: Patience = QUICK) -> EventHubsReceipts:
        text = self.hubs.connection_string("readings")  # As configured: one string for the uplink and the receipts.
        return EventHubsReceipts.from_connection_string(text, "receipts", take, patience=patience)

    async def garbage(self) -> None:
        await self.send(EventData(b"\xff\x00 nothing of the kind"))
        await self.send(EventData("a text"))

    async def send(self, event: EventData) -> None:
        text = self.hubs.connection_string("receipts")
        async with EventHubProducerClient.from_connection_string(text, retry_total=0) as client:
            await client.send_batch([event], partition_key=PLANT)

    async def cut(self) -> None:
        await self.door.close()
        await self.hubs.stop()

    async def mend(self) -> None:
        await self.hubs.serve(port=self.port)


@asynccontextmanager
async def hub_way(folder: Path, hubs: tuple[str, ...] = ("readings", "receipts")) -> AsyncIterator[HubWay]:
    async with EventHubs.open(folder / "hubs.db", hubs) as served:
        await served.serve()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{await served.serve_switchboard()}") as board:
            way = HubWay(served, board)
            yield way
            await way.door.close()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubWay]:
    async with hub_way(tmp_path) as way:
        yield way


@pytest.fixture(params=["folder", "eventhubs"])
async def way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Side]:
    if request.param == "folder":
        yield FolderWay(tmp_path / "envelopes")
        return
    async with hub_way(tmp_path) as way:
        yield way


@asynccontextmanager
async def running(reader: ReceiptReader) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(reader.run())
        yield
        task.cancel()


async def said(way: Side, *receipts: Receipt) -> None:
    await way.door.send(receipts, receipts)


async def test_each_receipt_arrives_once_and_in_order(way: Side, until: Callable[..., Any]) -> None:
    """Both streams, the later after the earlier; what stands there before the reader starts, and what comes after."""
    taken: list[Receipt] = []
    events = replace(receipt(1_000, 3), stream=Stream.EVENTS)
    await said(way, receipt(1_000, 5), events)
    reader = way.reader(taken.append)
    async with running(reader):
        await until(lambda: taken == [receipt(1_000, 5), events])
        await said(way, receipt(2_000, 9))
        await until(lambda: len(taken) == 3)
        await asyncio.sleep(0.3)  # Long enough for a reader that hands over twice.
    assert taken == [receipt(1_000, 5), events, receipt(2_000, 9)]
    status = reader.status()
    assert (status.receipts, status.passed_over, status.newest_us, status.last_error) == (3, 0, 2_000, "")


STEPS = [
    (2_000, 4, PLANT, 4),
    (3_000, 7, PLANT, 7),
    (2_500, 5, PLANT, 7),
    (4_000, 10, "southfield", 7),
    (5_000, 9, PLANT, 9),
]
"""Made when, up to which number, for whom; and what is in the lake then, as the Ledger of this plant has it."""


async def test_the_ledger_takes_the_newest_and_nobody_elses(
    way: Side, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """A later receipt takes the place of the earlier; one that comes late, and another plant's, change nothing."""
    heard: list[Receipt] = []
    (tmp_path / "plant").mkdir()
    async with plant(tmp_path / "plant") as its:

        def take(receipt: Receipt) -> None:
            its.ledger.received(receipt)
            heard.append(receipt)

        async def in_lake() -> int:
            windows = await its.ledger.windows(0, NOON_US * 2)
            return sum(account.in_lake for window in windows for account in window.accounts)

        async def told(at_us: int, last: int, name: str = PLANT) -> None:
            said_now = replace(receipt(at_us, last, name), epoch=its.buffer.epoch)
            await said(way, said_now)
            if name == PLANT or isinstance(way, HubWay):
                await until(lambda: heard[-1:] == [said_now])

        await its.buffer.append([reading(NOON_US + number) for number in range(10)])
        await its.counted()
        async with running(way.reader(take)):
            for at_us, last, name, held in STEPS:
                await told(at_us, last, name)
                assert await in_lake() == held


async def test_garbage_is_told_once_and_passed_over(
    way: Side, until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[Receipt] = []
    reader = way.reader(taken.append)
    async with running(reader):
        await way.garbage()
        await until(lambda: reader.status().passed_over >= 1)
        await said(way, receipt(1_000, 5))
        await until(lambda: taken == [receipt(1_000, 5)])
    told = [record.getMessage() for record in caplog.records if "no receipt" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("receipts: something that is no receipt is passed over: receipt: ")


async def test_after_a_restart_the_newest_is_read_again(way: Side, until: Callable[..., Any]) -> None:
    """Nothing is kept of where the reader stood; the Ledger passes over what is older than what it has."""
    taken: list[Receipt] = []
    for at_us in (1_000, 2_000):
        await said(way, receipt(at_us, at_us))
    for _ in range(2):
        taken.clear()
        async with running(way.reader(taken.append)):
            await until(lambda: taken[-1:] == [receipt(2_000, 2_000)])


async def test_a_way_that_is_cut_is_told_once_and_comes_back(
    way: Side, until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it goes and one when it is back, and only what is new is handed over."""
    caplog.set_level(logging.INFO, "appliance.bridge.receipts")
    taken: list[Receipt] = []
    reader = way.reader(taken.append)
    await said(way, receipt(1_000, 5))
    async with running(reader):
        await until(lambda: len(taken) == 1)
        await way.cut()
        await until(lambda: reader.status().last_error)
        await asyncio.sleep(0.5)  # Some tries.
        await way.mend()
        await said(way, receipt(2_000, 9))
        await until(lambda: len(taken) == 2)
        await until(lambda: not reader.status().last_error)
    assert taken == [receipt(1_000, 5), receipt(2_000, 9)]
    gone, back = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert gone.startswith("receipts: ") and back == "receipts: they come again"


async def test_a_missing_hub_is_told_with_a_hint_and_the_uplink_goes_on(
    tmp_path: Path, until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The pauses grow, and no try of the reader costs the uplink beside it a connection."""
    async with hub_way(tmp_path, ("readings",)) as way:
        reader, uplink = way.reader(lambda _: None), envelope_uplink(way.hubs)
        await uplink.send(SEALED, Lane.LIVE)
        stand = set(way.hubs._wires)
        async with running(reader):
            await until(lambda: reader.clients >= 4)
            await uplink.send(SEALED, Lane.LIVE)
            assert stand and stand <= way.hubs._wires
        assert uplink.clients == 1
        await uplink.close()
    (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert "there is no hub receipts: create it, or set [uplink] receipts to empty for none" in told
    assert told.endswith("; trying again, at most every 0.2 s")
    assert told == f"receipts: {reader.status().last_error}"


async def test_an_identity_without_the_role_is_told_which_one(hub: HubWay, until: Callable[..., Any]) -> None:
    """And once it has the role, receipts come without a restart."""
    taken: list[Receipt] = []
    reader = hub.reader(taken.append)
    hub.hubs.faults.refused_token = 2
    async with running(reader):
        await until(lambda: hub.hubs.faults.refused_token == 0)
        assert "the role Azure Event Hubs Data Receiver on the hub receipts" in reader.status().last_error
        await said(hub, receipt(1_000, 5))
        await until(lambda: taken == [receipt(1_000, 5)] and not reader.status().last_error)


async def test_an_identity_that_lacks_something_here_is_told_where_to_look(
    until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Its certificate is gone: the reader lives on, and says it once."""

    def connect() -> Any:
        tries.append(1)
        raise FileNotFoundError(2, "No such file", "/etc/plantward/plant.pem")

    tries: list[int] = []
    reader = EventHubsReceipts("receipts", connect, lambda _: None, QUICK)
    async with running(reader):
        await until(lambda: len(tries) > 2)
    (told,) = [record.getMessage() for record in caplog.records]
    assert "plant.pem" in told and "`plantward check` says what the identity needs" in told


async def test_a_mute_hub_ends_a_try_by_its_deadline_and_costs_the_uplink_nothing(
    hub: HubWay, until: Callable[..., Any]
) -> None:
    """The reader cuts what it has left open, and that alone; nothing piles up, and afterwards both work."""
    taken: list[Receipt] = []
    reader = hub.reader(taken.append, replace(QUICK, call_s=0.4, close_s=0.2))
    uplink = envelope_uplink(hub.hubs)
    await uplink.send(SEALED, Lane.LIVE)
    stand = set(hub.hubs._wires)
    assert (await hub.board.put("/faults", json={"black_hole": True})).status_code == 200
    async with running(reader):
        await until(lambda: reader.clients >= 4)
        assert reader.status().last_error.startswith("no answer within 0.4 s; check the network")
        assert (await hub.board.put("/faults", json={})).status_code == 200
        await said(hub, receipt(1_000, 5))
        await until(lambda: taken == [receipt(1_000, 5)])
        await uplink.send(SEALED, Lane.LIVE)
        assert stand and stand <= hub.hubs._wires
    assert uplink.clients == 1
    await uplink.close()
    await hub.door.close()
    await until(lambda: not hub.hubs._wires)


async def test_an_uplink_that_is_let_go_costs_the_reader_nothing(hub: HubWay, until: Callable[..., Any]) -> None:
    """The other way round: the reader's client stays the same while the uplink beside it is built anew."""
    taken: list[Receipt] = []
    reader, uplink = hub.reader(taken.append), envelope_uplink(hub.hubs)
    await said(hub, receipt(1_000, 5))
    async with running(reader):
        await until(lambda: len(taken) == 1)
        for _ in range(2):
            await uplink.send(SEALED, Lane.LIVE)
            await uplink.close()
        await said(hub, receipt(2_000, 9))
        await until(lambda: len(taken) == 2)
        assert (reader.clients, reader.status().last_error) == (1, "")


async def test_a_link_that_falls_silent_is_built_anew(hub: HubWay, until: Callable[..., Any]) -> None:
    """Mute while it stands, nothing tells the reader; after so long without a receipt it does not wait for that."""
    taken: list[Receipt] = []
    reader = hub.reader(taken.append, replace(QUICK, call_s=0.5, close_s=0.3, quiet_s=0.5))
    await said(hub, receipt(1_000, 5))
    async with running(reader):
        await until(lambda: len(taken) == 1)
        hub.hubs.faults.black_hole = True
        await until(lambda: reader.status().last_error.startswith("no answer within 0.5 s; "))
        hub.hubs.faults.black_hole = False
        await said(hub, receipt(2_000, 9))
        await until(lambda: receipt(2_000, 9) in taken)
    assert taken == [receipt(1_000, 5), receipt(2_000, 9)]


async def test_long_after_the_last_receipt_a_start_still_finds_it(
    hub: HubWay, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader looks back from the newest event, not from now: a cloud that was off for a week is heard."""
    monkeypatch.setattr(receipts_eventhubs, "BACK", receipts_eventhubs.BACK / 3_600_000)
    taken: list[Receipt] = []
    await said(hub, receipt(1_000, 5))
    await asyncio.sleep(0.05)
    async with running(hub.reader(taken.append)):
        await until(lambda: taken == [receipt(1_000, 5)])


async def test_a_hub_that_was_made_anew_is_read_from_its_start(tmp_path: Path, until: Callable[..., Any]) -> None:
    """Its numbers begin again, below those that were seen."""
    taken: list[Receipt] = []
    async with hub_way(tmp_path) as way:
        for number in range(1, 6):
            await said(way, receipt(number, number))
        reader, port = way.reader(taken.append), way.port
        async with running(reader):
            await until(lambda: len(taken) == 5)
            await way.cut()
            (tmp_path / "new").mkdir()
            async with EventHubs.open(tmp_path / "new" / "hubs.db") as anew:
                await anew.serve(port=port)
                await said(way, receipt(9, 9))
                await until(lambda: taken[-1] == receipt(9, 9))
                await way.door.close()
    assert len(taken) == 6


def envelope_uplink(hubs: EventHubs) -> EventHubsUplink:
    return EventHubsUplink.from_connection_string(hubs.connection_string("readings"), "readings")
