"""The write-ahead log's file, looked at before SQLite does: damage in it would be taken for its end.

SQLite reads a write-ahead log up to the first frame whose checksum does not fit, and lets go of the commits behind
it without a word: entries that were answered would be gone, and their numbers given to others. So commits behind a
damaged frame are made readable again, and what the frame held is found missing by the log's own checksums.
The format is that of https://sqlite.org/fileformat2.html#walformat.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

_HEAD: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MAGIC: Final = 0x377F0682
"""The lowest bit says that checksums take words with the highest byte first."""
_VERSION: Final = 3_007_000
_SUM_AT: Final = 24
"""The head's checksum is over what stands before it."""
_PAGE_BYTES: Final = 4_096

Sum: TypeAlias = tuple[int, int]


class _Frame(NamedTuple):
    """One page as a transaction wrote it."""

    at: int
    page: int
    pages: int
    """Of the file after the transaction; 0 for all frames of it but the last."""
    salts: Sum
    sum: Sum


@dataclass(slots=True)
class _Wal:
    data: bytearray
    page_bytes: int
    order: str
    salts: Sum
    sum: Sum
    is_headed: bool
    """Whether the head is whole; otherwise it is guessed from the first frame."""

    @classmethod
    def of(cls, data: bytearray) -> "_Wal | None":
        if len(data) < _HEAD.size + _FRAME.size:
            return None
        magic, version, page_bytes, _, *rest = _HEAD.unpack_from(data)
        salts, total = (rest[0], rest[1]), (rest[2], rest[3])
        order = ">" if magic & 1 else "<"
        if magic & ~1 == _MAGIC and version == _VERSION and total == _sum((0, 0), data[:_SUM_AT], order):
            return cls(data, page_bytes, order, salts, total, True)
        first = _FRAME.unpack_from(data, _HEAD.size)
        return cls(data, _PAGE_BYTES, "<", (first[2], first[3]), (0, 0), False)

    def frames(self) -> Iterator[_Frame]:
        size = _FRAME.size + self.page_bytes
        for at in range(_HEAD.size, len(self.data) - size + 1, size):
            page, pages, *rest = _FRAME.unpack_from(self.data, at)
            yield _Frame(at, page, pages, (rest[0], rest[1]), (rest[2], rest[3]))

    def sum_of(self, frame: _Frame, before: Sum) -> Sum:
        head = self.data[frame.at : frame.at + 8]
        page = self.data[frame.at + _FRAME.size : frame.at + _FRAME.size + self.page_bytes]
        return _sum(before, head + page, self.order)

    def damaged(self) -> list[_Frame]:
        """The frames that are not as they were written; each is held against the sum of the one before."""
        found, before = [], self.sum
        for frame in self.frames():
            if frame.salts != self.salts or self.sum_of(frame, before) != frame.sum:
                found.append(frame)
            before = frame.sum
        return found

    def rewrite(self, last: _Frame, damaged: set[int]) -> None:
        """Give every frame up to `last` a sum that fits, and end there."""
        self.order = "<"
        _HEAD.pack_into(self.data, 0, _MAGIC, _VERSION, self.page_bytes, 0, *self.salts, 0, 0)
        self.sum = _sum((0, 0), self.data[:_SUM_AT], self.order)
        _HEAD.pack_into(self.data, 0, _MAGIC, _VERSION, self.page_bytes, 0, *self.salts, *self.sum)
        total, kept = self.sum, None
        for frame in self.frames():
            if frame.at in damaged:
                is_page = 0 < frame.page <= last.pages
                if not is_page and kept is not None:  # Of no use: the frame before, once more.
                    copy = self.data[kept.at : kept.at + _FRAME.size + self.page_bytes]
                    self.data[frame.at : frame.at + len(copy)] = copy
                frame = frame._replace(page=frame.page if is_page or kept is None else kept.page, pages=0)
            _FRAME.pack_into(self.data, frame.at, frame.page, frame.pages, *self.salts, 0, 0)
            total = self.sum_of(frame, total)
            _FRAME.pack_into(self.data, frame.at, frame.page, frame.pages, *self.salts, *total)
            kept = frame
            if frame.at == last.at:
                break
        del self.data[last.at + _FRAME.size + self.page_bytes :]


def mended(path: Path) -> str:
    """Make commits behind damage in this database's write-ahead log readable; says what was damaged.

    Empty when nothing was: an end that was cut in the middle of a write is not damage, as nobody had its answer.
    The database must not be open.
    """
    file = Path(f"{path}-wal")
    if not file.exists() or (wal := _Wal.of(bytearray(file.read_bytes()))) is None:
        return ""
    damaged = wal.damaged()
    first = -1 if not wal.is_headed else damaged[0].at if damaged else len(wal.data)
    wrong = {frame.at for frame in damaged} - ({_HEAD.size} if not wal.is_headed else set())
    commits = [frame for frame in wal.frames() if frame.at > first and frame.at not in wrong and frame.pages]
    if not commits:
        return ""
    wal.rewrite(commits[-1], wrong)
    file.write_bytes(wal.data)
    count = sum(at <= commits[-1].at for at in wrong)
    return f"{count} frames of the write-ahead log are damaged" if count else "the write-ahead log's head is damaged"


def _sum(before: Sum, data: bytes | bytearray, order: str) -> Sum:
    """SQLite's checksum: two running sums over pairs of 32-bit words."""
    one, two = before
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word in words:
        one = (one + word + two) & 0xFFFF_FFFF
        two = (two + next(words) + one) & 0xFFFF_FFFF
    return one, two
