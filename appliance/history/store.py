"""The History's file: minutes and hours of each topic, packed in blocks, and the place in the log they stand for.

A block holds the rollups of 60 minutes or 24 hours of one topic, each as one record with its slot; a missing slot is
a gap. Blocks merge inside SQLite, in the transaction that moves the place, so nothing is counted twice or left out.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final, Self

import aiosqlite
import numpy as np

from appliance.contract.rollup import Rollup

SCHEMA_VERSION: Final = 1
FULL_AT, TRIMMED_TO = 0.9, 0.8
"""Shares of the bound between which the oldest blocks go."""
_TRIM_ROWS: Final = 32
_RECORD: Final = Struct("<5d4IB")
_COLUMNS: Final = np.dtype(
    [(name, "<f8") for name in ("minimum", "maximum", "total", "first", "last")]
    + [(name, "<u4") for name in ("first_at", "last_at", "count", "good")]
    + [("slot", "u1")]
)
_SCHEMA: Final = """
CREATE TABLE place(epoch INTEGER NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE topic(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE minute(topic INTEGER, block INTEGER, body BLOB NOT NULL, PRIMARY KEY(topic, block)) WITHOUT ROWID;
CREATE TABLE hour(topic INTEGER, block INTEGER, body BLOB NOT NULL, PRIMARY KEY(topic, block)) WITHOUT ROWID;
CREATE INDEX minute_age ON minute(block);
CREATE INDEX hour_age ON hour(block);
INSERT INTO place VALUES(0, 0);
"""


@dataclass(frozen=True, slots=True)
class Grain:
    """One length of rollups: its table, its span, and how many spans a block holds."""

    table: str
    span_us: int
    slots: int

    @property
    def block_us(self) -> int:
        return self.span_us * self.slots


MINUTE: Final = Grain("minute", 60_000_000, 60)
HOUR: Final = Grain("hour", 3_600_000_000, 24)


class HistoryStore:
    """One connection to history.db. It knows SQL and blocks; the History knows when."""

    def __init__(self, db: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._db, self._reader = db, reader

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """Open the file; one that is damaged or of another version is made anew, because the log can fill it again."""
        if not await _is_usable(path):
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
        async with (
            aiosqlite.connect(path, isolation_level=None) as db,
            aiosqlite.connect(path, isolation_level=None) as reader,
        ):
            for connection in (db, reader):
                await connection.execute("PRAGMA journal_mode=WAL")
                await connection.execute("PRAGMA synchronous=NORMAL")
                await connection.execute("PRAGMA busy_timeout=5000")
            await db.execute("PRAGMA journal_size_limit=4000000")
            await db.create_function("merged", 2, merged, deterministic=True)
            if not await _number(db, "PRAGMA user_version"):
                await db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
            yield cls(db, reader)

    async def place(self, epoch: int, last: int) -> int:
        """The last entry of this log that is in the rollups.

        A new log begins at 0 and the rollups of the one before stay; a log that was set back begins anew with none.
        """
        async with self._db.execute("SELECT epoch, seq FROM place") as rows:
            its_epoch, seq = await rows.fetchone() or (0, 0)
        if its_epoch != epoch:
            return 0
        if seq > last:
            await self._db.executescript(
                "BEGIN; DELETE FROM minute; DELETE FROM hour; UPDATE place SET seq = 0; COMMIT"
            )
            return 0
        return int(seq)

    async def merge(self, cells: Mapping[tuple[str, int], Rollup], epoch: int, seq: int) -> None:
        """Merge rollups by topic and minute, and move to `seq`, in one transaction."""
        topics = sorted({(topic,) for topic, _ in cells})
        # In a thread: thousands of rollups would hold up the loop.
        packed = [(grain.table, await asyncio.to_thread(blocks, cells, grain)) for grain in (MINUTE, HOUR)]
        if self._db.in_transaction:
            await self._db.execute("ROLLBACK")  # Of an attempt that failed.
        await self._db.execute("BEGIN IMMEDIATE")
        await self._db.executemany("INSERT INTO topic(name) VALUES(?) ON CONFLICT DO NOTHING", topics)
        for table, bodies in packed:
            await self._db.executemany(
                f"INSERT INTO {table} SELECT id, ?2, ?3 FROM topic WHERE name = ?1 "
                "ON CONFLICT DO UPDATE SET body = merged(body, excluded.body)",
                bodies,
            )
        await self._db.execute("UPDATE place SET epoch = ?, seq = ?", (epoch, seq))
        await self._db.execute("COMMIT")

    async def rollups(self, topic: str, start_us: int, end_us: int, grain: Grain, every: int) -> list[Rollup]:
        """The rollups of a topic between two times in order, `every` so many neighbours of a grain as one."""
        sql = (
            f"SELECT block, body FROM {grain.table} WHERE topic = (SELECT id FROM topic WHERE name = ?) "
            "AND block BETWEEN ? AND ? ORDER BY block"
        )
        async with self._reader.execute(sql, (topic, start_us // grain.block_us, end_us // grain.block_us)) as rows:
            found = list(await rows.fetchall())
        if not found:
            return []
        records = np.frombuffer(b"".join(body for _, body in found), _COLUMNS)
        sizes = [len(body) // _RECORD.size for _, body in found]
        at = np.repeat(np.array([block * grain.slots for block, _ in found], np.int64), sizes) + records["slot"]
        inside = (at >= start_us // grain.span_us) & (at <= end_us // grain.span_us)
        at, records = at[inside], records[inside]
        if not len(at):
            return []
        starts = np.flatnonzero(np.diff(at // every, prepend=at[0] // every - 1))
        ends = np.append(starts[1:], len(at)) - 1
        columns = (
            np.minimum.reduceat(records["minimum"], starts),
            np.maximum.reduceat(records["maximum"], starts),
            np.add.reduceat(records["total"], starts),
            np.add.reduceat(records["count"], starts, dtype=np.int64),
            np.add.reduceat(records["good"], starts, dtype=np.int64),
            records["first"][starts],
            at[starts] * grain.span_us + records["first_at"][starts],
            records["last"][ends],
            at[ends] * grain.span_us + records["last_at"][ends],
        )
        return list(map(Rollup, *(column.tolist() for column in columns)))

    async def trim(self, size_max: int) -> int:
        """Delete the oldest minutes, and then the oldest hours, while the bound is near; gives how many blocks."""
        deleted = 0
        if await self.used_bytes() <= FULL_AT * size_max:
            return 0
        for grain in (MINUTE, HOUR):
            while await self.used_bytes() > TRIMMED_TO * size_max:
                table = grain.table
                oldest = f"SELECT topic, block FROM {table} ORDER BY block LIMIT {_TRIM_ROWS}"
                gone = await self._db.execute(f"DELETE FROM {table} WHERE (topic, block) IN ({oldest})")
                if gone.rowcount <= 0:
                    break
                deleted += gone.rowcount
        return deleted

    async def used_bytes(self) -> int:
        """Bytes in use; freed pages are used again before the file grows."""
        pages = await _number(self._db, "PRAGMA page_count") - await _number(self._db, "PRAGMA freelist_count")
        return pages * await _number(self._db, "PRAGMA page_size")

    async def topics(self) -> int:
        return await _number(self._db, "SELECT count(*) FROM topic")


def blocks(cells: Mapping[tuple[str, int], Rollup], grain: Grain) -> list[tuple[str, int, bytes]]:
    """Rollups by topic and minute as blocks of a grain: topic, number, body."""
    spans: dict[tuple[str, int], Rollup] = {}
    for (topic, _), rollup in cells.items():
        key = (topic, rollup.first_us // grain.span_us)
        known = spans.get(key)
        spans[key] = known.merge(rollup) if known else rollup
    bodies: dict[tuple[str, int], list[bytes]] = {}
    for (topic, at), rollup in sorted(spans.items()):
        block, slot = divmod(at, grain.slots)
        bodies.setdefault((topic, block), []).append(_record(rollup, at * grain.span_us, slot))
    return [(topic, block, b"".join(records)) for (topic, block), records in bodies.items()]


def merged(old: bytes, new: bytes) -> bytes:
    """Two blocks of the same spans as one."""
    records = _by_slot(old)
    for slot, record in _by_slot(new).items():
        known = records.get(slot)
        records[slot] = _record(_rollup(known).merge(_rollup(record)), 0, slot) if known else record
    return b"".join(record for _, record in sorted(records.items()))


def _by_slot(body: bytes) -> dict[int, bytes]:
    size = _RECORD.size
    return {body[at + size - 1]: body[at : at + size] for at in range(0, len(body), size)}


def _record(rollup: Rollup, start_us: int, slot: int) -> bytes:
    return _RECORD.pack(
        *(rollup.minimum, rollup.maximum, rollup.total, rollup.first, rollup.last),
        *(rollup.first_us - start_us, rollup.last_us - start_us, rollup.count, rollup.good, slot),
    )


def _rollup(record: bytes) -> Rollup:
    minimum, maximum, total, first, last, first_at, last_at, count, good, _ = _RECORD.unpack(record)
    return Rollup(minimum, maximum, total, count, good, first, first_at, last, last_at)


async def _is_usable(path: Path) -> bool:
    try:
        async with aiosqlite.connect(path) as db:
            return await _number(db, "PRAGMA user_version") in (0, SCHEMA_VERSION)
    except sqlite3.DatabaseError:
        return False


async def _number(db: aiosqlite.Connection, sql: str, parameters: Iterable[object] = ()) -> int:
    async with db.execute(sql, parameters) as rows:
        row = await rows.fetchone()
    assert row is not None, sql
    return int(row[0])
