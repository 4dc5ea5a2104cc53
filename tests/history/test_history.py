"""The History: its rollups are exactly those of the log, whatever the order, the kills and the bound."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Reading, Stream, Value
from appliance.contract.rollup import Rollup
from appliance.history import history as history_module
from appliance.history.history import Cells, History
from appliance.history.store import HOUR, MINUTE, Grain, HistoryStore, blocks, merged
from appliance.supervisor import supervise

HOUR_US = HOUR.span_us
TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"
Given = list[tuple[str, int, int]]


def reading(value: Value, at_us: int, topic: str = TOPIC) -> Reading:
    return Reading(topic, value, 192 if at_us % 3 else 64, at_us, at_us, at_us, "opcua:plant")


def naive(entries: list[Reading], topic: str, grain: Grain) -> list[Rollup]:
    """The rollups of a topic, one value after the other."""
    spans: dict[int, Rollup] = {}
    for entry in entries:
        if entry.topic == topic:
            assert isinstance(entry.value, float)
            one, at = Rollup.of(entry.value, entry.source_us, entry.quality >= 192), entry.source_us // grain.span_us
            spans[at] = spans[at].merge(one) if at in spans else one
    return [rollup for _, rollup in sorted(spans.items())]


@asynccontextmanager
async def following(folder: Path, size_max: int = 2_000_000_000) -> AsyncIterator[tuple[Buffer, History, HistoryStore]]:
    async with (
        Buffer.open(folder / "buffer.db", "northfield") as buffer,
        HistoryStore.open(folder / "history.db") as store,
    ):
        history = History(buffer, store, size_max)
        async with supervise() as parts:
            parts.start("history", history.run)
            yield buffer, history, store


async def caught_up(buffer: Buffer, history: History) -> None:
    for _ in range(4_000):
        if not history.status().behind and history.status().size_bytes:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"the history is still {history.status().behind} readings behind")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "FLUSH_S", 0.02)


@given(
    st.lists(st.tuples(st.integers(-1000, 1000), st.integers(0, 3 * HOUR_US)), min_size=1, max_size=80),
    st.integers(1, 20),
)
def test_blocks_merge_to_what_one_by_one_gives(given_values: list[tuple[int, int]], step: int) -> None:
    """In any order of source time and any cut into flushes, the blocks are those of all values at once."""
    entries = [reading(float(value), at_us) for value, at_us in given_values]
    whole = Cells()
    whole.take(entries)
    for grain in (MINUTE, HOUR):
        known: dict[int, bytes] = {}
        for at in range(0, len(entries), step):
            cells = Cells()
            cells.take(entries[at : at + step])
            for _, block, body in blocks(cells.rollups(), grain):
                known[block] = merged(known[block], body) if block in known else body
        assert known == {block: body for _, block, body in blocks(whole.rollups(), grain)}
    assert sorted(whole.rollups().values(), key=lambda each: each.first_us) == naive(entries, TOPIC, MINUTE)


async def test_what_is_read_is_what_the_log_says(tmp_path: Path) -> None:
    """Late and shuffled readings of two topics: minutes and hours are those of the log, after a restart too."""
    chance = random.Random(1)
    entries = [
        reading(
            float(chance.randrange(-99, 99)), chance.randrange(0, 30 * HOUR_US), chance.choice((TOPIC, f"{TOPIC}2"))
        )
        for _ in range(3_000)
    ]
    for part in (entries[:1_700], entries[1_700:]):
        async with following(tmp_path) as (buffer, history, store):
            await buffer.append(part)
            await caught_up(buffer, history)
    async with following(tmp_path) as (buffer, history, store):
        for topic in (TOPIC, f"{TOPIC}2"):
            for grain in (MINUTE, HOUR):
                assert await store.rollups(topic, 0, 30 * HOUR_US, grain, 1) == naive(entries, topic, grain)
        coarse, span_us = await history.rollups(TOPIC, 0, 30 * HOUR_US, 5)
        assert span_us == HOUR_US
        assert sum(each.count for each in coarse) == sum(entry.topic == TOPIC for entry in entries)
        assert await history.rollups("nobody", 0, 30 * HOUR_US, 5) == ([], HOUR_US)


async def test_only_finite_numbers_count(tmp_path: Path) -> None:
    """Booleans are 0 and 1; texts, nulls, NaN and infinities leave no trace, and a gap is an absent minute."""
    values: list[Value] = [True, False, "on", None, float("nan"), float("inf"), 7]
    async with following(tmp_path) as (buffer, history, store):
        await buffer.append([reading(value, number * MINUTE.span_us) for number, value in enumerate(values)])
        await caught_up(buffer, history)
        found = await store.rollups(TOPIC, 0, HOUR_US, MINUTE, 1)
        assert [(each.first, each.first_us // MINUTE.span_us) for each in found] == [(1.0, 0), (0.0, 1), (7.0, 6)]


async def test_a_deleted_or_damaged_file_is_made_again(tmp_path: Path) -> None:
    """The log is the truth: without history.db, or with rubbish in its place, the same rollups come back."""
    entries = [reading(float(number), number * 1_000_000) for number in range(2_500)]
    async with following(tmp_path) as (buffer, history, _):
        await buffer.append(entries)
        await caught_up(buffer, history)
    for rubbish in (None, b"no database at all" * 100):
        for file in tmp_path.glob("history.db*"):
            file.unlink()
        if rubbish:
            (tmp_path / "history.db").write_bytes(rubbish)
        async with following(tmp_path) as (buffer, history, store):
            await caught_up(buffer, history)
            assert await store.rollups(TOPIC, 0, HOUR_US, MINUTE, 1) == naive(entries, TOPIC, MINUTE)


async def test_the_bound_holds_and_the_oldest_minutes_go_first(tmp_path: Path) -> None:
    """With a small bound the file stays under it, the newest minutes stay, and all hours too."""
    size_max = 1_000_000
    async with following(tmp_path, size_max) as (buffer, history, store):
        for day in range(0, 40, 2):
            await buffer.append([reading(1.0, (day * 1_440 + minute) * MINUTE.span_us) for minute in range(2_880)])
            await caught_up(buffer, history)
        status = history.status()
        assert status.blocks_dropped > 0
        assert status.size_bytes <= size_max
        end_us = 40 * 24 * HOUR_US
        assert not await store.rollups(TOPIC, 0, HOUR_US, MINUTE, 1)
        assert len(await store.rollups(TOPIC, end_us - HOUR_US, end_us, MINUTE, 1)) == 60
        assert len(await store.rollups(TOPIC, 0, end_us, HOUR, 1)) == 40 * 24


_FOLLOWER = """
import asyncio, sys
from pathlib import Path
from appliance.history import history as module
from appliance.buffer.buffer import Buffer
from appliance.history.store import HistoryStore

module.FLUSH_S, module.BATCH_MAX, module.CELLS_MAX = 0.01, 100, 20

async def main(folder):
    async with Buffer.open(folder / "buffer.db", "northfield") as buffer:
        async with HistoryStore.open(folder / "history.db") as store:
            print("follows", flush=True)
            await module.History(buffer, store, 2_000_000_000).run()

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_kills_count_nothing_twice(tmp_path: Path) -> None:
    """A follower killed at random moments while it catches up leaves rollups equal to those of the log."""
    chance = random.Random(7)
    entries = [reading(float(chance.randrange(99)), chance.randrange(50 * HOUR_US)) for _ in range(20_000)]
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await buffer.append(entries)
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", _FOLLOWER, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            await asyncio.sleep(chance.uniform(0.02, 0.25))  # The random moment itself.
            os.kill(process.pid, signal.SIGKILL)
    async with following(tmp_path) as (buffer, history, store):
        await caught_up(buffer, history)
        assert buffer.last(Stream.READINGS) == len(entries)
        for grain in (MINUTE, HOUR):
            assert await store.rollups(TOPIC, 0, 51 * HOUR_US, grain, 1) == naive(entries, TOPIC, grain)
