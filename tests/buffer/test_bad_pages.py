"""Bytes flip while the appliance runs: what they held is set apart or salvaged and told, and the plant goes on."""

import asyncio
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from appliance.buffer import keeper as keeper_module
from appliance.buffer import tail as tail_module
from appliance.buffer.buffer import Buffer
from appliance.buffer.damage import DAMAGED, RENEWALS_MAX, LogDamaged, again_when_damaged, suspicion
from appliance.contract.gap import GAP_ORIGIN, Gap, GapReason
from appliance.contract.prediction import ALARM_ORIGIN, Alarm
from appliance.contract.reading import Reading, Stream

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/note"
PAGE = 4_096


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "TAIL_ENTRIES_MAX", 100)
    monkeypatch.setattr(keeper_module, "LOOK_S", 0.05)
    monkeypatch.setattr(keeper_module, "SEAL_AGE_S", 0.05)


def reading(number: int) -> Reading:
    return Reading(TOPIC, random.Random(number).randbytes(250).hex(), 192, number, number, number, "opcua:plant")


async def until(is_so: Callable[[], bool]) -> None:
    deadline = monotonic() + 20
    while not is_so():
        assert monotonic() < deadline
        await asyncio.sleep(0.01)


async def filled(buffer: Buffer, count: int) -> None:
    """Append, and wait until all is sealed."""
    for first in range(1, count + 1, 500):
        await buffer.append([reading(i) for i in range(first, first + 500)])
    await until(lambda: buffer.keeper.sealed_to[Stream.READINGS] >= count)


async def numbers(buffer: Buffer) -> set[int]:
    """What can be read; the source time of an entry is the number it had at first."""
    seen, after = set[int](), 0
    while after < buffer.last():
        batch = await buffer.read(Stream.READINGS, after, 1_000)
        seen |= {entry.source_us for entry in batch.entries}
        after = batch.last if batch.entries else buffer.last()
    return seen


async def told(buffer: Buffer) -> tuple[set[int], list[Alarm]]:
    """The numbers that gaps call damaged, and the alarms of it."""
    entries = (await buffer.read(Stream.EVENTS, 0, 10_000)).entries
    gaps = [Gap.from_entry(entry) for entry in entries if entry.origin == GAP_ORIGIN]
    lost = {
        number
        for gap in gaps
        if gap.reason is GapReason.DAMAGED and gap.stream is Stream.READINGS
        for number in range(gap.first, gap.last + 1)
    }
    alarms = [Alarm.from_entry(entry) for entry in entries if entry.origin == ALARM_ORIGIN]
    return lost, [alarm for alarm in alarms if alarm.key == DAMAGED]


async def test_a_block_whose_checksum_fails_is_set_apart_once(tmp_path: Path) -> None:
    """Its numbers become a gap, its bytes a file, people are told; followers go on behind it, at once and later."""
    path = tmp_path / "buffer.db"
    async with Buffer.open(path, "northfield") as buffer:
        await filled(buffer, 3_000)
        with closing(sqlite3.connect(path)) as db, db:
            rows = db.execute("SELECT first, count, body FROM block_readings ORDER BY first").fetchall()
            first, count, body = rows[2]
            flipped = bytearray(body)
            flipped[len(body) // 2] ^= 0x10
            db.execute("UPDATE block_readings SET body = ? WHERE first = ?", (bytes(flipped), first))
        cursor = await buffer.cursor("bridge")
        await cursor.advance(first - 1)
        assert (await cursor.batch()).first == first + count
        await until(lambda: not buffer._store.damaged)
        for _ in range(2):
            left = await numbers(buffer)
            lost, alarms = await told(buffer)
            assert lost == set(range(first, first + count))
            assert left == set(range(1, 3_001)) - lost
            assert len(alarms) == 1
        assert alarms[0].value == count
        (kept,) = (tmp_path / "quarantine").iterdir()
        assert kept.read_bytes() == bytes(flipped)
        epoch = buffer.epoch
    async with Buffer.open(path, "northfield") as buffer:
        assert buffer.epoch == epoch
        assert await numbers(buffer) == left


async def test_what_reads_well_the_second_time_stays(tmp_path: Path) -> None:
    """A block is not given up for a fault that was not the file's."""
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await filled(buffer, 1_000)
        buffer._store.damaged.add((Stream.READINGS, 1))
        await until(lambda: not buffer._store.damaged)
        assert len(await numbers(buffer)) == 1_000
        assert await told(buffer) == (set(), [])


def flip_pages(path: Path, seed: int) -> None:
    """Overwrite pages of the file that is in use, all but the first few, some of them inner ones of its trees."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    chance = random.Random(seed)
    with path.open("r+b") as file:
        pages = path.stat().st_size // PAGE
        for page in chance.sample(range(12, pages), pages // 2):
            file.seek(page * PAGE)
            file.write(chance.randbytes(PAGE))


@pytest.mark.parametrize("seed", range(3))
async def test_a_page_that_turns_bad_ends_the_run_and_the_next_one_salvages(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading, or writing, finds the trees torn: the run ends with what to do, and the next one goes on."""
    monkeypatch.setattr("appliance.buffer.renewal.WHOLE_CHECK_BYTES_MAX", 0)
    path = tmp_path / "buffer.db"
    with pytest.raises(ExceptionGroup) as raised:
        async with Buffer.open(path, "northfield") as buffer:
            epoch = buffer.epoch
            await filled(buffer, 20_000)
            flip_pages(path, seed)
            while True:
                await numbers(buffer)
                await buffer.append([reading(i) for i in range(buffer.last() + 1, buffer.last() + 501)])
    assert raised.group_contains(LogDamaged)
    assert suspicion(path).exists()
    async with Buffer.open(path, "northfield") as buffer:
        assert buffer.epoch > epoch
        assert not suspicion(path).exists()
        lost, alarms = await told(buffer)
        left = await numbers(buffer)
        assert len(alarms) == 1
        assert lost and lost.isdisjoint(left)
        assert lost | left >= set(range(1, 20_001))


def test_the_process_starts_anew_for_a_damaged_log_but_not_for_ever() -> None:
    """A few times, as a salvage mends it; then the disk is failing, and who started the process must hear of it."""
    runs: list[int] = []

    def ending(times: int) -> Callable[[], None]:
        def run() -> None:
            runs.append(1)
            if len(runs) <= times:
                raise ExceptionGroup("parts", [LogDamaged("bad page")])

        return run

    again_when_damaged(ending(RENEWALS_MAX))
    assert len(runs) == RENEWALS_MAX + 1
    runs.clear()
    with pytest.raises(ExceptionGroup):
        again_when_damaged(ending(RENEWALS_MAX + 1))
    assert len(runs) == RENEWALS_MAX + 1
