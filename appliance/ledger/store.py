"""The Ledger's file: pieces and owners of windows that are open, accounts of those that are settled, and what is known.

All that one turn of the Ledger has learned is one transaction with its places in the log, so a kill counts nothing
twice and leaves nothing out.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import aiosqlite
import zstandard

from appliance.contract.ranges import Ranges, union
from appliance.contract.reading import Stream
from appliance.contract.receipt import Receipt
from appliance.ledger.facts import Facts, Key, Said
from appliance.ledger.file import SCHEMA, SCHEMA_VERSION, set_aside, unusable
from appliance.ledger.pieces import Equipment, Piece, Stretch

log = logging.getLogger(__name__)

FULL_AT, TRIMMED_TO = 0.9, 0.8
"""Shares of the bound between which the oldest windows go."""
_TRIM_ROWS: Final = 32
_PIECE: Final = "epoch, start_us, first, last, is_hole, body"
_SETTLED: Final = "epoch, start_us, first, body"
_WINDOWS_TABLES: Final = ("settled", "owner", "piece")
_TABLES: Final = ("place", "equipment", "piece", "owner", "settled", "numbers", "receipt", "said")


class Settled(NamedTuple):
    """A window whose account is closed, as it is written down: `known` is JSON."""

    epoch: int
    start_us: int
    first: int
    known: Mapping[str, Any]


class Open(NamedTuple):
    """What is kept of a window that is not settled."""

    pieces: list[Piece]
    stretches: list[Stretch]


@dataclass(slots=True)
class Learned:
    """What one turn has learned and is not yet in the file."""

    pieces: dict[tuple[int, int], Piece] = field(default_factory=dict)
    stretches: list[tuple[int, Stretch]] = field(default_factory=list)
    numbers: dict[tuple[Key, str], Ranges] = field(default_factory=dict)
    receipts: dict[Key, Receipt] = field(default_factory=dict)
    said: list[Said] = field(default_factory=list)


class LedgerStore:
    """One writing and one reading connection to ledger.db. It knows SQL; the Ledger knows when."""

    def __init__(self, db: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._db, self._reader = db, reader

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """Open the file; one that is damaged or of another version is set aside and made anew from the log."""
        if reason := await asyncio.to_thread(unusable, path):
            aside = await asyncio.to_thread(set_aside, path)
            log.error("ledger: the file cannot be used (%s); it is kept as %s and made again", reason, aside.name)
        async with (
            aiosqlite.connect(path, isolation_level=None) as db,
            aiosqlite.connect(path, isolation_level=None) as reader,
        ):
            for connection in (db, reader):
                for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
                    await connection.execute(f"PRAGMA {pragma}")
            await db.execute("PRAGMA journal_size_limit=4000000")
            if not await _number(db, "PRAGMA user_version"):
                await db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
            yield cls(db, reader)

    async def places(self) -> dict[Stream, tuple[int, int]]:
        """The epoch and the last entry of each stream that is in the file."""
        return {Stream(name): (epoch, seq) for name, epoch, seq in await self._all("SELECT * FROM place")}

    async def clear(self) -> None:
        """Forget everything: the log was set back."""
        await self._db.executescript(f"BEGIN; {' '.join(f'DELETE FROM {table};' for table in _TABLES)} COMMIT")

    async def equipment(self) -> Equipment:
        return Equipment({number: name for number, name in await self._all("SELECT number, name FROM equipment")})

    async def facts(self) -> Facts:
        """What is known of the fates of numbers."""
        facts = Facts()
        for epoch, stream, kind, text in await self._all("SELECT epoch, stream, kind, ranges FROM numbers"):
            key, ranges = Key(epoch, Stream(stream)), union((first, last) for first, last in json.loads(text))
            facts.recall(key, kind, ranges)
        for (body,) in await self._all("SELECT body FROM receipt"):
            facts.receipt(Receipt.from_body(zstandard.decompress(body)))
        for row in await self._all("SELECT at_epoch, seq, epoch, start_us FROM said"):
            facts.say(Said(*row))
        return facts

    async def spans(self) -> list[Piece]:
        """The pieces of windows that are not settled, in order, without their tallies."""
        sql = "SELECT epoch, start_us, first, last, is_hole FROM piece ORDER BY epoch, first"
        found = await self._all(sql)
        return [Piece(epoch, start_us, first, last, bool(is_hole)) for epoch, start_us, first, last, is_hole in found]

    async def last_piece(self, epoch: int) -> Piece | None:
        """The piece of an epoch that was written last."""
        sql = f"SELECT {_PIECE} FROM piece WHERE epoch = ? ORDER BY first DESC LIMIT 1"
        found = [_piece(row) for row in await self._all(sql, epoch)]
        return found[0] if found else None

    async def pieces(self, epoch: int, after: int) -> list[Piece]:
        """The pieces that begin after a number, in order."""
        sql = f"SELECT {_PIECE} FROM piece WHERE epoch = ? AND first > ? ORDER BY first"
        return [_piece(row) for row in await self._all(sql, epoch, after)]

    async def write(
        self, learned: Learned, equipment: Mapping[int, str], places: Mapping[Stream, tuple[int, int]]
    ) -> None:
        """Write down what a turn has learned, and the places it has come to, in one transaction."""
        pieces = [
            (piece.epoch, piece.first, piece.last, piece.start_us, piece.is_hole, piece.body())
            for piece in learned.pieces.values()
        ]
        numbers = [(*key, kind, json.dumps(ranges)) for (key, kind), ranges in learned.numbers.items()]
        receipts = [(*key, zstandard.compress(receipt.to_body())) for key, receipt in learned.receipts.items()]
        await self._in_one(
            ("INSERT OR REPLACE INTO equipment VALUES(?, ?)", list(equipment.items())),
            ("INSERT OR REPLACE INTO piece VALUES(?, ?, ?, ?, ?, ?)", pieces),
            ("INSERT OR REPLACE INTO owner VALUES(?, ?, ?, ?)", [(epoch, *each) for epoch, each in learned.stretches]),
            ("INSERT OR REPLACE INTO numbers VALUES(?, ?, ?, ?)", numbers),
            ("INSERT OR REPLACE INTO receipt VALUES(?, ?, ?)", receipts),
            ("INSERT OR REPLACE INTO said VALUES(?, ?, ?, ?)", learned.said),
            ("INSERT OR REPLACE INTO place VALUES(?, ?, ?)", [(name, *place) for name, place in places.items()]),
        )

    async def opened(self, epoch: int, start_us: int) -> Open:
        """All that is kept of a window that is not settled."""
        sql = f"SELECT {_PIECE} FROM piece WHERE epoch = ? AND start_us = ? ORDER BY first"
        pieces = [_piece(row) for row in await self._all(sql, epoch, start_us)]
        stretches: list[Stretch] = []
        sql = "SELECT first, last, body FROM owner WHERE epoch = ? AND first BETWEEN ? AND ? ORDER BY first"
        for piece in pieces:
            stretches += [Stretch(*row) for row in await self._all(sql, epoch, piece.first, piece.last)]
        return Open(pieces, stretches)

    async def settled(self, from_us: int, to_us: int, limit: int) -> list[Settled]:
        """The newest settled windows that begin in this range of time."""
        sql = f"SELECT {_SETTLED} FROM settled WHERE start_us BETWEEN ? AND ? ORDER BY start_us DESC LIMIT ?"
        return [_settled(row) for row in await self._all(sql, from_us, to_us, limit)]

    async def settled_window(self, epoch: int, start_us: int) -> Settled | None:
        sql = f"SELECT {_SETTLED} FROM settled WHERE epoch = ? AND start_us = ?"
        found = [_settled(row) for row in await self._all(sql, epoch, start_us)]
        return found[0] if found else None

    async def settle(self, window: Settled, numbers: Ranges) -> None:
        """Close the account of a window: one row takes the place of its pieces, which have these numbers."""
        body = zstandard.compress(json.dumps(window.known, separators=(",", ":")).encode())
        pieces = [(window.epoch, first, last) for first, last in numbers]
        await self._in_one(
            ("INSERT OR REPLACE INTO settled VALUES(?, ?, ?, ?)", [(*window[:3], body)]),
            ("DELETE FROM piece WHERE epoch = ? AND first BETWEEN ? AND ?", pieces),
            ("DELETE FROM owner WHERE epoch = ? AND first BETWEEN ? AND ?", pieces),
            ("DELETE FROM said WHERE epoch = ? AND start_us = ?", [window[:2]]),
        )

    async def trim(self, size_max: int) -> tuple[int, int, int]:
        """Delete the oldest windows while the bound is near; gives how many rows of windows went, and below which
        epoch and number.
        """
        deleted, until = 0, (0, 0)
        if await self.used_bytes() <= FULL_AT * size_max:
            return 0, *until
        sql = "SELECT epoch, first FROM piece UNION ALL SELECT epoch, first FROM settled ORDER BY 1, 2 LIMIT ?"
        while await self.used_bytes() > TRIMMED_TO * size_max:
            oldest = await self._all(sql, _TRIM_ROWS)
            if len(oldest) < _TRIM_ROWS:
                break  # The newest stay, whatever they take.
            until = oldest[-1]
            await self._in_one(
                *((f"DELETE FROM {table} WHERE (epoch, first) < (?, ?)", [until]) for table in _WINDOWS_TABLES)
            )
            deleted += len(oldest) - 1
        return deleted, *until

    async def used_bytes(self) -> int:
        """Bytes in use; freed pages are used again before the file grows."""
        pages = await _number(self._db, "PRAGMA page_count") - await _number(self._db, "PRAGMA freelist_count")
        return pages * await _number(self._db, "PRAGMA page_size")

    async def _all(self, sql: str, *parameters: object) -> list[Any]:
        return list(await self._reader.execute_fetchall(sql, parameters))

    async def _in_one(self, *statements: tuple[str, Sequence[Any]]) -> None:
        """Run statements for many rows each, in one transaction."""
        if self._db.in_transaction:
            await self._db.execute("ROLLBACK")  # Of an attempt that failed.
        await self._db.execute("BEGIN IMMEDIATE")
        for sql, rows in statements:
            if rows:
                await self._db.executemany(sql, rows)
        await self._db.execute("COMMIT")


def _piece(row: Any) -> Piece:
    epoch, start_us, first, last, is_hole, body = row
    return Piece(epoch, start_us, first, last, bool(is_hole), Piece.tallies_of(body))


def _settled(row: Any) -> Settled:
    epoch, start_us, first, body = row
    return Settled(epoch, start_us, first, json.loads(zstandard.decompress(body)))


async def _number(db: aiosqlite.Connection, sql: str) -> int:
    async with db.execute(sql) as rows:
        row = await rows.fetchone()
    assert row is not None, sql
    return int(row[0])
