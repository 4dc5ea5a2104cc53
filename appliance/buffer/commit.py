"""A commit of the log: what it does as statements, and a connection that runs all of them in one call."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from appliance.buffer.blocks import NewBlock
from appliance.buffer.chunks import encode
from appliance.contract.reading import INT64_MAX, INT64_MIN, Reading, Stream

CHUNK_ENTRIES_MAX = 1_000
BEGIN: Final = "BEGIN IMMEDIATE"

Step: TypeAlias = tuple[str, Iterable[Sequence[Any]]]
"""A statement, and the rows of parameters that it is run with."""
_MOVE = "INSERT INTO cursor VALUES(?1, ?2, ?3, coalesce(?4, ''))"

_LATEST = (
    "INSERT INTO latest SELECT key, value FROM json_each(?) WHERE true "
    "ON CONFLICT DO UPDATE SET source_us = max(source_us, excluded.source_us)"
)


class Dropped(NamedTuple):
    """A range that leaves the file: whatever of it stands in blocks or chunks."""

    stream: Stream
    first: int
    last: int


class Transactions(sqlite3.Connection):
    """A connection whose `executemany` takes `BEGIN` and Steps: one transaction, wholly or not at all.

    aiosqlite runs each call in the connection's thread. So a commit is one way there and back, and it is never half
    done when the one who waits for it is cancelled. Steps may be a generator: it runs in that thread as well.
    """

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        self.execute(sql)
        try:
            for statement, rows in parameters:
                super().executemany(statement, rows)
            return self.execute("COMMIT")
        finally:
            if self.in_transaction:
                self.execute("ROLLBACK")


def steps(
    appended: Iterable[tuple[Stream, int, Sequence[Reading]]],
    moved: Sequence[tuple[str, Stream, int, str | None]],
    sealed: Iterable[NewBlock],
    dropped: Iterable[Dropped],
    sizes: list[int],
) -> Iterator[Step]:
    """The steps of a commit; `sizes` gets the bytes of what is appended.

    Raises what `encode` raises. The connection must know the function `chained`.
    """
    for block in sealed:
        yield from _seal(block)
    for stream, first, last in dropped:
        for kind in ("block", "chunk"):
            yield f"DELETE FROM {kind}_{stream.value} WHERE first BETWEEN ? AND ?", [(first, last)]
    for stream, first, entries in appended:
        for start in range(0, len(entries), CHUNK_ENTRIES_MAX):
            part = entries[start : start + CHUNK_ENTRIES_MAX]
            body = encode(part)
            sizes.append(len(body))
            yield f"INSERT INTO chunk_{stream.value} VALUES(?, ?, ?)", [(first + start, len(part), body)]
        yield "UPDATE stream SET last = ? WHERE name = ?", [(first + len(entries) - 1, stream)]
    if moved:
        yield f"{_MOVE} ON CONFLICT DO UPDATE SET seq = ?3, state = coalesce(?4, state)", moved


def _seal(block: NewBlock) -> Iterator[Step]:
    """All of it changes nothing a second time: a commit that was thought to have failed may have gone through."""
    sealed, stream = block.sealed, block.sealed.stream
    table, last = f"block_{stream.value}", sealed.first + sealed.count - 1
    head = sealed.first, sealed.count, len(sealed.body), sealed.crc32c, block.from_us, block.to_us
    columns = "?1, ?2, ?3, ?4, ?5, ?6, digest, chained(digest, ?7), ?7"
    insert = f"INSERT OR IGNORE INTO {table} SELECT {columns} FROM stream WHERE name = ?8"
    yield insert, [(*head, sealed.body, stream)]
    update = f"UPDATE stream SET digest = (SELECT digest FROM {table} WHERE first = ?) WHERE name = ?"
    yield update, [(sealed.first, stream)]
    if stream is Stream.READINGS:
        latest_us = {topic: at for topic, at in block.latest_us.items() if INT64_MIN <= at <= INT64_MAX}
        yield _LATEST, [(json.dumps(latest_us),)]
    yield f"DELETE FROM chunk_{stream.value} WHERE first BETWEEN ? AND ?", [(sealed.first, last)]
