"""Salvage: what can still be read of a Buffer's file, be it whole, copied or damaged."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from appliance.buffer.blocks import chained
from appliance.buffer.chunks import decode
from appliance.contract.envelope import Sealed, open_sealed
from appliance.contract.gap import GAP_ORIGIN, Gap, GapReason
from appliance.contract.reading import Reading, Stream


class Piece(NamedTuple):
    """Consecutive entries of a file, as one block or chunk held them."""

    stream: Stream
    first: int
    entries: tuple[Reading, ...]


@dataclass(slots=True)
class Report:
    """What a look through the whole file has found."""

    plant: str = ""
    epoch: int = 0
    entries: dict[Stream, int] = field(default_factory=lambda: dict.fromkeys(Stream, 0))
    ranges: dict[Stream, list[tuple[int, int]]] = field(default_factory=lambda: {stream: [] for stream in Stream})
    """What can be read, in order, neighbours joined."""
    explained: dict[Stream, list[tuple[int, int]]] = field(default_factory=lambda: {stream: [] for stream in Stream})
    """What left on purpose, by the gaps in the file."""
    last: dict[Stream, int] = field(default_factory=lambda: dict.fromkeys(Stream, 0))
    faults: list[str] = field(default_factory=list)

    def missing(self, stream: Stream) -> list[tuple[int, int]]:
        """The numbers that should be there and are not, and no gap says why."""
        known = sorted(self.ranges[stream] + self.explained[stream])
        # When events have grown old and left, the gaps among them have left too.
        is_shortened = bool(self.explained[Stream.EVENTS]) and known
        missing, expected = [], known[0][0] if is_shortened else 1
        for first, last in known:
            if first > expected:
                missing.append((expected, first - 1))
            expected = max(expected, last + 1)
        if expected <= self.last[stream]:
            missing.append((expected, self.last[stream]))
        return missing


def pieces(path: Path, report: Report) -> Iterator[Piece]:
    """All that can be read, stream by stream in order; the report fills as they come. The file stays as it is."""
    with closing(_reading(path)) as db:
        db.execute("BEGIN")  # One view of the file, even when an appliance is at work on it.
        try:
            report.plant, report.epoch = db.execute("SELECT plant, epoch FROM store").fetchone() or ("", 0)
            for stream in Stream:
                report.last[stream] = db.execute("SELECT last FROM stream WHERE name = ?", (stream,)).fetchone()[0]
        except (sqlite3.DatabaseError, TypeError) as error:
            report.faults.append(f"the head of the file cannot be read: {error}")
        for stream in Stream:
            yield from _stream_pieces(db, stream, report)


def cursors(path: Path) -> list[tuple[str, Stream, int, str]]:
    """Where the followers stood; none when that cannot be read."""
    try:
        with closing(_reading(path)) as db:
            found = db.execute("SELECT name, stream, seq, state FROM cursor").fetchall()
            return [(name, Stream(stream), seq, state) for name, stream, seq, state in found]
    except (sqlite3.DatabaseError, ValueError):
        return []


def last_numbers(path: Path) -> dict[Stream, int]:
    """The number of the newest entry of each stream; raises ValueError when that cannot be read."""
    try:
        with closing(_reading(path)) as db:
            return {Stream(name): last for name, last in db.execute("SELECT name, last FROM stream")}
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path}: cannot be read as a log ({error}); `plantward buffer repair` mends it") from error


def forget_cursor(path: Path, name: str) -> int:
    """Remove the cursors of this name from a log that nobody is using; gives how many there were."""
    try:
        with closing(sqlite3.connect(path)) as db, db:
            return db.execute("DELETE FROM cursor WHERE name = ?", (name,)).rowcount
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path}: cannot be written ({error}); `plantward buffer repair` mends it") from error


def _reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, nor end the write-ahead log when it is closed."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _stream_pieces(db: sqlite3.Connection, stream: Stream, report: Report) -> Iterator[Piece]:
    head, expected = b"", 0
    for table in (f"block_{stream.value}", f"chunk_{stream.value}"):
        for row in _rows(db, table, report):
            first, count, body = row["first"], row["count"], row["body"]
            try:
                if "crc32c" in row.keys():
                    if row["digest"] != chained(row["previous"], body):
                        report.faults.append(f"{stream} {first}: the digest does not fit the block")
                    elif first == expected and row["previous"] != head:
                        report.faults.append(f"{stream} {first}: the chain of digests is broken")
                    head, expected = row["digest"], first + count
                    sealed = Sealed(report.plant, report.epoch, stream, first, count, row["crc32c"], body)
                    entries = open_sealed(sealed).entries
                else:
                    entries = tuple(decode(body))
            except (ValueError, TypeError) as error:
                report.faults.append(f"{stream} {first} to {first + count - 1}: {error}")
                continue
            _count(report, stream, first, len(entries))
            _explain(report, entries)
            yield Piece(stream, first, entries)


def _count(report: Report, stream: Stream, first: int, count: int) -> None:
    report.entries[stream] += count
    report.last[stream] = max(report.last[stream], first + count - 1)
    ranges = report.ranges[stream]
    if ranges and ranges[-1][1] + 1 == first:
        ranges[-1] = (ranges[-1][0], first + count - 1)
    else:
        ranges.append((first, first + count - 1))


def _explain(report: Report, entries: Sequence[Reading]) -> None:
    for entry in entries:
        if entry.origin != GAP_ORIGIN:
            continue
        gap = Gap.from_entry(entry)
        has_left = gap.first <= gap.last and gap.reason is not GapReason.CARRIED  # What was carried is still here.
        if gap.epoch == report.epoch and has_left:
            report.explained[gap.stream].append((gap.first, gap.last))


def _rows(db: sqlite3.Connection, table: str, report: Report) -> Iterator[sqlite3.Row]:
    """The rows of a table from the front, and behind a page that cannot be read, from the back."""
    db.row_factory = sqlite3.Row
    reached = -1
    try:
        for row in db.execute(f"SELECT * FROM {table} ORDER BY first"):
            reached = row["first"]
            yield row
        return
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):
            return  # A file of the first version has no blocks.
        report.faults.append(f"{table} after {reached}: {error}")
    behind: list[sqlite3.Row] = []
    try:
        for row in db.execute(f"SELECT * FROM {table} WHERE first > ? ORDER BY first DESC", (reached,)):
            behind.append(row)
    except sqlite3.DatabaseError as error:
        before = behind[-1]["first"] if behind else "the end"
        report.faults.append(f"{table} before {before}: {error}")
    yield from reversed(behind)
