"""The Buffer's file: loose chunks, sealed blocks, cursors and the epoch in one SQLite database (WAL, FULL)."""

import asyncio
import logging
import shutil
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import aiosqlite

from appliance.buffer.blocks import Block, NewBlock, Run, chained
from appliance.buffer.chunks import decode
from appliance.buffer.commit import BEGIN, Dropped, Transactions, steps
from appliance.buffer.damage import LogDamaged, is_corrupt, suspect
from appliance.buffer.schema import StoreError, epoch_of, prepare
from appliance.contract.envelope import Sealed, open_sealed
from appliance.contract.reading import Reading, Stream

__all__ = ["Dropped", "Room", "Store", "StoreError", "StoredCursor"]

log = logging.getLogger(__name__)

OPENED_BLOCKS_MAX = 4
"""Blocks kept opened, because a follower reads one in several batches."""
_ROWS_A_FETCH = 16


class StoredCursor(NamedTuple):
    """A cursor's row: the last entry consumed, and the follower's own small state."""

    seq: int
    state: str


@dataclass(frozen=True, slots=True)
class Room:
    """How much the file takes, and what the disk has left."""

    used_bytes: int
    spare_bytes: int
    """Pages of the file that are free to be written again."""
    disk_free_bytes: int


class Store:
    """One writing and one reading connection to the log's file. It knows SQL; the Buffer knows when."""

    def __init__(
        self, writer: aiosqlite.Connection, reader: aiosqlite.Connection, path: Path, plant: str, epoch: int
    ) -> None:
        self._writer, self._reader = writer, reader
        self.path, self.plant, self.epoch = path, plant, epoch
        self.appended_bytes = 0
        """What has been written down since the start, before it is sealed."""
        self.damaged: set[tuple[Stream, int]] = set()
        """Blocks and chunks, by their first number, that could not be read: the Keeper takes them out."""
        self._opened: OrderedDict[tuple[Stream, int], Sequence[Reading]] = OrderedDict()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, plant: str) -> AsyncIterator[Self]:
        """Open the file, creating it when absent; raises `StoreError` when it belongs to another plant or version."""
        async with (
            aiosqlite.connect(path, isolation_level=None, factory=Transactions) as writer,
            aiosqlite.connect(path, isolation_level=None) as reader,
        ):
            for connection in (writer, reader):
                await prepare(connection)
            await writer.create_function("chained", 2, chained, deterministic=True)
            yield cls(writer, reader, path, plant, await epoch_of(writer, path, plant))

    @contextmanager
    def sound(self) -> Iterator[None]:
        """Raises `LogDamaged` when a page of the file has turned bad: opening the log again salvages it."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                raise
            suspect(self.path, str(error))
            raise LogDamaged(f"the log's file has turned bad ({error}); it is opened anew and salvaged") from error

    async def last(self, stream: Stream) -> int:
        """The number of the newest entry that is on disk; 0 when there has been none."""
        return await self._number("SELECT last FROM stream WHERE name = ?", stream)

    async def sealed_to(self, stream: Stream) -> int:
        """The number before the first loose entry: everything up to it is sealed or gone."""
        loose = f"SELECT min(first) - 1 FROM chunk_{stream.value}"
        return await self._number(f"SELECT coalesce(({loose}), (SELECT last FROM stream WHERE name = ?))", stream)

    async def cursor(self, name: str, stream: Stream) -> StoredCursor:
        """Where the named follower stands; at 0 when it is new."""
        sql = "SELECT seq, state FROM cursor WHERE name = ? AND stream = ?"
        async with self._reader.execute(sql, (name, stream)) as rows:
            row = await rows.fetchone()
        return StoredCursor(*row) if row else StoredCursor(0, "")

    async def cursors(self, stream: Stream) -> dict[str, int]:
        """Where each follower of the stream stands."""
        async with self._reader.execute("SELECT name, seq FROM cursor WHERE stream = ?", (stream,)) as rows:
            return {name: seq async for name, seq in rows}

    async def latest(self) -> dict[str, int]:
        """The newest source time of each topic that ever had a reading."""
        loose: dict[str, int] = {}
        async with self._reader.execute("SELECT first, count, body FROM chunk_readings") as rows:
            async for first, count, body in rows:
                for entry in await self._open(Stream.READINGS, first, count, None, body) or ():
                    loose[entry.topic] = max(entry.source_us, loose.get(entry.topic, entry.source_us))
        # The sealed ones come second, so that what is sealed meanwhile is seen twice rather than never.
        async with self._reader.execute("SELECT topic, source_us FROM latest") as rows:
            async for topic, source_us in rows:
                loose[topic] = max(source_us, loose.get(topic, source_us))
        return loose

    async def write(
        self,
        appended: Iterable[tuple[Stream, int, Sequence[Reading]]] = (),
        moved: Sequence[tuple[str, Stream, int, str | None]] = (),
        sealed: Iterable[NewBlock] = (),
        dropped: Iterable[Dropped] = (),
    ) -> None:
        """Append runs of entries, move cursors, seal and drop in one transaction; on an error nothing has happened.

        A cursor moved with the state None keeps the state it has. Raises what `encode` raises for an entry that
        cannot be kept, and ValueError or OverflowError for a text or number that SQLite cannot hold.
        """
        sizes: list[int] = []
        await self._writer.executemany(BEGIN, steps(appended, moved, sealed, dropped, sizes))
        self.appended_bytes += sum(sizes)

    async def read(self, stream: Stream, after: int, limit: int) -> Run:
        """Up to `limit` consecutive entries after the number `after`; they begin later when there is a gap."""
        # One statement is one view of the file: what is sealed meanwhile is seen either loose or sealed.
        parts = " UNION ALL ".join(
            f"SELECT first, count, {crc} AS crc, body FROM {table} "
            f"WHERE first >= coalesce((SELECT max(first) FROM {table} WHERE first <= ?1), 0)"
            for table, crc in ((f"block_{stream.value}", "crc32c"), (f"chunk_{stream.value}", "NULL"))
        )
        run = Run.none(after)
        async with self._reader.execute(f"{parts} ORDER BY first", (after + 1,)) as rows:
            while len(run.entries) < limit and (fetched := await rows.fetchmany(_ROWS_A_FETCH)):
                for first, count, crc, body in fetched:
                    if first + count <= after + 1:
                        continue
                    begins = max(first, after + 1)
                    if run.entries and begins != run.first + len(run.entries):
                        return run
                    opened = await self._open(stream, first, count, crc, body)
                    if opened is None:
                        continue  # Damaged: as if it were not there.
                    if not run.entries:
                        run = Run(begins, [])
                    run.entries.extend(opened[begins - first :][: limit - len(run.entries)])
                    if len(run.entries) >= limit:
                        break
        return run

    async def sealed(self, stream: Stream, after: int) -> Sealed | None:
        """The block that holds the entry after the number `after`, or the next one behind a gap, as it is stored."""
        return next(iter(await self.sealed_run(stream, after, 1)), None)

    async def sealed_run(self, stream: Stream, after: int, limit: int) -> list[Sealed]:
        """Up to `limit` blocks from the one that holds the entry after the number `after`, as they are stored."""
        table = f"block_{stream.value}"
        sql = (
            f"SELECT first, count, crc32c, body FROM {table} WHERE first + count > ?1 "
            f"AND first >= coalesce((SELECT max(first) FROM {table} WHERE first <= ?1), 0) ORDER BY first LIMIT ?2"
        )
        rows = await self._reader.execute_fetchall(sql, (after + 1, limit))
        return [Sealed(self.plant, self.epoch, stream, *row) for row in rows]

    async def damaged_body(self, stream: Stream, first: int) -> tuple[int, bytes] | None:
        """How many entries the damaged block or chunk holds, and its bytes; None when it can be read after all."""
        name = stream.value
        sql = (
            f"SELECT count, crc32c, body FROM block_{name} WHERE first = ?1 "
            f"UNION ALL SELECT count, NULL, body FROM chunk_{name} WHERE first = ?1"
        )
        async with self._reader.execute(sql, (first,)) as rows:
            row = await rows.fetchone()
        if row is None or await self._open(stream, first, *row) is not None:
            return None
        return int(row[0]), bytes(row[2])

    async def loose(self, stream: Stream, limit: int) -> tuple[int, int]:
        """Where loose entries begin, and how many of them follow in whole chunks, up to `limit`; (0, 0) for none."""
        begin = count = 0
        sql = f"SELECT first, count FROM chunk_{stream.value} ORDER BY first LIMIT ?"
        async with self._reader.execute(sql, (limit,)) as rows:
            async for first, entries in rows:
                begin = begin or first
                if first != begin + count or count + entries > limit:
                    break
                count += entries
        return begin, count

    async def blocks(self, stream: Stream, from_seq: int, limit: int) -> list[Block]:
        """The oldest blocks from this number on."""
        sql = f"SELECT first, count, size, from_us, to_us FROM block_{stream.value} WHERE first >= ? ORDER BY first"
        async with self._reader.execute(f"{sql} LIMIT ?", (from_seq, limit)) as rows:
            return [Block(*row) async for row in rows]

    async def room(self) -> Room:
        """How much the file takes, and what the disk has left."""
        page, pages, free = [
            await self._number(f"PRAGMA {name}") for name in ("page_size", "page_count", "freelist_count")
        ]
        disk = await asyncio.to_thread(shutil.disk_usage, self.path.parent)
        return Room((pages - free) * page, free * page, disk.free)

    async def give_back(self) -> None:
        """Return spare pages to the file system, as far as the file was made for it."""
        # A script, because it alone steps the statement to its end.
        await self._writer.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(PASSIVE);")

    async def _open(
        self, stream: Stream, first: int, count: int, crc: int | None, body: bytes
    ) -> Sequence[Reading] | None:
        if (opened := self._opened.get((stream, first))) is not None and len(opened) == count:
            return opened
        try:
            if crc is None:
                return decode(body)
            sealed = Sealed(self.plant, self.epoch, stream, first, count, crc, body)
            entries = (await asyncio.to_thread(open_sealed, sealed)).entries
        except ValueError as error:
            if (stream, first) not in self.damaged:
                log.error("buffer: %s %d to %d are damaged: %s", stream, first, first + count - 1, error)
            self.damaged.add((stream, first))
            return None
        self._opened[(stream, first)] = entries
        if len(self._opened) > OPENED_BLOCKS_MAX:
            self._opened.popitem(last=False)
        return entries

    async def _number(self, sql: str, *parameters: object) -> int:
        async with self._reader.execute(sql, parameters) as rows:
            row = await rows.fetchone()
        assert row is not None, sql
        return int(row[0])
