"""The log turns bad while envelopes are on their way: whatever has arrived of them, no reading gets two names."""

import asyncio
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from appliance.bridge.bridge import Bridge
from appliance.bridge.folder import FolderUplink
from appliance.bridge.pacing import Pace
from appliance.bridge.uplink import UplinkError
from appliance.buffer.buffer import Buffer
from appliance.buffer.underway import FOLDER, UnderWay
from appliance.contract.envelope import Envelope, Lane, Sealed, open_sealed, seal
from appliance.contract.gap import GAP_ORIGIN, Gap, GapReason
from appliance.contract.reading import Reading, Stream

QUICK = Pace(flush_s=0.01, pause_s_min=0.01, pause_s_max=0.02)


class Lake:
    """A far side that counts each name once, and may store without an answer, or refuse to store at all."""

    name = "lake"

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}
        """What stands under each name: the source time of a reading is its first number."""
        self.answers = lambda _sealed: True
        self.stores = lambda _sealed: True

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        if sealed.stream is Stream.READINGS and self.stores(sealed):
            for seq, entry in enumerate(open_sealed(sealed).entries, sealed.first):
                self.held[sealed.epoch, seq] = entry.source_us
        if sealed.stream is Stream.READINGS and not self.answers(sealed):
            await asyncio.sleep(0.001)
            raise UplinkError("the link was cut before the answer", "it comes back")

    async def close(self) -> None:
        """Nothing is held open."""


def readings(first: int, count: int) -> list[Reading]:
    return [Reading(f"acme/n/a/l/c/e/t{i % 3}", i / 7, 192, i, i, i, "o") for i in range(first, first + count)]


def bridge_of(buffer: Buffer, lake: Lake, folder: Path) -> Bridge:
    return Bridge(buffer, lake, FolderUplink(folder / "refused"), QUICK, under_way=UnderWay(folder / FOLDER))


async def until(is_so: object) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # type: ignore[operator]  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", range(4))
async def test_what_was_on_its_way_keeps_its_names(tmp_path: Path, seed: int) -> None:
    """Some of it had been stored without an answer, some not; the file's page is torn; then all goes on."""
    path, lake, chance = tmp_path / "buffer.db", Lake(), random.Random(seed)
    async with Buffer.open(path, "northfield") as buffer:
        bridge = bridge_of(buffer, lake, tmp_path)
        running = asyncio.create_task(bridge.run())
        await buffer.append(readings(1, 12_000))
        await until(lambda: not bridge.status().readings.backlog)
        lake.answers = lambda sealed: False
        lake.stores = lambda sealed: chance.random() < 0.5
        await buffer.append(readings(12_001, 15_000))
        await asyncio.sleep(0.3)
        running.cancel()
        await asyncio.wait([running])
        old_epoch = buffer.epoch
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:  # The header: SQLite takes it for no database, and all the rest is whole.
        file.seek(seed * 5)
        file.write(b"\xff")
    lake.answers = lake.stores = lambda sealed: True
    async with Buffer.open(path, "northfield") as buffer:
        assert buffer.epoch > old_epoch
        assert UnderWay(tmp_path / FOLDER).kept()
        await buffer.append(readings(27_001, 500))
        running = asyncio.create_task(bridge_of(buffer, lake, tmp_path).run())
        await until(lambda: set(lake.held.values()) == set(range(1, 27_501)))
        await until(lambda: not (tmp_path / FOLDER).exists())
        running.cancel()
        await asyncio.wait([running])
        carried = {
            number
            for entry in (await buffer.read(Stream.EVENTS, 0, 1_000)).entries
            if entry.origin == GAP_ORIGIN and (gap := Gap.from_entry(entry)).reason is GapReason.CARRIED
            for number in range(gap.first, gap.last + 1)
        }
        new = {seq for epoch, seq in lake.held if epoch == buffer.epoch}
    assert not [times for times in Counter(lake.held.values()).values() if times > 1], "a reading has two names"
    assert carried | new == set(range(1, buffer.last() + 1))
    assert not carried & new


async def test_an_envelope_that_is_damaged_itself_or_never_taken_blocks_nothing(tmp_path: Path) -> None:
    """The one is left for people to see, the other goes to the refused ones."""
    kept, lake = UnderWay(tmp_path / FOLDER), Lake()
    async with Buffer.open(tmp_path / "old.db", "northfield") as buffer:
        await buffer.append(readings(1, 300))
        for first in (1, 101, 201):
            batch = await buffer.read(Stream.READINGS, first - 1, 100)
            assert kept.keep(seal(Envelope("northfield", 7, Stream.READINGS, first, batch.entries)), Lane.LIVE)
    damaged, _, good = kept.kept()
    damaged.write_bytes(b"{}")

    async def send(sealed: Sealed, lane: Lane) -> None:
        if sealed.first == 101:
            raise UplinkError("too large", "send less", retryable=False)
        await Lake.send(lake, sealed, lane)

    lake.send = send  # type: ignore[method-assign]
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        running = asyncio.create_task(bridge_of(buffer, lake, tmp_path).run())
        await until(lambda: not good.exists())
        running.cancel()
        await asyncio.wait([running])
    assert kept.kept() == [damaged]
    assert sorted(lake.held) == [(7, number) for number in range(201, 301)]
    assert [path.name for path in (tmp_path / "refused").rglob("*.envelope")] == [f"{101:020d}-100.envelope"]
