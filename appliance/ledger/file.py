"""The Ledger's file as a file: its tables, whether it can be used, and where it goes when it cannot."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

SCHEMA_VERSION: Final = 1
SCHEMA: Final = """
CREATE TABLE place(stream TEXT PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE equipment(number INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE piece(epoch INTEGER, first INTEGER, last INTEGER NOT NULL, start_us INTEGER NOT NULL,
                   is_hole INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY(epoch, first)) WITHOUT ROWID;
CREATE INDEX piece_start ON piece(start_us);
CREATE TABLE owner(epoch INTEGER, first INTEGER, last INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY(epoch, first));
CREATE TABLE settled(epoch INTEGER, start_us INTEGER, first INTEGER NOT NULL, body BLOB NOT NULL,
                     PRIMARY KEY(epoch, start_us)) WITHOUT ROWID;
CREATE INDEX settled_start ON settled(start_us);
CREATE INDEX settled_age ON settled(epoch, first);
CREATE TABLE numbers(epoch INTEGER, stream TEXT, kind TEXT, ranges TEXT NOT NULL, PRIMARY KEY(epoch, stream, kind));
CREATE TABLE receipt(epoch INTEGER, stream TEXT, body BLOB NOT NULL, PRIMARY KEY(epoch, stream));
CREATE TABLE said(at_epoch INTEGER, seq INTEGER, epoch INTEGER, start_us INTEGER, PRIMARY KEY(at_epoch, seq));
CREATE INDEX said_window ON said(epoch, start_us);
"""
_SIDE_FILES: Final = ("", "-wal", "-shm")


def unusable(path: Path) -> str:
    """Why the file cannot be used, in a few words; empty when it can, or is not there."""
    if not path.exists():
        return ""
    try:
        with closing(sqlite3.connect(path)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA_VERSION):
                return f"it is of version {version}, this is {SCHEMA_VERSION}"
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            return "" if found == "ok" else str(found)
    except sqlite3.OperationalError:
        return ""  # Locked, or no permission: opening it says so.
    except sqlite3.DatabaseError as error:
        return str(error)


def set_aside(path: Path) -> Path:
    """Rename the file and its companions, with the time; gives the new name."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = path.with_name(f"{path.stem}.damaged-{stamp}{path.suffix}")
    for side in _SIDE_FILES:
        source = Path(f"{path}{side}")
        if source.exists():
            source.rename(f"{aside}{side}")
    return aside
