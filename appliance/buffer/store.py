"""The Buffer's file: chunks of entries, cursors and the epoch in one SQLite database (WAL, synchronous=FULL)."""

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Self

import aiosqlite

from appliance.contract.columns import decode, encode
from appliance.contract.reading import Reading, Stream

SCHEMA_VERSION = 1
CHUNK_ENTRIES_MAX = 1_000
_ROWS_A_FETCH = 16
_SCHEMA = """
CREATE TABLE store(plant TEXT NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE stream(name TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE cursor(name TEXT, stream TEXT, seq INTEGER NOT NULL, state TEXT NOT NULL,
                    PRIMARY KEY(name, stream)) WITHOUT ROWID;
CREATE TABLE latest(topic TEXT PRIMARY KEY, source_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE chunk_readings(first INTEGER PRIMARY KEY, count INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE chunk_events(first INTEGER PRIMARY KEY, count INTEGER NOT NULL, body BLOB NOT NULL);
"""


class StoreError(Exception):
    """A buffer file that cannot be used as it is; the text says what to do."""


class StoredCursor(NamedTuple):
    """A cursor's row: the last entry consumed, and the follower's own small state."""

    seq: int
    state: str


class Store:
    """One writing and one reading connection to the log's file. It knows SQL; the Buffer knows when."""

    def __init__(self, writer: aiosqlite.Connection, reader: aiosqlite.Connection, epoch: int) -> None:
        self._writer, self._reader, self.epoch = writer, reader, epoch

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, plant: str) -> AsyncIterator[Self]:
        """Open the file, creating it when absent; raises `StoreError` when it belongs to another plant or version."""
        async with (
            aiosqlite.connect(path, isolation_level=None) as writer,
            aiosqlite.connect(path, isolation_level=None) as reader,
        ):
            for connection in (writer, reader):
                await connection.execute("PRAGMA journal_mode=WAL")
                await connection.execute("PRAGMA synchronous=FULL")
                await connection.execute("PRAGMA busy_timeout=5000")
            yield cls(writer, reader, await _epoch(writer, path, plant))

    async def last(self, stream: Stream) -> int:
        """The number of the newest entry that is on disk; 0 when there has been none."""
        return await self._number("SELECT last FROM stream WHERE name = ?", stream)

    async def cursor(self, name: str, stream: Stream) -> StoredCursor:
        """Where the named follower stands; at 0 when it is new."""
        sql = "SELECT seq, state FROM cursor WHERE name = ? AND stream = ?"
        async with self._reader.execute(sql, (name, stream)) as rows:
            row = await rows.fetchone()
        return StoredCursor(*row) if row else StoredCursor(0, "")

    async def latest(self) -> dict[str, int]:
        """The newest source time of each topic that ever had a reading."""
        async with self._reader.execute("SELECT topic, source_us FROM latest") as rows:
            return dict(await rows.fetchall())  # type: ignore[arg-type]

    async def write(
        self,
        appended: Iterable[tuple[Stream, int, Sequence[Reading]]],
        moved: Iterable[tuple[str, Stream, int, str | None]],
    ) -> None:
        """Append runs of entries and move cursors in one transaction; on an error nothing has happened.

        A cursor moved with the state None keeps the state it has. Raises what `encode` raises for an entry that
        cannot be kept, and ValueError or OverflowError for a text or number that SQLite cannot hold.
        """
        await self._writer.execute("BEGIN IMMEDIATE")
        try:
            for stream, first, entries in appended:
                chunks = _chunks(first, entries)
                await self._writer.executemany(f"INSERT INTO chunk_{stream.value} VALUES(?, ?, ?)", chunks)
                last = first + len(entries) - 1
                await self._writer.execute("UPDATE stream SET last = ? WHERE name = ?", (last, stream))
                if stream is Stream.READINGS:
                    await self._writer.executemany(
                        "INSERT INTO latest VALUES(?1, ?2) ON CONFLICT DO UPDATE SET source_us = max(source_us, ?2)",
                        {entry.topic: entry.source_us for entry in entries}.items(),
                    )
            await self._writer.executemany(
                "INSERT INTO cursor VALUES(?1, ?2, ?3, coalesce(?4, '')) "
                "ON CONFLICT DO UPDATE SET seq = ?3, state = coalesce(?4, state)",
                moved,
            )
            await self._writer.execute("COMMIT")
        finally:
            if self._writer.in_transaction:
                await self._writer.execute("ROLLBACK")

    async def read(self, stream: Stream, after: int, limit: int) -> list[Reading]:
        """Up to `limit` entries after the number `after`, in order."""
        chunk = f"chunk_{stream.value}"
        sql = (
            f"SELECT first, body FROM {chunk} "
            f"WHERE first >= coalesce((SELECT max(first) FROM {chunk} WHERE first <= ?1), 0) ORDER BY first"
        )
        entries: list[Reading] = []
        async with self._reader.execute(sql, (after + 1,)) as rows:
            while len(entries) < limit and (fetched := await rows.fetchmany(_ROWS_A_FETCH)):
                for first, body in fetched:
                    entries.extend(decode(body)[max(0, after + 1 - first) :])
                    if len(entries) >= limit:
                        break
        return entries[:limit]

    async def _number(self, sql: str, *parameters: object) -> int:
        async with self._reader.execute(sql, parameters) as rows:
            row = await rows.fetchone()
        assert row is not None, sql
        return int(row[0])


def _chunks(first: int, entries: Sequence[Reading]) -> list[tuple[int, int, bytes]]:
    parts = [(start, entries[start : start + CHUNK_ENTRIES_MAX]) for start in range(0, len(entries), CHUNK_ENTRIES_MAX)]
    return [(first + start, len(part), encode(part)) for start, part in parts]


async def _epoch(writer: aiosqlite.Connection, path: Path, plant: str) -> int:
    async with writer.execute("PRAGMA user_version") as rows:
        (version,) = await rows.fetchone() or (0,)
    if version == 0:
        await _create(writer, plant)
    elif version != SCHEMA_VERSION:
        hint = "install the newer Plantward"
        raise StoreError(f"buffer {path}: is of version {version}, this is {SCHEMA_VERSION}; {hint}")
    async with writer.execute("SELECT plant, epoch FROM store") as rows:
        its_plant, epoch = await rows.fetchone() or ("", 0)
    if its_plant != plant:
        hint = "give [plant] data another folder"
        raise StoreError(f"buffer {path}: belongs to plant {its_plant!r}, not {plant!r}; {hint}")
    return int(epoch)


async def _create(writer: aiosqlite.Connection, plant: str) -> None:
    # The clock's milliseconds rise even when the whole folder is lost, where a counter would begin anew and
    # the cloud would take new readings for known ones.
    epoch = time.time_ns() // 1_000_000
    streams = ", ".join(f"('{stream.value}', 0)" for stream in Stream)
    await writer.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} INSERT INTO stream VALUES {streams}; PRAGMA user_version = {SCHEMA_VERSION};"
    )
    await writer.execute("INSERT INTO store VALUES(?, ?)", (plant, epoch))
    await writer.execute("COMMIT")
