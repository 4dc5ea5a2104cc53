"""The tables of the Buffer's file, how they are made, and how older files become like them."""

import time
from pathlib import Path

import aiosqlite

from appliance.contract.reading import Stream

SCHEMA_VERSION = 2
WAL_BYTES = 8 * 1024 * 1024
"""What the write-ahead log may keep between two commits; the bound on the file leaves room for it."""
_TABLES = """
CREATE TABLE store(plant TEXT NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE stream(name TEXT PRIMARY KEY, last INTEGER NOT NULL, digest BLOB NOT NULL DEFAULT x'') WITHOUT ROWID;
CREATE TABLE cursor(name TEXT, stream TEXT, seq INTEGER NOT NULL, state TEXT NOT NULL,
                    PRIMARY KEY(name, stream)) WITHOUT ROWID;
CREATE TABLE latest(topic TEXT PRIMARY KEY, source_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE chunk_readings(first INTEGER PRIMARY KEY, count INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE chunk_events(first INTEGER PRIMARY KEY, count INTEGER NOT NULL, body BLOB NOT NULL);
"""
# The body comes last, so that what is said about a block is read without reading the block.
_BLOCKS = "".join(
    f"CREATE TABLE block_{stream.value}(first INTEGER PRIMARY KEY, count INTEGER NOT NULL, size INTEGER NOT NULL, "
    "crc32c INTEGER NOT NULL, from_us INTEGER NOT NULL, to_us INTEGER NOT NULL, "
    "previous BLOB NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL);\n"
    for stream in Stream
)
TABLES = frozenset(
    {"store", "stream", "cursor", "latest", *(f"{kind}_{s.value}" for s in Stream for kind in ("block", "chunk"))}
)
"""A version has tables of its own, so that a number that was damaged is told from a newer file."""


class StoreError(Exception):
    """A buffer file that cannot be used as it is; the text says what to do."""


async def prepare(connection: aiosqlite.Connection) -> None:
    """What holds for every connection to the file."""
    for pragma in ("busy_timeout=5000", "auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=FULL"):
        await connection.execute(f"PRAGMA {pragma}")
    await connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES // 2}")


async def epoch_of(writer: aiosqlite.Connection, path: Path, plant: str) -> int:
    """The epoch of the plant's file, made or brought to this version first; raises `StoreError`."""
    async with writer.execute("PRAGMA user_version") as rows:
        (version,) = await rows.fetchone() or (0,)
    if version == 0:
        await _create(writer, plant)
    elif version == 1:
        await _in_one(writer, f"ALTER TABLE stream ADD COLUMN digest BLOB NOT NULL DEFAULT x''; {_BLOCKS}")
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
    name = plant.replace("'", "''")
    await _in_one(
        writer,
        f"{_TABLES} {_BLOCKS} INSERT INTO stream(name, last) VALUES {streams};"
        f"INSERT INTO store VALUES('{name}', {epoch});",
    )


async def _in_one(writer: aiosqlite.Connection, script: str) -> None:
    """Run a script that makes the file what this version expects, wholly or not at all."""
    await writer.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
