"""The log's first page: without it SQLite reads nothing, though all the rest of the file may be whole.

It holds the database's header and where each table begins. All files of one version are made by the same statements,
so their tables begin at the same pages: the first page of a new file serves for one whose own is damaged.
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from appliance.buffer.store import Store
from appliance.contract.reading import Stream

PAGE_BYTES: Final = 4_096
_CHANGED_AT, _SIZE_AT, _FREE_AT, _VALID_AT = 24, 28, 32, 92
_FIXED: Final = {16: b"\x10\x00\x02\x02\x00\x40\x20\x20", 44: b"\x00\x00\x00\x04", 56: b"\x00\x00\x00\x01"}
"""Size and layout of pages, the form of the schema, UTF-8; see https://sqlite.org/fileformat2.html#the_database_header."""
_TABLES: Final = ("store", "stream", "cursor", *(f"{kind}_{s.value}" for s in Stream for kind in ("block", "chunk")))


async def mend_head(path: Path, plant: str) -> bool:
    """Give a file that SQLite cannot read at all the first page of a new one; True when that has helped.

    For reading only: what the page knew of free pages is gone.
    """
    if await asyncio.to_thread(_is_readable, path):
        return False
    with TemporaryDirectory(dir=path.parent, prefix="head-") as folder:
        new = Path(folder) / "new.db"
        async with Store.open(new, plant):
            pass
        return await asyncio.to_thread(_replace, path, new.read_bytes()[:PAGE_BYTES])


def _replace(path: Path, new: bytes) -> bool:
    page = bytearray(new)
    page[_SIZE_AT : _SIZE_AT + 4] = (path.stat().st_size // PAGE_BYTES).to_bytes(4, "big")
    page[_VALID_AT : _VALID_AT + 4] = page[_CHANGED_AT : _CHANGED_AT + 4]
    page[_FREE_AT : _FREE_AT + 8] = bytes(8)
    with path.open("r+b") as file:
        own = file.read(PAGE_BYTES)
        file.seek(0)
        file.write(page)
    if _is_readable(path):
        return True
    with path.open("r+b") as file:
        file.write(own)
    return False


def _is_readable(path: Path) -> bool:
    """Whether SQLite finds every table that entries are read from, and knows how a page is laid out."""
    with path.open("rb") as file:
        head = file.read(PAGE_BYTES)
    if len(head) == PAGE_BYTES and any(head[at : at + len(fixed)] != fixed for at, fixed in _FIXED.items()):
        return False
    try:
        with closing(sqlite3.connect(path)) as db:
            for table in _TABLES:
                db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
    except sqlite3.DatabaseError as error:
        return "locked" in str(error)
    return True
