"""A Chunk: loose entries as they are written down at first, in the form that costs the writer least.

A mark, a CRC-32C and a zstd frame of the columns in marshal's form 2, which every Python reads: topics as one text,
times as 64-bit integers, lowest byte first. Chunks of older files are marshalled entry by entry, and entries that do
not fit are columns in JSON. A chunk lives until its entries are sealed and never leaves the file.
"""

import marshal
from collections.abc import Iterable, Sequence
from typing import Any

import google_crc32c
import numpy as np
import zstandard

from appliance.contract import columns
from appliance.contract.planes import as_ints
from appliance.contract.reading import INT64_MAX, INT64_MIN, Reading, columns_of

_PLAIN_MARK, _MARK = b"\x01", b"\x02"
_VERSION = 2
_LEVEL = 1
_HEAD_BYTES = 5
_BETWEEN_TOPICS = "\n"
_TYPES = {float, int, bool, str, type(None)}


def encode(entries: Sequence[Reading]) -> bytes:
    """The bytes of at least one entry; raises TypeError for a value of no known type, ValueError for a bad topic."""
    topics, values, qualities, sources, servers, arrivals, origins = columns_of(entries)
    text = _BETWEEN_TOPICS.join(topics).encode()  # Raises what SQLite would, later, for a topic that is no UTF-8.
    kinds = set(map(type, values))
    has_odd_topic = text.count(_BETWEEN_TOPICS.encode()) != len(topics) - 1
    if has_odd_topic or not kinds <= _TYPES or (int in kinds and not _are_narrow(values)):
        return columns.encode(entries)
    try:
        times = _packed(sources), None if servers == sources else _packed(servers), _packed(arrivals)
        body = marshal.dumps((text, values, _shared(qualities, int), *times, _shared(origins, str)), _VERSION)
    except (ValueError, OverflowError):  # A subclass of str or a time beyond 64 bits: rare, and JSON takes it.
        return columns.encode(entries)
    frame = zstandard.compress(body, _LEVEL)
    return _MARK + int(google_crc32c.value(frame)).to_bytes(4, "big") + frame


def decode(chunk: bytes) -> list[Reading]:
    """The entries of `encode`d bytes; raises ValueError for anything else."""
    mark, body = chunk[:1], chunk[_HEAD_BYTES:]
    if mark not in (_PLAIN_MARK, _MARK):
        return columns.decode(chunk)
    if not body or google_crc32c.value(body) != int.from_bytes(chunk[1:_HEAD_BYTES], "big"):
        raise ValueError(f"the CRC-32C of a chunk of {len(chunk)} bytes does not fit")
    held = marshal.loads(body) if mark == _PLAIN_MARK else _columns(marshal.loads(zstandard.decompress(body)))
    return list(map(Reading._make, zip(*held, strict=True)))


def _columns(packed: tuple[Any, ...]) -> Iterable[Sequence[Any]]:
    text, values, qualities, sources, servers, arrivals, origins = packed
    times = sources, sources if servers is None else servers, arrivals
    return (
        text.decode().split(_BETWEEN_TOPICS),
        values,
        _each(qualities, len(values)),
        *(np.frombuffer(its, "<i8").tolist() for its in times),
        _each(origins, len(values)),
    )


def _packed(times: Sequence[int]) -> bytes:
    return as_ints(times).astype("<i8", copy=False).tobytes()


def _shared(column: list[Any], kind: type) -> Any:
    """The one value that all are equal to, or all of them; quality may come as an enum, and goes as a number."""
    return kind(column[0]) if column.count(column[0]) == len(column) else list(map(kind, column))


def _each(column: Any, count: int) -> Sequence[Any]:
    return column if isinstance(column, list) else [column] * count


def _are_narrow(values: Sequence[object]) -> bool:
    return all(INT64_MIN <= value <= INT64_MAX for value in values if type(value) is int)
