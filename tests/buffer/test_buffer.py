"""The Buffer: what append has answered stands in the file, once, in order, whatever happens."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.buffer import tail as tail_module
from appliance.buffer import writer as writer_module
from appliance.buffer.buffer import Buffer
from appliance.buffer.store import Store, StoreError
from appliance.contract.reading import Reading, Stream

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"


def reading(number: int, topic: str = TOPIC) -> Reading:
    return Reading(topic, float(number), 192, number, number, number, "opcua:plant")


async def test_entries_stand_in_order_with_contiguous_numbers(tmp_path: Path) -> None:
    """Each stream counts from 1, and a follower sees what was appended, in order."""
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        assert await buffer.append([reading(i) for i in range(1, 4)]) == 1
        assert await buffer.append([reading(4)]) == 4
        assert await buffer.append([reading(1)], Stream.EVENTS) == 1
        batch = await (await buffer.cursor("page")).batch()
        assert (batch.first, batch.last, buffer.last(), buffer.last(Stream.EVENTS)) == (1, 4, 4, 1)
        assert [entry.source_us for entry in batch.entries] == [1, 2, 3, 4]


async def test_many_appends_share_transactions(tmp_path: Path) -> None:
    """Callers at the same time get ranges of their own, in far fewer commits than calls."""
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        firsts = await asyncio.gather(*(buffer.append([reading(i), reading(i)]) for i in range(200)))
        assert sorted(firsts) == list(range(1, 401, 2))
        assert buffer.commits < 20
        batch = await buffer.read(Stream.READINGS, 0, 1000)
        assert [entry.source_us for entry in batch.entries] == [i for i in range(200) for _ in range(2)]


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Entries, numbers, epoch, cursors with their state and the latest times outlive the process."""
    path = tmp_path / "b.db"
    async with Buffer.open(path, "northfield") as buffer:
        await buffer.append([reading(i) for i in range(2_500)])
        cursor = await buffer.cursor("bridge")
        await cursor.advance(1_234, '{"half": true}')
        await cursor.advance(1_235)
        epoch = buffer.epoch
    async with Buffer.open(path, "northfield") as buffer:
        cursor = await buffer.cursor("bridge")
        assert (buffer.epoch, buffer.last(), cursor.seq, cursor.state) == (epoch, 2_500, 1_235, '{"half": true}')
        batch = await cursor.batch(limit=10)
        assert (batch.first, [e.source_us for e in batch.entries]) == (1_236, list(range(1_235, 1_245)))
        assert await buffer.append([reading(1)]) == 2_501
        assert await buffer.latest() == {TOPIC: 2_499}


async def test_numbers_never_go_back_when_the_log_is_emptied(tmp_path: Path) -> None:
    """Retention may take every entry away; the next one still gets a new number."""
    path = tmp_path / "b.db"
    async with Buffer.open(path, "northfield") as buffer:
        await buffer.append([reading(i) for i in range(10)])
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM chunk_readings")
    async with Buffer.open(path, "northfield") as buffer:
        assert await buffer.append([reading(11)]) == 11


async def test_a_new_store_has_a_higher_epoch(tmp_path: Path) -> None:
    """A store made anew is never taken for the one before, even when all files are gone."""
    epochs = []
    for name in ("a.db", "b.db"):
        async with Buffer.open(tmp_path / name, "northfield") as buffer:
            epochs.append(buffer.epoch)
    assert epochs[1] > epochs[0]


async def test_a_move_and_an_append_stand_or_fall_together(tmp_path: Path) -> None:
    """A follower's output and its place in the log are one transaction."""
    path = tmp_path / "b.db"
    async with Buffer.open(path, "northfield") as buffer:
        await buffer.append([reading(i) for i in range(5)])
        cursor = await buffer.cursor("predictor")
        await buffer.append([reading(1)], Stream.EVENTS, [cursor.moved(5, "state")])
    async with Buffer.open(path, "northfield") as buffer:
        cursor = await buffer.cursor("predictor")
        assert (cursor.seq, cursor.state, buffer.last(Stream.EVENTS)) == (5, "state", 1)


async def test_followers_read_from_memory_and_from_the_file_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower far behind the bounded tail gets the very same entries from the file."""
    monkeypatch.setattr(tail_module, "TAIL_ENTRIES_MAX", 100)
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        for start in range(0, 3_000, 300):
            await buffer.append([reading(i) for i in range(start, start + 300)])
        cursor = await buffer.cursor("late")
        seen: list[int] = []
        while cursor.behind:
            batch = await cursor.batch(limit=random.Random(7).randint(1, 170))
            assert batch.first == cursor.seq + 1
            seen += [entry.source_us for entry in batch.entries]
            cursor.seq = batch.last
        assert seen == list(range(3_000))
        assert (await buffer.read(Stream.READINGS, 3_000, 10)).entries == ()


async def test_a_follower_waits_for_what_is_not_there_yet(tmp_path: Path) -> None:
    """batch() sleeps until the log grows."""
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer, asyncio.TaskGroup() as group:
        cursor = await buffer.cursor("page")
        waiting = group.create_task(cursor.batch())
        await asyncio.sleep(0)
        assert not waiting.done()
        await buffer.append([reading(1)])
        assert (await waiting).entries == (reading(1),)


async def test_a_full_disk_makes_producers_wait_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite says the disk is full: nobody is answered; when there is room again the append goes through."""
    monkeypatch.setattr(writer_module, "RETRY_S", 0.01)
    path = tmp_path / "b.db"
    async with Buffer.open(path, "northfield") as buffer, asyncio.TaskGroup() as group:
        await buffer.append([reading(0)])
        writer = buffer._store._writer
        async with writer.execute("PRAGMA page_count") as rows:
            (pages,) = await rows.fetchone() or (0,)
        await writer.execute(f"PRAGMA max_page_count={pages}")
        text = random.Random(3).randbytes(25_000).hex()
        waiting = group.create_task(buffer.append([reading(1)._replace(value=text)]))
        await _until(lambda: "cannot write" in caplog.text)
        assert not waiting.done()
        await writer.execute("PRAGMA max_page_count=100000")
        assert await waiting == 2
    async with Buffer.open(path, "northfield") as buffer:
        entries = (await buffer.read(Stream.READINGS, 0, 10)).entries
        assert [len(str(entry.value)) for entry in entries] == [3, 50_000]


@pytest.mark.parametrize(
    "bad",
    [
        reading(0)._replace(value=object()),  # type: ignore[arg-type]
        reading(0)._replace(value=2**70),
        reading(0, "acme/n/a/l/c/e/\ud800"),
    ],
)
async def test_an_entry_that_cannot_be_kept_hurts_its_own_caller_only(tmp_path: Path, bad: Reading) -> None:
    """One producer's broken entry comes back to it as an error; what others append at that moment is written."""
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        wishes = [buffer.append([bad if i == 40 else reading(i)]) for i in range(100)]
        results = await asyncio.gather(*wishes, return_exceptions=True)
        assert isinstance(results[40], TypeError | ValueError | OverflowError)
        assert sorted(result for result in results if isinstance(result, int)) == list(range(1, 100))
        assert len((await buffer.read(Stream.READINGS, 0, 1_000)).entries) == 99
        assert await buffer.append([reading(1)]) == 100


async def test_a_cancelled_append_leaves_the_log_whole(tmp_path: Path) -> None:
    """A caller that goes away while its entries are written does not disturb the others."""
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        tasks = [asyncio.ensure_future(buffer.append([reading(i)])) for i in range(50)]
        await asyncio.sleep(0)
        tasks[10].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[10], asyncio.CancelledError)
        assert await buffer.append([reading(99)]) == 51


async def test_another_plants_file_is_refused(tmp_path: Path) -> None:
    """Numbers of two plants never mix."""
    async with Buffer.open(tmp_path / "b.db", "northfield"):
        pass
    with pytest.raises(StoreError, match="belongs to plant 'northfield'"):
        async with Store.open(tmp_path / "b.db", "southfield"):
            pass


CHILD = """
import asyncio, sys
from pathlib import Path
from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Reading
async def main():
    async with Buffer.open(Path(sys.argv[1]), "northfield") as buffer:
        async def produce():
            while True:
                start = buffer.last()
                mine = [Reading("acme/n/a/l/c/e/t", start + i, 192, 0, 0, 0, "o") for i in range(7)]
                first = await buffer.append(mine)
                print(first + 6, flush=True)
        await asyncio.gather(*(produce() for _ in range(5)))
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
async def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    """A process killed at any instant has lost nothing that it had answered, and no number comes twice."""
    path = tmp_path / "b.db"
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        answered = [int(process.stdout.readline()) for _ in range(60)]
        os.kill(process.pid, signal.SIGKILL)
        answered += [int(line) for line in process.stdout.read().splitlines() if line.endswith(tuple("0123456789"))]
        process.stdout.close()
        process.wait()
        async with Buffer.open(path, "northfield") as buffer:
            assert buffer.last() >= max(answered)
            batch = await buffer.read(Stream.READINGS, 0, 10**6)
            assert len(batch.entries) == buffer.last()


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")
