"""Entries as packed columns: a header in JSON and byte planes, small and quick to open.

    4 bytes     length of the header, lowest byte first
    header      JSON: what its writer says, `count`, the dictionaries, texts, and a description of each column
    planes      of the columns, each as `planes.py` says, in the order in which the header describes them

A topic is a place (all up to the last slash) and a name; `topics` counts the different ones. Times are microseconds,
`server` counts from the entry's own source time. `kind` says what a value is: 0 float, 1 integer, 2 boolean, 3 text,
4 null; integers and booleans stand in `i` and `b`, texts in the header. Floats stand side by side by topic in `f`: as
the bits of IEEE doubles or, where `decimals` says so for the topic, as integers to be divided by that power of ten.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import compress, count
from typing import Any

import numpy as np

from appliance.contract import decimals
from appliance.contract.planes import Groups, Ints, Reader, Writer, as_ints
from appliance.contract.reading import Reading, Value, columns_of

COUNT_MAX = 65_536
_KINDS: dict[type, int] = {float: 0, int: 1, bool: 2, str: 3, type(None): 4}
_FLOAT, _INT, _BOOL, _TEXT, _NULL = range(5)
_HEAD_BYTES = 4
_TOPICS_KEPT = 100_000
_make: Any = partial(tuple.__new__, Reading)
"""A Reading of seven columns' values, quicker than through its own constructor."""


def pack(head: Mapping[str, Any], entries: Sequence[Reading]) -> list[bytes]:
    """The parts, to be joined, of 1 to `COUNT_MAX` entries.

    Raises TypeError for a value of no known type, OverflowError for a time or integer beyond 64 bits.
    """
    topics, values, qualities, sources, servers, arrivals, origins = columns_of(entries)
    writer = Writer()
    texts, numbers = _coded(topics)
    (places, place_of), (names, name_of) = map(_coded, zip(*map(_split, texts), strict=True))
    origin_texts, origin_of = _coded(origins)
    groups = Groups.of(numbers)
    source_us = as_ints(sources)
    header = {
        **head,
        "count": len(entries),
        "topics": len(texts),
        "place": [places, writer.column(place_of)],
        "name": [names, writer.column(name_of)],
        "topic": writer.column(numbers),
        "origin": [origin_texts, writer.column(origin_of, groups)],
        "quality": writer.column(as_ints(qualities), groups),
        "source": writer.column(source_us, groups),
        "server": 0 if servers == sources else writer.column(as_ints(servers) - source_us, groups),
        "arrival": writer.column(as_ints(arrivals), groups),
        **_write_values(writer, values, numbers, groups),
    }
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode("ascii")
    return [len(text).to_bytes(_HEAD_BYTES, "little") + text, *writer.planes]


def unpack(data: bytes, topic: str = "") -> tuple[dict[str, Any], list[Reading]]:
    """The header, and the entries or those of one topic.

    Raises ValueError, TypeError, KeyError, IndexError or OverflowError for anything but what was packed.
    """
    begin = _HEAD_BYTES + int.from_bytes(data[:_HEAD_BYTES], "little")
    header = json.loads(data[_HEAD_BYTES:begin])
    reader, entries = Reader(data, begin), header["count"]
    texts = _read_topics(reader, header, entries)
    numbers = reader.column(header["topic"], entries)
    if topic and topic not in texts:
        return header, []
    chosen: Any = np.flatnonzero(numbers == texts.index(topic)) if topic else slice(None)
    topics = _looked_up(texts, numbers[chosen])
    groups = Groups.of(numbers)
    origin_texts, origin_of = header["origin"]
    origins = _looked_up(origin_texts, reader.column(origin_of, entries, groups)[chosen])
    qualities, source_us, lags, arrivals = (
        reader.column(header[name], entries, groups)[chosen] for name in ("quality", "source", "server", "arrival")
    )
    sources = source_us.tolist()
    servers = (source_us + lags).tolist() if lags.any() else sources
    values = list(_read_values(reader, header, numbers, groups)[chosen])
    reader.end()
    columns = (topics, values, qualities.tolist(), sources, servers, arrivals.tolist(), origins)
    return header, list(map(_make, zip(*columns, strict=True)))


def _read_topics(reader: Reader, header: dict[str, Any], entries: int) -> list[str]:
    topics = header["topics"]
    if not 0 < topics <= entries <= COUNT_MAX:
        raise ValueError(f"{topics} topics in {entries} entries are too few or too many")
    places, names = (
        _looked_up(texts, reader.column(spec, topics)) for texts, spec in (header["place"], header["name"])
    )
    return list(map(str.__add__, places, names))


def _write_values(writer: Writer, values: Sequence[Value], numbers: Ints, groups: Groups) -> dict[str, Any]:
    types = set(map(type, values))
    if unknown := types - _KINDS.keys():
        raise TypeError(f"a value is of {unknown.pop()}; the log keeps bool, int, float, str and None")
    kinds = np.frombuffer(bytes(map(_KINDS.__getitem__, map(type, values))), np.uint8).astype(np.int64)
    header: dict[str, Any] = {"kind": writer.column(kinds, groups)}
    for kind in sorted(_KINDS[its] for its in types):
        of_kind: Any = values
        if len(types) > 1:
            mask = kinds == kind
            of_kind, groups = list(compress(values, mask.tolist())), Groups.of(numbers[mask])
        if kind == _FLOAT:
            ordered = np.array(of_kind, np.float64)[groups.order]
            places = decimals.places_of(ordered, groups)
            header["decimals"] = writer.column(places)
            header["f"] = writer.grouped(decimals.to_ints(ordered, np.repeat(places, groups.counts)), groups)
        elif kind in (_INT, _BOOL):
            header["ib"[kind - _INT]] = writer.column(as_ints(of_kind), groups)
        elif kind == _TEXT:
            header["t"] = of_kind
    return header


def _read_values(reader: Reader, header: dict[str, Any], numbers: Ints, groups: Groups) -> Any:
    """The values of all entries, as an array of objects."""
    kinds = reader.column(header["kind"], len(numbers), groups)
    values = np.full(len(numbers), None, object)
    present = np.unique(kinds).tolist()
    for kind in present:
        mask = kinds == kind
        if len(present) > 1:
            groups = Groups.of(numbers[mask])
        values[mask] = _read_kind(reader, header, kind, groups)
    return values


def _read_kind(reader: Reader, header: dict[str, Any], kind: int, groups: Groups) -> list[Any]:
    entries = len(groups.order)
    of_kind: list[Any] = []
    if kind == _FLOAT:
        places = reader.column(header["decimals"], len(groups.starts))
        ordered = decimals.to_floats(reader.grouped(header["f"], groups), np.repeat(places, groups.counts))
        of_kind = groups.scattered(ordered).tolist()
    elif kind == _INT:
        of_kind = reader.column(header["i"], entries, groups).tolist()
    elif kind == _BOOL:
        of_kind = reader.column(header["b"], entries, groups).astype(np.bool_).tolist()
    elif kind == _TEXT:
        of_kind = header["t"]
        if not set(map(type, of_kind)) <= {str}:
            raise ValueError("a text is none")
    elif kind == _NULL:
        of_kind = [None] * entries
    if len(of_kind) != entries:
        raise ValueError(f"there are {len(of_kind)} values of kind {kind}, {entries} were promised")
    return of_kind


def _coded(texts: Sequence[str]) -> tuple[list[str], Ints]:
    """The different texts in the order in which they come, and for each text its number among them."""
    number_of: defaultdict[str, int] = defaultdict(count().__next__)
    numbers = np.fromiter(map(number_of.__getitem__, texts), np.int64, len(texts))
    return list(number_of), numbers


def _looked_up(texts: Sequence[str], numbers: Ints) -> list[str]:
    if numbers.min() < 0:
        raise ValueError("a number in a dictionary is negative")
    return list(map(texts.__getitem__, numbers.tolist()))


@lru_cache(_TOPICS_KEPT)
def _split(topic: str) -> tuple[str, str]:
    cut = topic.rfind("/") + 1
    return topic[:cut], topic[cut:]
