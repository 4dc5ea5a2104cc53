"""Blocks: loose entries are sealed once, read like before, and resent as the same bytes."""

import asyncio
import hashlib
import random
import sqlite3
from pathlib import Path

import pytest

from appliance.buffer import keeper as keeper_module
from appliance.buffer import schema
from appliance.buffer import tail as tail_module
from appliance.buffer.blocks import chained, new_blocks
from appliance.buffer.buffer import Buffer
from appliance.buffer.store import Store
from appliance.contract.columns import encode
from appliance.contract.envelope import BODY_BYTES_MAX, open_sealed
from appliance.contract.reading import Reading, Stream

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"


def reading(number: int, value: float | str | None = None) -> Reading:
    return Reading(TOPIC, float(number) if value is None else value, 192, number, number, number, "opcua:plant")


async def all_of(buffer: Buffer, stream: Stream = Stream.READINGS, after: int = 0) -> list[int]:
    """The source times of all that a follower sees, batch by batch."""
    seen: list[int] = []
    while after < buffer.last(stream):
        batch = await buffer.read(stream, after, 777)
        seen += [entry.source_us for entry in batch.entries]
        after = batch.last
    return seen


async def sealed_to(buffer: Buffer, seq: int, stream: Stream = Stream.READINGS) -> None:
    """Wait until the Keeper has sealed this far."""
    for _ in range(1_000):
        if buffer.keeper.sealed_to[stream] >= seq:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{stream} were sealed to {buffer.keeper.sealed_to[stream]}, not to {seq}")


async def test_five_thousand_loose_entries_become_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of any size are sealed; readers see the same entries, from blocks and chunks alike."""
    monkeypatch.setattr(tail_module, "TAIL_ENTRIES_MAX", 10)
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        at = 0
        for size in (1, 300, 999, 1_700, 7, 2_500, 4_000, 2):
            await buffer.append([reading(i) for i in range(at + 1, at + size + 1)])
            at += size
        await sealed_to(buffer, 4_000)
        assert await all_of(buffer) == list(range(1, at + 1))
        assert await all_of(buffer, after=4_321) == list(range(4_322, at + 1))
    with sqlite3.connect(tmp_path / "b.db") as db:
        blocks = db.execute("SELECT first, count, previous, digest, body FROM block_readings ORDER BY first").fetchall()
        loose = db.execute("SELECT min(first) FROM chunk_readings").fetchone()
    expected, previous = 1, b""
    for first, count, before, digest, body in blocks:
        assert (first, before) == (expected, previous)
        assert digest == hashlib.sha256(previous + body).digest()
        expected, previous = first + count, digest
    assert loose == (expected,)


async def test_a_block_is_the_envelope_body_and_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `sealed` gives opens as an envelope, and is the same bytes after more appends and a restart."""
    monkeypatch.setattr(keeper_module, "SEAL_AGE_S", 0.05)
    path = tmp_path / "b.db"
    async with Buffer.open(path, "northfield") as buffer:
        assert await buffer.sealed(Stream.READINGS, 0) is None
        await buffer.append([reading(i) for i in range(1, 101)])
        await sealed_to(buffer, 100)
        before = await buffer.sealed(Stream.READINGS, 0)
        assert before
        assert [entry.source_us for entry in open_sealed(before).entries] == list(range(1, 101))
        await buffer.append([reading(i) for i in range(101, 201)])
        await sealed_to(buffer, 200)
    async with Buffer.open(path, "northfield") as buffer:
        assert await buffer.sealed(Stream.READINGS, 0) == before == await buffer.sealed(Stream.READINGS, 57)
        second = await buffer.sealed(Stream.READINGS, 100)
        assert second
        assert (second.first, second.count) == (101, 100)
        assert await buffer.sealed(Stream.READINGS, 200) is None


async def test_entries_too_large_for_one_envelope_become_several_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound of 200 kB splits what is sealed at once; a chunk may end up in two blocks."""
    monkeypatch.setattr(keeper_module, "SEAL_AGE_S", 0.05)
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        texts = [random.Random(i).randbytes(500).hex() for i in range(600)]
        await buffer.append([reading(i + 1, text) for i, text in enumerate(texts)])
        await sealed_to(buffer, 600)
        after, parts = 0, []
        while (sealed := await buffer.sealed(Stream.READINGS, after)) is not None:
            parts.append(sealed)
            after = sealed.first + sealed.count - 1
        assert len(parts) > 1
        assert after == 600
        assert all(len(part.body) <= BODY_BYTES_MAX for part in parts)
        assert [entry.value for part in parts for entry in open_sealed(part).entries] == texts


async def test_a_file_of_the_first_version_goes_on(tmp_path: Path) -> None:
    """A log written before there were blocks keeps its epoch, entries and cursors, and is sealed."""
    path = tmp_path / "b.db"
    with sqlite3.connect(path) as db:
        tables = schema._TABLES.replace(", digest BLOB NOT NULL DEFAULT x''", "")
        db.executescript(f"PRAGMA journal_mode=WAL; {tables} PRAGMA user_version = 1;")
        db.execute("INSERT INTO store VALUES('northfield', 1234)")
        db.executemany("INSERT INTO stream VALUES(?, ?)", [("readings", 6_000), ("events", 0)])
        db.execute("INSERT INTO cursor VALUES('bridge', 'readings', 2500, 'state')")
        for first in range(1, 6_001, 500):
            body = encode([reading(i) for i in range(first, first + 500)])
            db.execute("INSERT INTO chunk_readings VALUES(?, 500, ?)", (first, body))
    async with Buffer.open(path, "northfield") as buffer:
        cursor = await buffer.cursor("bridge")
        assert (buffer.epoch, buffer.last(), cursor.seq, cursor.state) == (1234, 6_000, 2_500, "state")
        await sealed_to(buffer, 5_000)
        assert await all_of(buffer) == list(range(1, 6_001))
        assert await buffer.append([reading(6_001)]) == 6_001


async def test_a_damaged_block_is_passed_over_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One flipped byte costs one block: followers go on behind it, with the right numbers."""
    path = tmp_path / "b.db"
    async with Buffer.open(path, "northfield") as buffer:
        await buffer.append([reading(i) for i in range(1, 10_001)])
        await sealed_to(buffer, 10_000)
    with sqlite3.connect(path) as db:
        ((body,),) = db.execute("SELECT body FROM block_readings WHERE first = 1").fetchall()
        bad = body[:100] + bytes([body[100] ^ 1]) + body[101:]
        db.execute("UPDATE block_readings SET body = ? WHERE first = 1", (bad,))
    async with Buffer.open(path, "northfield") as buffer:
        batch = await (await buffer.cursor("page")).batch(10)
        assert (batch.first, batch.entries[0].source_us) == (5_001, 5_001)
        assert "readings 1 to 5000 are damaged" in caplog.text


async def test_a_block_that_is_sealed_a_second_time_changes_nothing(tmp_path: Path) -> None:
    """A commit that was thought to have failed had gone through: the chain of digests goes on as if nothing was."""
    path = tmp_path / "b.db"
    async with Store.open(path, "northfield") as store:
        entries = [reading(i) for i in range(1, 201)]
        await store.write([(Stream.READINGS, 1, entries)])
        one, two = (
            new_blocks("northfield", store.epoch, Stream.READINGS, first, entries[first - 1 : first + 99])
            for first in (1, 101)
        )
        for sealed in (one, one, two, one + two):
            await store.write(sealed=sealed)
        assert [(block.first, block.last) for block in await store.blocks(Stream.READINGS, 0, 9)] == [
            (1, 100),
            (101, 200),
        ]
        assert await store.latest() == {TOPIC: 200}
    with sqlite3.connect(path) as db:
        (head,) = db.execute("SELECT digest FROM stream WHERE name = 'readings'").fetchone()
        assert head == chained(chained(b"", one[0].sealed.body), two[0].sealed.body)
        assert db.execute("SELECT count(*) FROM chunk_readings").fetchone() == (0,)


async def test_a_source_time_beyond_64_bits_does_not_stop_the_sealing(tmp_path: Path) -> None:
    """A clock gone mad is kept as it is said, and is nobody's newest time."""
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        await buffer.append([reading(i) for i in range(1, 4_999)])
        await buffer.append([reading(4_999)._replace(source_us=2**70), reading(5_000)._replace(topic=TOPIC + "x")])
        await sealed_to(buffer, 5_000)
        assert (await buffer.latest()).get(TOPIC + "x") == 5_000
        assert (await buffer._store.read(Stream.READINGS, 4_998, 1)).entries[0].source_us == 2**70
