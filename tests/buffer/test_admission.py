"""Branches of the namespace give way at the door while the log is tight: thinned or waiting, and each one counted."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

import pytest

from appliance.buffer import keeper as keeper_module
from appliance.buffer.admission import CURSOR, EASY, TELL_S, TIGHT, Admission
from appliance.buffer.buffer import Buffer
from appliance.buffer.retention import Bounds, Branch, Policy
from appliance.buffer.schema import WAL_BYTES
from appliance.buffer.store import Room
from appliance.contract.gap import GAP_ORIGIN, Gap, GapReason
from appliance.contract.reading import Reading, Stream, Value

ROOT = "acme/northfield"
THINNED, WAITING, FREE = (f"{ROOT}/{area}/boiler-house/feed/pmp-204/t" for area in ("utilities", "office", "presses"))
BRANCHES = (Branch(f"{ROOT}/utilities", Policy.THIN), Branch(f"{ROOT}/office", Policy.REJECT))
KILLS = 8
SIZE_MAX = WAL_BYTES + 4_000_000


def reading(topic: str, value: Value, at_us: int = 1) -> Reading:
    return Reading(topic, value, 192, at_us, at_us, at_us, "test")


def pad(count: int) -> list[Reading]:
    """Half a kilobyte each that does not compress, of a branch that never gives way."""
    return [reading(FREE, random.Random(i).randbytes(250).hex()) for i in range(count)]


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    deadline = monotonic() + 30
    while not await is_so():
        assert monotonic() < deadline
        await asyncio.sleep(0.01)


async def thinned_by_gaps(buffer: Buffer) -> int:
    entries = (await buffer.read(Stream.EVENTS, 0, 100_000)).entries
    gaps = [Gap.from_entry(entry) for entry in entries if entry.origin == GAP_ORIGIN]
    return sum(gap.count for gap in gaps if gap.reason is GapReason.THINNED)


def test_every_second_number_comes_in_and_all_that_is_news() -> None:
    """Each topic for itself; texts, switches and other branches are not thinned; nothing is while there is room."""
    door = Admission(BRANCHES, "")
    numbers = [reading(topic, float(i)) for i in range(6) for topic in (THINNED, f"{THINNED}2", FREE)]
    assert door.let_in(numbers) is numbers
    door.see(TIGHT + 0.01)
    kept = door.let_in(numbers)
    assert [entry.value for entry in kept if entry.topic == THINNED] == [0.0, 2.0, 4.0]
    assert [entry.value for entry in kept if entry.topic == f"{THINNED}2"] == [0.0, 2.0, 4.0]
    assert [entry.value for entry in kept if entry.topic == FREE] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    news = [reading(THINNED, value) for value in (True, False, "on", "off", None, None)]
    assert door.let_in(news) is news
    sibling = [reading(f"{ROOT}/utilities-2/a/b/c/t", 1.0)] * 2
    assert door.let_in(sibling) is sibling
    one_tag = Admission([Branch(THINNED, Policy.THIN)], "")
    one_tag.see(1.0)
    assert len(one_tag.let_in(numbers)) == len(numbers) - 3
    assert door.must_wait([reading(FREE, 1.0), reading(WAITING, 1.0)])
    assert not door.must_wait(numbers)
    door.see(EASY + 0.01)
    assert door.is_tight
    door.see(EASY - 0.01)
    assert not door.must_wait([reading(WAITING, 1.0)])


def test_the_count_survives_a_restart_and_is_told_once_a_minute() -> None:
    """What was counted and not yet told is in the state; a gap takes all of it."""
    door = Admission(BRANCHES, "")
    door.see(1.0)
    door.let_in([reading(THINNED, float(i), 10 + i) for i in range(5)])
    door = Admission(BRANCHES, door.state())
    door.see(1.0)
    door.let_in([reading(THINNED, float(i), 20 + i) for i in range(4)])
    assert door.due(100.0) is None
    gap = door.due(100.0 + TELL_S)
    assert gap is not None
    assert (gap.epoch, gap.first, gap.last, gap.count, gap.topics) == (0, 0, -1, 4, (THINNED,))
    assert (gap.from_us, gap.to_us) == (11, 23)
    assert door.due(200.0) is None


def test_tight_is_what_is_not_sent_beside_what_the_log_could_take() -> None:
    """A log that is full of what the cloud has is not tight; a disk that has no more room makes it so sooner."""
    bounds = Bounds(size_max_bytes=WAL_BYTES + 1_000_000, free_min_bytes=100)
    roomy = Room(used_bytes=900_000, spare_bytes=0, disk_free_bytes=10**9)
    assert bounds.tightness(roomy, 0.1) < 0.1
    assert bounds.tightness(roomy, 1.0) > TIGHT
    assert bounds.tightness(Room(300_000, 0, 100_100), 1.0) == pytest.approx(0.75)
    assert bounds.tightness(Room(300_000, 0, 0), 1.0) > 1


async def test_branches_give_way_while_the_log_is_tight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is thinned, one waits, the rest goes on; each reading that came is in the log or in a gap's count."""
    monkeypatch.setattr(keeper_module, "LOOK_S", 0.02)
    monkeypatch.setattr(keeper_module, "LOOK_BUSY_S", 0.01)
    monkeypatch.setattr(keeper_module, "SEAL_AGE_S", 0.02)
    bounds = Bounds(size_max_bytes=SIZE_MAX, free_min_bytes=0, branches=BRANCHES)
    async with Buffer.open(tmp_path / "b.db", "northfield", bounds) as buffer, asyncio.TaskGroup() as group:
        cursor = await buffer.cursor("bridge")
        await cursor.advance(0)
        produced = 0

        async def is_tight() -> bool:
            nonlocal produced
            await buffer.append(pad(500))
            produced += 500
            return buffer.admission.is_tight

        await until(is_tight)
        waiting = group.create_task(buffer.append([reading(WAITING, 1.0)]))
        for batch in range(10):
            await buffer.append([reading(THINNED, float(i), batch) for i in range(101)])
            produced += 101
        assert buffer.last() == produced - 10 * 101 + 505
        assert not waiting.done()

        async def is_easy() -> bool:
            await cursor.advance(buffer.last())
            return not buffer.admission.is_tight and waiting.done()

        await until(is_easy)
        produced += 1
        await buffer.append([reading(THINNED, float(i)) for i in range(10)])
        produced += 10

        async def is_told() -> bool:
            return await thinned_by_gaps(buffer) == 505

        await until(is_told)
        assert buffer.last() + 505 == produced
        assert (await buffer.cursor(CURSOR, Stream.EVENTS)).state == Admission(BRANCHES, "").state()


CHILD = """
import asyncio, random, sys
from pathlib import Path
from appliance.buffer import admission, keeper
from appliance.buffer.buffer import Buffer
from appliance.buffer.retention import Bounds, Branch, Policy
from appliance.buffer.schema import WAL_BYTES
from appliance.contract.reading import Reading
keeper.SEAL_AGE_S, keeper.LOOK_S, keeper.LOOK_BUSY_S, admission.TELL_S = 0.02, 0.02, 0.01, 0.02
async def main():
    branches = (Branch("acme/n/a", Policy.THIN),)
    bounds = Bounds(size_max_bytes=WAL_BYTES + 1_500_000, free_min_bytes=0, branches=branches)
    async with Buffer.open(Path(sys.argv[1]), "northfield", bounds) as log:
        await (await log.cursor("bridge")).advance(0)
        while True:
            text = random.randbytes(20_000).hex()
            await log.append([Reading("acme/n/b/l/c/e/t", text[i:i + 800], 192, 0, 0, 0, "o") for i in range(50)])
            await log.append([Reading("acme/n/a/l/c/e/t", float(i), 192, 0, 0, 0, "o") for i in range(150)])
            print(log.admission.thinned_entries, flush=True)
asyncio.run(main())
"""


async def test_kills_while_thinning_lose_no_count(tmp_path: Path) -> None:
    """What was answered is in the log, in the numbers of a gap, or in a count: never less, whatever instant is hit."""
    path, chance, answered = tmp_path / "b.db", random.Random(11), 0
    for _ in range(KILLS):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout
        while not int(child.stdout.readline()):  # Until it is tight, and then for a while.
            answered += 200
        answered += 200
        for _ in range(chance.randrange(30)):
            assert child.stdout.readline()
            answered += 200
        os.kill(child.pid, signal.SIGKILL)
        answered += sum(200 for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n"))
        child.stdout.close()
        child.wait()
    async with Buffer.open(path, "northfield") as buffer:

        async def is_told() -> bool:
            return (await buffer.cursor(CURSOR, Stream.EVENTS)).state == Admission((), "").state()

        await until(is_told)
        thinned = await thinned_by_gaps(buffer)
        assert thinned > 0, "nothing was thinned"
        # Numbers are given without holes, so `last` counts what is there and what left with a gap.
        assert answered <= buffer.last() + thinned <= answered + KILLS * 200
