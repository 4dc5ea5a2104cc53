"""What leaves of an old log, for the first time and again: the log's own blocks, whole where they fit."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.bridge.bridge import Bridge
from appliance.bridge.folder import FolderUplink
from appliance.bridge.pacing import Pace
from appliance.bridge.uplink import UplinkError
from appliance.buffer import keeper
from appliance.buffer.buffer import Buffer
from appliance.buffer.store import Dropped
from appliance.contract.envelope import Envelope, Lane, Sealed, open_sealed, seal
from appliance.contract.reading import Quality, Reading, Stream
from appliance.contract.sent import Sent
from cloud_sync.config import HubConfig
from cloud_sync.drain import Drain
from cloud_sync.lake import Lake
from cloud_sync.service import source_of
from cloud_sync.silver import Silver

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"
QUICK = Pace(flush_s=0.01, pause_s_min=0.01, pause_s_max=0.02)


def readings(count: int, start: int = 1) -> list[Reading]:
    at = 1_790_000_000_000_000
    return [
        Reading(TOPIC, n / 8, Quality.GOOD, at + n, at + n, at + n, "opcua:demo") for n in range(start, start + count)
    ]


class Store:
    """An uplink that keeps what it is given; `fails` says how many of the next sends fail after storing."""

    name = "store"

    def __init__(self) -> None:
        self.sent: list[tuple[Sealed, Lane]] = []
        self.fails = 0

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        await asyncio.sleep(0)
        self.sent.append((sealed, lane))
        if self.fails:
            self.fails -= 1
            raise UplinkError("cut after", "mend it")

    async def close(self) -> None:
        pass

    def bounds(self, lane: Lane) -> list[tuple[int, int]]:
        return [(sealed.first, sealed.count) for sealed, its in self.sent if its is lane]


@asynccontextmanager
async def running(bridge: Bridge) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bridge.run())
        yield
        task.cancel()


async def sealed_log(buffer: Buffer, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> list[Sealed]:
    """Append so many readings for each block, and wait until they are sealed; gives the blocks."""
    monkeypatch.setattr(keeper, "SEAL_AGE_S", 0.02)
    for size in sizes:
        await buffer.append(readings(size, buffer.last() + 1))
        async with asyncio.timeout(10):
            while buffer.keeper.sealed_to[Stream.READINGS] < buffer.last():  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
    return await buffer.sealed_run(Stream.READINGS, 0, 1_000)


def delivered(bridge: Bridge, buffer: Buffer) -> Callable[[], bool]:
    return lambda: bridge.status().readings.acknowledged_seq == buffer.last()


async def test_the_backlog_is_the_blocks_of_the_log(
    tmp_path: Path, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks leave as they are stored, without being opened; the one the live lane has jumped into is cut."""
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        blocks = await sealed_log(buffer, [700, 5_000, 3, 4_000, 5_000], monkeypatch)
        opened: list[int] = []
        read = buffer.read

        async def counted(stream: Stream, after: int, limit: int) -> Any:
            opened.append(after)
            return await read(stream, after, limit)

        monkeypatch.setattr(buffer, "read", counted)
        far = Store()
        bridge = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), QUICK)
        async with running(bridge):
            await until(delivered(bridge, buffer))
        assert [sealed for sealed, lane in far.sent if lane is Lane.BACKLOG] == blocks[:-1]
        assert opened == [buffer.last() - 5_000]
        await (await buffer.cursor("bridge")).advance(701 + 100, "")
        far.sent.clear()
        again = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), QUICK)
        async with running(again):
            await until(delivered(again, buffer))
    assert far.bounds(Lane.BACKLOG) == [(802, 4_899), (5_701, 3), (5_704, 4_000)]
    assert [sealed for sealed, lane in far.sent if lane is Lane.BACKLOG][1:] == blocks[2:4]


async def test_a_damaged_block_is_not_sent(
    tmp_path: Path, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksum would be refused by the cloud for ever: it is passed over, and the rest arrives."""
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        blocks = await sealed_log(buffer, [5_000] * 5, monkeypatch)
        sql = "UPDATE block_readings SET body = zeroblob(size) WHERE first = 5001"
        await buffer._store._writer.execute(sql)
        monkeypatch.setattr("appliance.buffer.tail.TAIL_ENTRIES_MAX", 10)
        await buffer.append(readings(20, buffer.last() + 1))  # Now memory holds no more than these.
        far = Store()
        bridge = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), QUICK)
        async with running(bridge):
            await until(delivered(bridge, buffer))
    arrived = {number for sealed, _ in far.sent for number in range(sealed.first, sealed.first + sealed.count)}
    assert arrived == set(range(1, 25_021)) - set(range(5_001, 10_001))
    assert [open_sealed(sealed).first for sealed, lane in far.sent if sealed in blocks] != []


async def test_a_plan_of_loose_entries_is_the_same_bytes_once_they_are_sealed(
    tmp_path: Path, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent from memory, never acknowledged, sealed, restarted: one plan stands in a block, one across two."""
    far = Store()
    far.fails = 10_000
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        await buffer.append(readings(300))
        async with running(Bridge(buffer, far, FolderUplink(tmp_path / "refused"), QUICK)):
            await until(lambda: len(far.sent) >= 2)
        await sealed_log(buffer, [50], monkeypatch)
    far.fails = 0
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        bridge = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), QUICK)
        async with running(bridge):
            await until(delivered(bridge, buffer))
    assert {sealed for sealed, _ in far.sent if sealed.first == 1} == {far.sent[0][0]}
    assert far.sent[0][0] == seal(Envelope("northfield", buffer.epoch, Stream.READINGS, 1, tuple(readings(300))))


async def test_what_the_lake_lacks_is_sent_again_beside_the_rest(
    tmp_path: Path, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole blocks as they are stored, parts cut to measure; the cursor does not move, and the status counts them."""
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        blocks = await sealed_log(buffer, [5_000] * 4, monkeypatch)
        far = Store()
        bridge = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), QUICK)
        bridge.resend(Stream.READINGS, [(1, 10)])  # Nothing is acknowledged yet, so nothing is to be sent again.
        assert bridge.sent(Stream.READINGS) == Sent((), ())
        async with running(bridge):
            await until(delivered(bridge, buffer))
            assert bridge.sent(Stream.READINGS) == Sent(((1, 20_000),), ())
            far.sent.clear()
            far.fails = 1
            bridge.resend(Stream.READINGS, [(5_001, 12_000), (19_000, 30_000), (5_001, 6_000)])
            assert bridge.sent(Stream.READINGS).under_way == ((5_001, 12_000), (19_000, 20_000))
            await until(lambda: bridge.status().resent_entries == 8_001)
            assert bridge.sent(Stream.READINGS) == Sent(((1, 20_000),), ())
        assert (await buffer.cursor("bridge")).seq == 20_000
    assert sorted(set(far.bounds(Lane.BACKLOG))) == [(5_001, 5_000), (10_001, 2_000), (19_000, 1_001)]
    assert len(far.sent) == 4  # One of them twice: its link was cut.
    assert blocks[1] in [sealed for sealed, _ in far.sent]
    assert all(open_sealed(sealed).entries == tuple(readings(sealed.count, sealed.first)) for sealed, _ in far.sent)


async def test_what_has_left_the_log_is_passed_over(
    tmp_path: Path, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The bound took the second block: its neighbours are sent again, and a line says what is not."""
    monkeypatch.setattr("appliance.buffer.tail.TAIL_ENTRIES_MAX", 10)
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        await sealed_log(buffer, [1_000] * 3, monkeypatch)
        far = Store()
        bridge = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), QUICK)
        async with running(bridge):
            await until(delivered(bridge, buffer))
            await buffer._writer.keep((), (Dropped(Stream.READINGS, 1_001, 2_000),), ())
            far.sent.clear()
            bridge.resend(Stream.READINGS, [(1, 3_000)])
            await until(lambda: bridge.sent(Stream.READINGS).under_way == ())
            await buffer._writer.keep((), (Dropped(Stream.READINGS, 2_001, 3_000),), ())
            bridge.resend(Stream.READINGS, [(2_990, 3_000), (2_001, 2_500)])
            await until(lambda: bridge.sent(Stream.READINGS).under_way in ((), ((2_991, 3_000),)))
    assert [bounds for bounds in far.bounds(Lane.BACKLOG) if bounds[0] < 2_500] == [(1, 1_000), (2_001, 1_000)]
    assert "readings 1001 to 2000 cannot be sent again, the log no longer holds them" in caplog.text
    assert "readings 2001 to 2500 cannot be sent again" in caplog.text


CHILD = """
import asyncio, random, sys
from pathlib import Path
from appliance.bridge.bridge import Bridge
from appliance.bridge.folder import FolderUplink
from appliance.bridge.pacing import Pace
from appliance.bridge.uplink import UplinkError
from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Stream
path, seed, fails = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
chance = random.Random(seed)
class Bad(FolderUplink):
    async def send(self, sealed, lane):
        await super().send(sealed, lane)
        print(sealed.first, flush=True)
        if chance.random() < fails:
            raise UplinkError("cut after", "mend it")
async def main():
    async with Buffer.open(path / "b.db", "northfield") as buffer:
        bridge = Bridge(buffer, Bad(path / "out"), FolderUplink(path / "refused"), Pace(0.01, 0.01, 0.02))
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(bridge.run())
            while not fails and bridge.status().readings.acknowledged_seq < buffer.last() or fails:
                await asyncio.sleep(0.005)
                for _ in range(3 if fails else 0):
                    first = chance.randrange(1, buffer.last())
                    bridge.resend(Stream.READINGS, [(first, first + chance.randrange(9_000))])
            sending.cancel()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
async def test_kill_9_amid_blocks_and_resends_leaves_silver_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight lives, each killed with blocks and resends on their way: every reading stands in silver once, equal."""
    chance, total = random.Random(4), 60_000
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        await sealed_log(buffer, [chance.choice([900, 5_000, 4_100]) for _ in range(15)], monkeypatch)
        await buffer.append(readings(total - buffer.last(), buffer.last() + 1))
    for life in range(8):
        arguments = [sys.executable, "-c", CHILD, str(tmp_path), str(life), "0.1"]
        child = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
        assert child.stdout
        for _ in range(chance.randrange(1, 25)):
            assert await child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        await child.communicate()
    last = await asyncio.create_subprocess_exec(*arguments[:-1], "0", stdout=subprocess.PIPE)
    await asyncio.wait_for(last.communicate(), 60)
    assert last.returncode == 0
    lake = Lake(tmp_path / "lake")
    await Drain(lake, source_of(HubConfig(folder=str(tmp_path / "out")), lake)).once()
    assert Silver(lake).run_once().dead == 0
    found = lake.query("SELECT seq, value FROM silver.readings ORDER BY seq").to_pylist()
    assert [(row["seq"], row["value"]) for row in found] == [(n, n / 8) for n in range(1, total + 1)]
