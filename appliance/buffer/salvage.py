"""Salvage: what can still be read of a Buffer's file, be it whole, copied or damaged; and a new file made of it."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from appliance.buffer.blocks import chained
from appliance.buffer.chunks import decode
from appliance.buffer.head import mend_head
from appliance.buffer.schema import StoreError
from appliance.buffer.store import Store
from appliance.contract.envelope import Sealed, open_sealed
from appliance.contract.gap import GAP_ORIGIN, Gap, GapReason, gap_topic
from appliance.contract.reading import Reading, Stream
from appliance.supervisor import now_us

WHOLE_CHECK_BYTES_MAX = 256_000_000
"""Files up to this size are checked page by page at each start; larger ones when they are asked for."""
VERSION_MAX = 1_000
"""No file will ever be of a higher version; one that says so is damaged."""
SENDER = "bridge"
"""How the names of the cursors begin that send the log on: what they had taken stands in the lake, in the old epoch."""
_SIDE_FILES = ("", "-wal", "-shm")


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


def is_damaged(path: Path) -> str:
    """Why the file cannot be used as a log, in a few words; empty when it can, or is not there."""
    if not path.exists() or path.stat().st_size == 0:
        return ""
    try:
        with closing(sqlite3.connect(path)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version > VERSION_MAX or (tables and not version):
                return f"the file says it is of version {version}"
            if version and path.stat().st_size <= WHOLE_CHECK_BYTES_MAX:
                (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
                return "" if found == "ok" else str(found)
    except sqlite3.OperationalError as error:
        return str(error) if "unsupported file format" in str(error) else ""  # Locked, no permission: opening says so.
    except sqlite3.DatabaseError as error:
        return str(error)
    return ""


def set_aside(path: Path) -> Path:
    """Rename the file and its companions, with the time; gives the new name."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    for side in _SIDE_FILES:
        source = Path(f"{path}{side}")
        if source.exists():
            source.rename(f"{aside}{side}")
    return aside


def pieces(path: Path, report: Report) -> Iterator[Piece]:
    """All that can be read, stream by stream in order; the report fills as they come."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA query_only = 1")
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
        with closing(sqlite3.connect(path)) as db:
            found = db.execute("SELECT name, stream, seq, state FROM cursor").fetchall()
            return [(name, Stream(stream), seq, state) for name, stream, seq, state in found]
    except (sqlite3.DatabaseError, ValueError):
        return []


async def renew(path: Path, plant: str, root: str) -> tuple[Report, Path]:
    """Put a new log of a new epoch in the place of this one; gives what was found, and where the old one is kept.

    The new one is whole before it takes the place, so a kill at any instant costs nothing: `finish` ends the rest.
    """
    new = _unfinished(path)
    _remove(new)
    await mend_head(path, plant)
    report = await _salvage(path, new, plant, root)
    aside = set_aside(path)
    new.rename(path)
    return report, aside


def finish(path: Path) -> None:
    """End a renewal that was killed between its last two steps."""
    if not path.exists() and _unfinished(path).exists():
        _unfinished(path).rename(path)


def _sends(cursor: str) -> bool:
    return cursor.startswith(SENDER)


def _remove(path: Path) -> None:
    for side in _SIDE_FILES:
        Path(f"{path}{side}").unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.stem}.salvaged{path.suffix}")


async def _salvage(old: Path, new: Path, plant: str, root: str) -> Report:
    """Write what the old file still has into the new one: entries, cursors at the same entries, gaps.

    What a follower had taken it will not get again; what is lost is written as gaps of the old epoch.
    """
    report = Report()
    stood = cursors(old)
    taken = {(name, stream): 0 for name, stream, _, _ in stood}
    nexts = dict.fromkeys(Stream, 1)
    async with Store.open(new, plant) as store:
        for piece in pieces(old, report):
            if report.plant not in ("", plant):
                raise StoreError(f"buffer {old}: is damaged, and belongs to plant {report.plant!r}; move it away")
            await store.write([(piece.stream, nexts[piece.stream], piece.entries)])
            for name, stream, seq, _ in stood:
                if stream is piece.stream:
                    taken[name, stream] += min(len(piece.entries), max(0, seq - piece.first + 1))
            nexts[piece.stream] += len(piece.entries)
        lost = [
            Gap(report.epoch, stream, first, last, last - first + 1, 0, GapReason.DAMAGED, (), 0, 0, 0)
            for stream in Stream
            for first, last in report.missing(stream)
        ]
        carried = [
            Gap(store.epoch, stream, 1, last, last, 0, GapReason.CARRIED, (), 0, 0, 0)
            for stream in Stream
            if (last := max((seq for (name, its), seq in taken.items() if its is stream and _sends(name)), default=0))
        ]
        topic, at_us = gap_topic(root, plant), now_us()
        gaps = [gap.entry(topic, at_us) for gap in (*lost, *carried)]
        await store.write(
            [(Stream.EVENTS, nexts[Stream.EVENTS], gaps)] if gaps else [],
            [(name, stream, taken[name, stream], state) for name, stream, _, state in stood],
        )
    return report


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
        if entry.origin == GAP_ORIGIN and (gap := Gap.from_entry(entry)).epoch == report.epoch:
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
