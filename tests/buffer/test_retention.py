"""Retention: the log stays within its bounds, and every entry that left is named by a gap."""

import asyncio
import random
from pathlib import Path
from time import monotonic

import pytest

from appliance.buffer import followers as followers_module
from appliance.buffer import keeper as keeper_module
from appliance.buffer import retention
from appliance.buffer import tail as tail_module
from appliance.buffer.blocks import Block
from appliance.buffer.buffer import Buffer
from appliance.buffer.retention import Bounds, Growth, Policy, Seen, every_second, oldest, stretches
from appliance.buffer.schema import WAL_BYTES
from appliance.buffer.store import Room
from appliance.contract.gap import GAP_ORIGIN, Gap, GapReason
from appliance.contract.reading import Reading, Stream
from appliance.contract.topic import Topic
from appliance.supervisor import now_us

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-{}/note"
SIZE_MAX = WAL_BYTES + 4_000_000


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tails, and a Keeper that looks often."""
    monkeypatch.setattr(tail_module, "TAIL_ENTRIES_MAX", 100)
    monkeypatch.setattr(keeper_module, "LOOK_S", 0.05)
    monkeypatch.setattr(keeper_module, "LOOK_BUSY_S", 0.02)
    monkeypatch.setattr(keeper_module, "SEAL_AGE_S", 0.05)


def notes(first: int, count: int, arrival_us: int | None = None) -> list[Reading]:
    """Entries of half a kilobyte that do not compress, from three machines."""
    chance, at = random.Random(first), now_us() if arrival_us is None else arrival_us
    return [
        Reading(TOPIC.format(i % 3), chance.randbytes(250).hex(), 192, i, i, at, "mqtt:scada")
        for i in range(first, first + count)
    ]


async def gaps_of(buffer: Buffer) -> list[Gap]:
    batch = await buffer.read(Stream.EVENTS, 0, 100_000)
    return [Gap.from_entry(entry) for entry in batch.entries if entry.origin == GAP_ORIGIN]


async def dropped_some(buffer: Buffer) -> None:
    while not await gaps_of(buffer):  # noqa: ASYNC110 - a gap has no event
        await asyncio.sleep(0.02)


async def numbers_left(buffer: Buffer) -> list[int]:
    seen: list[int] = []
    after = 0
    while after < buffer.last():
        batch = await buffer.read(Stream.READINGS, after, 1_000)
        seen += range(batch.first, batch.last + 1)
        after = batch.last if batch.entries else buffer.last()
    return seen


async def assert_gaps_explain(buffer: Buffer) -> list[Gap]:
    """Each number is in the log or in exactly one gap."""
    gaps, left = await gaps_of(buffer), await numbers_left(buffer)
    while gaps != (gaps_since := await gaps_of(buffer)):  # The Keeper dropped more while we looked.
        gaps, left = gaps_since, await numbers_left(buffer)
    dropped = [seq for gap in gaps for seq in range(gap.first, gap.last + 1) if gap.stream is Stream.READINGS]
    assert sorted(left + dropped) == list(range(1, buffer.last() + 1))
    return gaps


def files_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("b.db*"))


async def fill(buffer: Buffer, count: int, folder: Path) -> int:
    """Append and give the largest size the files ever had."""
    largest = 0
    for first in range(buffer.last() + 1, buffer.last() + count, 500):
        await buffer.append(notes(first, 500))
        largest = max(largest, files_bytes(folder))
        await asyncio.sleep(0.01)  # Producers of a plant pause too.
    return largest


async def idle(buffer: Buffer) -> None:
    """Wait until the Keeper has sealed all and has nothing more to drop."""
    async with asyncio.timeout(10):
        while True:
            room, dropped = await buffer._store.room(), buffer.keeper.dropped_entries
            is_sealed = buffer.keeper.sealed_to[Stream.READINGS] == buffer.last()
            if is_sealed and not buffer.keeper._bounds.excess(room)[0]:
                await asyncio.sleep(0.1)
                if dropped == buffer.keeper.dropped_entries:
                    return
            await asyncio.sleep(0.02)


async def stays_full(buffer: Buffer) -> bool:
    """Whether producers wait, and no sealing can make room any more."""
    is_sealed = buffer.keeper.sealed_to[Stream.READINGS] == buffer.last()
    return buffer.keeper.is_full and is_sealed and buffer.keeper._is_tight(await buffer._store.room())


async def test_the_file_stays_under_its_bound_and_the_oldest_goes(tmp_path: Path) -> None:
    """Many times the bound is written; the file never exceeds it, and the gaps name what left, with its topics."""
    bounds = Bounds(size_max_bytes=SIZE_MAX, free_min_bytes=0)
    async with Buffer.open(tmp_path / "b.db", "northfield", bounds) as buffer:
        largest = await fill(buffer, 40_000, tmp_path)
        assert largest <= SIZE_MAX
        await idle(buffer)
        gaps = await assert_gaps_explain(buffer)
        assert {gap.reason for gap in gaps} == {GapReason.SIZE}
        assert (gaps[0].first, gaps[0].topic_count) == (1, 3)
        assert gaps[0].topics[0].startswith("acme/northfield/utilities")
        entry = (await buffer.read(Stream.EVENTS, 0, 1)).entries[0]
        assert Topic.parse(entry.topic).tag == "_gap"


async def test_thinning_keeps_every_second_block_of_the_older_half(tmp_path: Path) -> None:
    """With the policy `thin` the oldest block stays while its neighbour goes."""
    bounds = Bounds(size_max_bytes=SIZE_MAX, free_min_bytes=0, policy=Policy.THIN)
    async with Buffer.open(tmp_path / "b.db", "northfield", bounds) as buffer:
        await fill(buffer, 20_000, tmp_path)
        await idle(buffer)
        gaps = await assert_gaps_explain(buffer)
        assert gaps[0].first > 1
        assert gaps[1].first > gaps[0].last + 1


async def test_reject_makes_producers_wait_until_followers_have_caught_up(tmp_path: Path) -> None:
    """Nothing that a follower still needs is dropped: append waits, and goes on when it has been taken."""
    bounds = Bounds(size_max_bytes=SIZE_MAX, free_min_bytes=0, policy=Policy.REJECT)
    async with Buffer.open(tmp_path / "b.db", "northfield", bounds) as buffer, asyncio.TaskGroup() as group:

        async def produce() -> None:
            while True:
                await buffer.append(notes(buffer.last() + 1, 500))
                await asyncio.sleep(0.01)

        cursor = await buffer.cursor("bridge")
        await cursor.advance(0)
        producer = group.create_task(produce())
        for _ in range(2_000):
            if await stays_full(buffer):
                break
            await asyncio.sleep(0.02)
        full_at = buffer.last()
        await asyncio.sleep(0.1)
        assert len(await numbers_left(buffer)) == buffer.last() == full_at
        await buffer.append(notes(1, 1), Stream.EVENTS)
        await cursor.advance(full_at)
        await asyncio.wait_for(buffer.grown(Stream.READINGS, full_at), 10)
        producer.cancel()
        await cursor.advance(buffer.last())
        await idle(buffer)
        assert all(gap.unread == 0 for gap in await assert_gaps_explain(buffer))


async def test_a_follower_that_is_no_more_does_not_block_producers_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A cursor that nobody has opened for a day of running counts no more; who comes back counts at once."""
    bounds, path = Bounds(size_max_bytes=SIZE_MAX, free_min_bytes=0, policy=Policy.REJECT), tmp_path / "b.db"
    async with Buffer.open(path, "northfield") as buffer:
        await (await buffer.cursor("renamed-since")).advance(0)
    async with Buffer.open(path, "northfield", bounds) as buffer, asyncio.TaskGroup() as group:

        async def follow_and_produce() -> None:
            cursor = await buffer.cursor("bridge")
            while True:
                await buffer.append(notes(buffer.last() + 1, 500))
                await cursor.advance(buffer.last())
                await asyncio.sleep(0.01)

        producer = group.create_task(follow_and_produce())
        deadline = monotonic() + 60
        while not await stays_full(buffer):
            assert monotonic() < deadline
            await asyncio.sleep(0.02)
        full_at = buffer.last()
        assert buffer.keeper.followers.forsaken[Stream.READINGS] == {}
        monkeypatch.setattr(followers_module, "FORSAKEN_S", 0.0)
        await asyncio.wait_for(buffer.grown(Stream.READINGS, full_at + 5_000), 60)
        assert buffer.keeper.followers.forsaken[Stream.READINGS].keys() == {"renamed-since"}
        assert caplog.text.count("nobody has followed renamed-since of readings") == 1
        await buffer.cursor("renamed-since")
        while not await stays_full(buffer):
            assert monotonic() < deadline
            await asyncio.sleep(0.02)
        producer.cancel()
        assert buffer.keeper.followers.forsaken[Stream.READINGS] == {}
        await assert_gaps_explain(buffer)


async def test_what_is_too_old_leaves_sent_or_not(tmp_path: Path) -> None:
    """Age is counted from the arrival; a follower that never comes for it finds itself behind the gap."""
    bounds = Bounds(age_max_s=2.0, free_min_bytes=0)
    async with Buffer.open(tmp_path / "b.db", "northfield", bounds) as buffer:
        cursor = await buffer.cursor("bridge")
        await buffer.append(notes(1, 1_500, now_us() - 7_200_000_000))
        await idle(buffer)
        assert await gaps_of(buffer) == []
        await buffer.append(notes(1_501, 500, now_us() + 3_600_000_000))
        await dropped_some(buffer)
        (gap,) = await assert_gaps_explain(buffer)
        assert (gap.reason, gap.first, gap.last, gap.unread) == (GapReason.AGE, 1, 1_500, 1_500)
        assert (await cursor.batch()).first == 1_501


async def test_a_start_with_a_clock_that_is_a_year_ahead_costs_nothing_that_was_not_sent(tmp_path: Path) -> None:
    """The log is a year old by the clock, half of it was taken: that half may leave, the other half stays."""
    bounds, year_us = Bounds(age_max_s=3_600, free_min_bytes=0), 365 * 86_400_000_000
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        await buffer.append(notes(1, 3_000, now_us() - year_us))
        cursor = await buffer.cursor("bridge")
        await idle(buffer)
        half = (await cursor.batch(1_500)).last
        await cursor.advance(half)
    async with Buffer.open(tmp_path / "b.db", "northfield", bounds) as buffer:
        await dropped_some(buffer)
        await idle(buffer)
        assert all((gap.reason, gap.unread) == (GapReason.AGE, 0) for gap in await assert_gaps_explain(buffer))
        left = await numbers_left(buffer)
        assert set(range(half + 1, 3_001)) <= set(left) < set(range(1, 3_001))


def test_the_age_of_what_is_here_is_told_by_a_steady_clock() -> None:
    """Looked at every second for three ages, while ten entries come each second: never too soon, hardly too late."""
    seen, age_s = Seen(100.0, 0.0, 50), 100
    for at_s in range(1, 3 * age_s):
        old_to = seen.sample(float(at_s), 50 + 10 * at_s)
        assert 50 + 10 * (at_s - age_s - 2) <= old_to <= 50 + 10 * (at_s - age_s) or (at_s < age_s and old_to == 0)


async def test_a_disk_without_its_free_space_shrinks_the_log_to_its_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When others fill the disk, blocks leave and their pages go back to the file system, down to a floor."""
    monkeypatch.setattr(retention, "KEPT_BYTES_MIN", 1_500_000)
    path = tmp_path / "b.db"
    async with Buffer.open(path, "northfield", Bounds(free_min_bytes=0)) as buffer:
        await fill(buffer, 12_000, tmp_path)
        await idle(buffer)
    before = path.stat().st_size
    async with Buffer.open(path, "northfield", Bounds(free_min_bytes=2**60)) as buffer:
        for _ in range(500):
            if (await buffer._store.room()).used_bytes <= 1_700_000:
                break
            await asyncio.sleep(0.02)
        gaps = await assert_gaps_explain(buffer)
        assert {gap.reason for gap in gaps} == {GapReason.DISK}
        assert len(await numbers_left(buffer)) > 0
    assert path.stat().st_size < before / 2


async def test_a_full_disk_drops_the_oldest_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite finds no room: the reserve is given up, old blocks leave with their gap, and the append goes through."""
    async with Buffer.open(tmp_path / "b.db", "northfield", Bounds(free_min_bytes=0)) as buffer:
        await fill(buffer, 10_000, tmp_path)
        await idle(buffer)
        assert buffer.keeper.reserve.is_there
        writer = buffer._store._writer
        async with writer.execute("PRAGMA page_count") as rows:
            (pages,) = await rows.fetchone() or (0,)
        await writer.execute(f"PRAGMA max_page_count={pages}")
        async with asyncio.timeout(20):
            await fill(buffer, 5_000, tmp_path)
        assert "the reserve is given up" in caplog.text
        assert {gap.reason for gap in await assert_gaps_explain(buffer)} == {GapReason.DISK}


def block(first: int, size: int = 10) -> Block:
    return Block(first, 5, size, first, first + 4)


def test_choosing_blocks() -> None:
    """Oldest first up to the bytes; thinned ones have neighbours; neighbours make one gap."""
    blocks = [block(first) for first in (1, 6, 11, 16, 31, 36)]
    assert [b.first for b in oldest(blocks, 25)] == [1, 6, 11]
    assert [b.first for b in every_second(blocks, 100)] == [6, 16, 36]
    assert [[b.first for b in group] for group in stretches(blocks)] == [[1, 6, 11, 16], [31, 36]]


def test_days_to_full() -> None:
    """The rate of the last hour, drops counted in, over what is left to the nearer bound."""
    growth, bounds = Growth(), Bounds(size_max_bytes=WAL_BYTES + 10_000_000, free_min_bytes=0)
    room = Room(used_bytes=1_000_000, spare_bytes=0, disk_free_bytes=10**12)
    assert growth.days_to_full(room, bounds) is None
    growth.sample(0.0, 500_000)
    growth.dropped(400_000)
    growth.sample(864.0, 1_000_000)
    assert growth.days_to_full(room, bounds) == pytest.approx((bounds.used_max_bytes - 1_000_000) / 900_000 * 0.01)
