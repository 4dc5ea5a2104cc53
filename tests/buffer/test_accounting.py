"""The account of the log: whatever happens to it, what was produced is in it or counted by a gap."""

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from appliance.buffer import admission as admission_module
from appliance.buffer import keeper as keeper_module
from appliance.buffer import tail as tail_module
from appliance.buffer.buffer import Buffer
from appliance.buffer.renewal import renew
from appliance.buffer.retention import Bounds, Branch, Policy
from appliance.buffer.schema import WAL_BYTES
from appliance.contract.gap import GAP_ORIGIN, Gap, GapReason
from appliance.contract.reading import Reading, Stream

THINNED = "acme/northfield/utilities/boiler-house/feed/pmp-204/flow"
FREE = "acme/northfield/presses/hall/line/prs-1/note"
LOST = frozenset(
    (GapReason.SIZE, GapReason.AGE, GapReason.DISK, GapReason.DAMAGED, GapReason.THINNED),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "TAIL_ENTRIES_MAX", 100)
    for module, name, value in (
        (keeper_module, "LOOK_S", 0.03),
        (keeper_module, "LOOK_BUSY_S", 0.01),
        (keeper_module, "SEAL_AGE_S", 0.02),
        (admission_module, "TELL_S", 0.05),
    ):
        monkeypatch.setattr(module, name, value)


def readings(chance: random.Random, count: int) -> list[Reading]:
    """Numbers of a branch that is thinned, and texts of half a kilobyte that do not compress."""
    is_number = [chance.random() < 0.3 for _ in range(count)]
    said = [(THINNED, chance.random()) if numeric else (FREE, chance.randbytes(250).hex()) for numeric in is_number]
    return [Reading(topic, value, 192, 0, 0, 0, "test") for topic, value in said]


async def filled(buffer: Buffer, chance: random.Random) -> int:
    """Append until blocks have left for room; gives how many readings that took."""
    count, deadline = 0, monotonic() + 30
    while not (buffer.keeper.dropped_entries and buffer.admission.thinned_entries):
        assert monotonic() < deadline
        batch = readings(chance, 300)
        await buffer.append(batch)
        count += len(batch)
    return count


async def in_log(buffer: Buffer) -> int:
    count = after = 0
    while after < buffer.last():
        batch = await buffer.read(Stream.READINGS, after, 1_000)
        count += len(batch.entries)
        after = batch.last if batch.entries else buffer.last()
    return count


async def lost(buffer: Buffer) -> dict[GapReason, int]:
    """How many readings of any epoch the gaps count as lost, by reason."""
    counts = dict.fromkeys(GapReason, 0)
    for entry in (await buffer.read(Stream.EVENTS, 0, 100_000)).entries:
        if entry.origin == GAP_ORIGIN and (gap := Gap.from_entry(entry)).stream is Stream.READINGS:
            counts[gap.reason] += gap.count if gap.reason in LOST else 0
    return counts


async def account(buffer: Buffer, produced: int) -> dict[GapReason, int]:
    """Wait until the Keeper is calm and the account is right, as both are read while it works; gives the losses."""
    deadline = monotonic() + 20
    while True:
        there, counts = await in_log(buffer), await lost(buffer)
        if there + sum(counts.values()) == produced:
            return counts
        assert monotonic() < deadline, f"{there} there, {counts} lost, {produced} produced"
        await asyncio.sleep(0.1)


def corrupt(path: Path, chance: random.Random) -> None:
    """Flip bytes in one of the blocks, whichever."""
    with closing(sqlite3.connect(path)) as db, db:
        firsts = [first for (first,) in db.execute("SELECT first FROM block_readings")]
        if firsts:
            db.execute("UPDATE block_readings SET body = x'00' WHERE first = ?", (chance.choice(firsts),))


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_in_the_log_and_what_gaps_count_is_what_was_produced(tmp_path: Path, seed: int) -> None:
    """Appends, drops, thinning, damage, restarts and salvages in random order; the account is right after each run."""
    path, chance, produced = tmp_path / "b.db", random.Random(seed), 0
    branches = (Branch("acme/northfield/utilities", Policy.THIN),)
    for run in range(5):
        policy = chance.choice((Policy.DROP_OLDEST, Policy.THIN))
        bounds = Bounds(size_max_bytes=WAL_BYTES + 1_500_000, free_min_bytes=0, policy=policy, branches=branches)
        async with Buffer.open(path, "northfield", bounds) as buffer:
            cursor = await buffer.cursor("bridge")
            await cursor.advance(cursor.seq)
            if run == 0:  # At least once it is full to its bound.
                produced += await filled(buffer, chance)
            for _ in range(chance.randrange(10, 40)):
                batch = readings(chance, chance.randrange(1, 400))
                await buffer.append(batch)
                produced += len(batch)
                if chance.random() < 0.1:
                    await cursor.advance(chance.randrange(cursor.seq, buffer.last() + 1))
                if chance.random() < 0.1:
                    await asyncio.to_thread(corrupt, path, chance)
                await asyncio.sleep(0.02 * chance.random())
            await account(buffer, produced)
        if chance.random() < 0.5:
            await asyncio.to_thread(corrupt, path, chance)
            await renew(path, "northfield", "acme")
    async with Buffer.open(path, "northfield") as buffer:
        counts = await account(buffer, produced)
        assert counts[GapReason.DAMAGED] > 0 and counts[GapReason.SIZE] > 0 and counts[GapReason.THINNED] > 0
