"""Renewal: a damaged file is set aside, and a new log of a new epoch is made of what can be read."""

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from appliance.buffer.damage import damage_alarm, renewed, suspicion
from appliance.buffer.head import mend_head
from appliance.buffer.renumbering import Renumbering, Stood
from appliance.buffer.salvage import Piece, Report, cursors, pieces
from appliance.buffer.schema import SCHEMA_VERSION, TABLES, StoreError
from appliance.buffer.store import Store
from appliance.buffer.underway import FOLDER, UnderWay
from appliance.contract.envelope import Lane, envelopes
from appliance.contract.gap import Gap, GapReason, gap_topic
from appliance.contract.ranges import Range, minus, normal
from appliance.contract.reading import Stream
from appliance.supervisor import now_us

log = logging.getLogger(__name__)

WHOLE_CHECK_BYTES_MAX = 256_000_000
"""Files up to this size are checked page by page at each start; larger ones when they are asked for."""
VERSION_MAX = 1_000
"""No file will ever be of a higher version; one that says so is damaged."""
_SIDE_FILES = ("", "-wal", "-shm")


def is_damaged(path: Path) -> str:
    """Why the file cannot be used as a log, in a few words; empty when it can, or is not there."""
    if not path.exists() or path.stat().st_size == 0:
        return ""
    try:
        with closing(sqlite3.connect(path)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if not 0 <= version <= VERSION_MAX:
                return f"the file says it is of version {version}"
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()]
            if version > SCHEMA_VERSION and TABLES == set(tables):
                return f"the file says it is of version {version}, and has the tables of {SCHEMA_VERSION}"
            if tables and not version:
                return "the file says it is of no version"
            for table in tables:  # The ends of each table, which the appliance needs to start at all.
                db.execute(f"SELECT * FROM {table} ORDER BY 1 DESC LIMIT 1").fetchone()
                db.execute(f"SELECT * FROM {table} ORDER BY 1 LIMIT 1").fetchone()
            if version and (suspicion(path).exists() or path.stat().st_size <= WHOLE_CHECK_BYTES_MAX):
                (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
                return "" if found == "ok" else str(found)
    except sqlite3.OperationalError as error:
        return str(error) if "unsupported file format" in str(error) else ""  # Locked, no permission: opening says so.
    except sqlite3.DatabaseError as error:
        return str(error)
    return ""


def set_aside(path: Path, aside: Path) -> None:
    """Rename the file and its companions."""
    for side in _SIDE_FILES:
        source = Path(f"{path}{side}")
        if source.exists():
            source.rename(f"{aside}{side}")


async def renew(path: Path, plant: str, root: str, reason: str = "") -> tuple[Report, Path]:
    """Put a new log of a new epoch in the place of this one; gives what was found, and where the old one is kept.

    The new one holds an alarm that says so with the reason, and is whole before it takes the place, so
    a kill at any instant costs nothing: `finish` ends the rest.
    """
    new = _unfinished(path)
    _remove(new)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    await mend_head(path, plant)
    report = await _salvage(path, new, plant, root, f"{aside.name} ({reason})" if reason else aside.name)
    set_aside(path, aside)
    new.rename(path)
    return report, aside


def finish(path: Path) -> None:
    """End a renewal that was killed between its last two steps."""
    if not path.exists() and _unfinished(path).exists():
        _unfinished(path).rename(path)


def _remove(path: Path) -> None:
    for side in _SIDE_FILES:
        Path(f"{path}{side}").unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.stem}.salvaged{path.suffix}")


async def _salvage(old: Path, new: Path, plant: str, root: str, aside: str) -> Report:
    """Write what the old file still has into the new one: entries, cursors at the same entries, gaps, the alarm.

    What a follower had taken it will not get again; gaps explain each number of the old epoch that was not sent.
    """
    report, moved, nexts = Report(), Renumbering(), dict.fromkeys(Stream, 1)
    followers, under_way = cursors(old), UnderWay(old.parent / FOLDER)
    kept: dict[str, list[Range]] = {name: [] for name, *_ in followers}
    async with Store.open(new, plant) as store:
        for piece in pieces(old, report):
            if report.plant not in ("", plant):
                raise StoreError(f"buffer {old}: is damaged, and belongs to plant {report.plant!r}; move it away")
            await store.write([(piece.stream, nexts[piece.stream], piece.entries)])
            moved.add(piece.stream, piece.first, len(piece.entries), nexts[piece.stream])
            nexts[piece.stream] += len(piece.entries)
            for each in (Stood(*row, epoch=report.epoch) for row in followers):
                kept[each.name] += _kept(piece, each, plant, under_way)
        stood = [Stood(*row, epoch=report.epoch, kept=normal(kept[row[0]])) for row in followers]
        for each in stood:  # The head of the file may be what is damaged.
            report.last[each.stream] = max(report.last[each.stream], each.seq)
        topic, at_us = gap_topic(root, plant), now_us()
        gaps = [gap.entry(topic, at_us) for gap in _gaps(report, store.epoch, moved, stood)]
        alarm = damage_alarm(root, plant, *renewed(report, aside), at_us)
        await store.write(
            [(Stream.EVENTS, nexts[Stream.EVENTS], [*gaps, alarm])],
            [each.carried(moved, store.epoch) for each in stood],
        )
    return report


def _kept(piece: Piece, sender: Stood, plant: str, under_way: UnderWay) -> Iterator[Range]:
    """Keep what of this piece had left without an answer, in envelopes of the old epoch; gives what is kept."""
    if piece.stream is not sender.stream:
        return
    for first, last, lane in sender.under_way:
        begin, end = max(first, piece.first), min(last, piece.first + len(piece.entries) - 1)
        entries = piece.entries[begin - piece.first : end - piece.first + 1] if begin <= end else ()
        for sealed in envelopes(plant, sender.epoch, piece.stream, begin, entries):
            if under_way.keep(sealed, Lane(lane)):
                yield sealed.first, sealed.first + sealed.count - 1


def _gaps(report: Report, epoch: int, moved: Renumbering, stood: Sequence[Stood]) -> Iterator[Gap]:
    """What is lost, what has got new numbers, and what stands in the lake under its old ones."""
    for stream in Stream:
        sent = normal(span for each in stood if each.is_sender and each.stream is stream for span in each.taken)
        said = (
            (report.epoch, GapReason.DAMAGED, report.missing(stream)),
            (report.epoch, GapReason.RENUMBERED, minus(moved.old(stream), sent)),
            (epoch, GapReason.CARRIED, moved.new(stream, sent)),
        )
        for its_epoch, reason, spans in said:
            for first, last in spans:
                yield Gap(its_epoch, stream, first, last, last - first + 1, 0, reason, (), 0, 0, 0)
