"""A Chunk: loose entries as they are written down at first, in the form that costs the writer least.

A mark, a CRC-32C and the columns in marshal's form 4, which every Python since 3.4 reads. A chunk lives until its
entries are sealed and never leaves the file. Chunks of older files, and entries that marshal does not know, are
columns in JSON.
"""

import marshal
from collections.abc import Sequence

import google_crc32c

from appliance.contract import columns
from appliance.contract.reading import INT64_MAX, INT64_MIN, Reading

_MARK = b"\x01"
_VERSION = 4
_HEAD_BYTES = 5
_TYPES = {float, int, bool, str, type(None)}


def encode(entries: Sequence[Reading]) -> bytes:
    """The bytes of at least one entry; raises TypeError for a value of no known type, ValueError for a bad topic."""
    topics, values, qualities, *rest = zip(*entries, strict=True)
    "".join(set(topics)).encode()  # SQLite keeps topics as UTF-8, later: who cannot be kept is told now.
    kinds = set(map(type, values))
    if not kinds <= _TYPES or (int in kinds and not _are_narrow(values)):
        return columns.encode(entries)
    try:
        body = marshal.dumps((topics, values, tuple(map(int, qualities)), *rest), _VERSION)
    except ValueError:  # A subclass of str or int somewhere: rare, and JSON takes it.
        return columns.encode(entries)
    return _MARK + int(google_crc32c.value(body)).to_bytes(4, "big") + body


def decode(chunk: bytes) -> list[Reading]:
    """The entries of `encode`d bytes; raises ValueError for anything else."""
    if chunk[:1] != _MARK:
        return columns.decode(chunk)
    body = chunk[_HEAD_BYTES:]
    if google_crc32c.value(body) != int.from_bytes(chunk[1:_HEAD_BYTES], "big"):
        raise ValueError(f"the CRC-32C of a chunk of {len(chunk)} bytes does not fit")
    return list(map(Reading._make, zip(*marshal.loads(body), strict=True)))


def _are_narrow(values: Sequence[object]) -> bool:
    return all(INT64_MIN <= value <= INT64_MAX for value in values if type(value) is int)
