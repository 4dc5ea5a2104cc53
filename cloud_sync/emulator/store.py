"""The Store: the events of every partition, in one SQLite file.

A transfer is one row, as received. Writing happens in groups, on one thread: whatever arrived while the
last commit ran goes into the next one, and `append` returns after the commit (WAL, `synchronous=FULL`).
Reading happens on the loop, over a connection of its own.
"""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final, NamedTuple, Self

from cloud_sync.emulator.messages import split

RETENTION_S: Final = 7 * 24 * 3600
"""How long events are kept, as on a standard namespace."""
TRIM_EVERY_ROWS: Final = 10_000
GROUP_ROWS_MAX: Final = 500
READ_BYTES_MAX: Final = 4 * 1024 * 1024
OFFSET_STEP: Final = 256
"""An offset is a sequence number times this: different numbers, so that nobody takes one for the other."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS hub (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL, created_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS partition (
    hub TEXT NOT NULL, number INTEGER NOT NULL,
    next INTEGER NOT NULL DEFAULT 0, enqueued_ms INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (hub, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transfer (
    id INTEGER PRIMARY KEY, hub TEXT NOT NULL, number INTEGER NOT NULL,
    first INTEGER NOT NULL, count INTEGER NOT NULL, enqueued_ms INTEGER NOT NULL,
    format INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS transfer_by_place ON transfer (hub, number, first);
CREATE INDEX IF NOT EXISTS transfer_by_time ON transfer (enqueued_ms);
"""


class Event(NamedTuple):
    """One event in its partition: its number, when it was stored, and its encoded message."""

    sequence: int
    enqueued_ms: int
    message: bytes

    @property
    def offset(self) -> str:
        return str(self.sequence * OFFSET_STEP)


class Extent(NamedTuple):
    """From where to where a partition goes: the first number it still holds, the next it will give."""

    begin: int
    next: int
    enqueued_ms: int

    @property
    def last_offset(self) -> str:
        return str((self.next - 1) * OFFSET_STEP) if self.next else "-1"


class _Transfer(NamedTuple):
    hub: str
    number: int
    events: int
    format: int
    body: bytes
    stored: asyncio.Future[None]


class Store:
    """Every partition's events, durable. Open it with `Store.open`."""

    def __init__(self, path: Path, hubs: Sequence[str], partitions: int) -> None:
        self._writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._writer.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _SCHEMA)
        self._reader = sqlite3.connect(path, isolation_level=None)
        self._thread = ThreadPoolExecutor(1, "emulator-store")
        self._waiting: deque[_Transfer] = deque()
        self._work = asyncio.Event()
        self._written: dict[tuple[str, int], asyncio.Event] = {}
        self._rows_since_trim = TRIM_EVERY_ROWS
        self.hubs = {hub: self._create(hub, partitions) for hub in hubs}

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, hubs: Sequence[str], partitions: int) -> AsyncIterator[Self]:
        store = cls(path, hubs, partitions)
        with closing(store._writer), closing(store._reader), store._thread:
            async with asyncio.TaskGroup() as tasks:
                committer = tasks.create_task(store._commit_forever(), name="emulator store")
                try:
                    yield store
                finally:
                    committer.cancel()

    async def append(self, hub: str, number: int, message_format: int, body: bytes, count: int) -> None:
        """Store the `count` events of one transfer; returns after the commit.

        Raises `sqlite3.Error` when the disk does not take it.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Transfer(hub, number, count, message_format, body, stored))
        self._work.set()
        await stored

    def read(self, hub: str, number: int, sequence: int, limit: int) -> list[Event]:
        """Up to `limit` events from the number on; fewer when they are large, at least one if there is one."""
        rows = self._reader.execute(
            "SELECT first, enqueued_ms, format, body FROM transfer WHERE hub = ? AND number = ?"
            " AND first >= (SELECT coalesce(max(first), 0) FROM transfer WHERE hub = ? AND number = ? AND first <= ?)"
            " ORDER BY first",
            (hub, number, hub, number, sequence),
        )
        events: list[Event] = []
        read_bytes = 0
        with closing(rows):
            for first, enqueued_ms, message_format, body in rows:
                for position, message in enumerate(split(body, message_format), first):
                    if position >= sequence:
                        events.append(Event(position, enqueued_ms, message))
                read_bytes += len(body)
                if len(events) >= limit or read_bytes >= READ_BYTES_MAX:
                    break
        return events[:limit]

    async def wait(self, hub: str, number: int, sequence: int) -> None:
        """Return once the partition holds the number."""
        while self.extent(hub, number).next <= sequence:
            written = self._written.setdefault((hub, number), asyncio.Event())
            await written.wait()

    def extent(self, hub: str, number: int) -> Extent:
        row = self._reader.execute(
            "SELECT coalesce((SELECT min(first) FROM transfer t WHERE t.hub = p.hub AND t.number = p.number), next),"
            " next, enqueued_ms FROM partition p WHERE hub = ? AND number = ?",
            (hub, number),
        ).fetchone()
        return Extent(*row)

    def enqueued_after(self, hub: str, number: int, at_ms: int) -> int:
        """The number of the first event stored later than this time, or the next number to come."""
        row = self._reader.execute(
            "SELECT min(first) FROM transfer WHERE hub = ? AND number = ? AND enqueued_ms > ?", (hub, number, at_ms)
        ).fetchone()
        return self.extent(hub, number).next if row[0] is None else int(row[0])

    def created_ms(self, hub: str) -> int:
        return int(self._reader.execute("SELECT created_ms FROM hub WHERE name = ?", (hub,)).fetchone()[0])

    def _create(self, hub: str, partitions: int) -> int:
        """Make the hub if it is new; a hub never has fewer partitions than it once had."""
        self._writer.execute("BEGIN IMMEDIATE")
        self._writer.execute("INSERT OR IGNORE INTO hub VALUES (?, ?, ?)", (hub, partitions, _now_ms()))
        self._writer.execute("UPDATE hub SET partitions = max(partitions, ?) WHERE name = ?", (partitions, hub))
        row = self._writer.execute("SELECT partitions FROM hub WHERE name = ?", (hub,)).fetchone()
        for number in range(row[0]):
            self._writer.execute("INSERT OR IGNORE INTO partition (hub, number) VALUES (?, ?)", (hub, number))
        self._writer.execute("COMMIT")
        return int(row[0])

    async def _commit_forever(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(GROUP_ROWS_MAX, len(self._waiting)))]
                error = await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, group)
                for transfer in group:
                    if transfer.stored.done():
                        continue
                    if error is None:
                        transfer.stored.set_result(None)
                    else:
                        transfer.stored.set_exception(error)
                for place in {(transfer.hub, transfer.number) for transfer in group}:
                    self._written.pop(place, asyncio.Event()).set()

    def _commit(self, group: list[_Transfer]) -> sqlite3.Error | None:
        try:
            with self._writer:
                self._writer.execute("BEGIN IMMEDIATE")
                for transfer in group:
                    self._insert(transfer)
                self._rows_since_trim += len(group)
                if self._rows_since_trim >= TRIM_EVERY_ROWS:
                    oldest_ms = _now_ms() - RETENTION_S * 1000
                    self._writer.execute("DELETE FROM transfer WHERE enqueued_ms < ?", (oldest_ms,))
                    self._rows_since_trim = 0
        except sqlite3.Error as error:
            return error
        return None

    def _insert(self, transfer: _Transfer) -> None:
        hub, number, count, message_format, body, _ = transfer
        first, enqueued_ms = self._writer.execute(
            "SELECT next, enqueued_ms FROM partition WHERE hub = ? AND number = ?", (hub, number)
        ).fetchone()
        enqueued_ms = max(enqueued_ms, _now_ms())
        self._writer.execute(
            "INSERT INTO transfer (hub, number, first, count, enqueued_ms, format, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (hub, number, first, count, enqueued_ms, message_format, body),
        )
        self._writer.execute(
            "UPDATE partition SET next = ?, enqueued_ms = ? WHERE hub = ? AND number = ?",
            (first + count, enqueued_ms, hub, number),
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
