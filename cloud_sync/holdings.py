"""Holdings: which numbers of a plant's log really stand in silver, read off the files that silver consists of.

Nothing here trusts what the companion believes to have written. Files of a Delta table never change, so each is read
once; whoever deletes a row makes a new file of the rest, and the row is missed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appliance.contract.ledger import (
    KINDS,
    WINDOW_US,
    Tally,
    Words,
    equipment_of_any,
    fingerprints_of,
    number_bits,
    text_hash,
)
from cloud_sync import tables
from cloud_sync.lake import Lake, files_of
from cloud_sync.ranges import Ranges
from cloud_sync.tables import Table

Source: TypeAlias = tuple[str, int, str]
"""Plant, epoch and stream."""
Window: TypeAlias = tuple[str, int, int]
"""Plant, epoch, and the window's start in microseconds."""
Tallies: TypeAlias = dict[str, Tally]

WINDOWS_US: int = 3 * 86_400_000_000
"""Windows that began so long before the newest one of their plant are no longer compared."""
ROWS_AT_ONCE = 500_000
_KEY = ["plant", "epoch", "stream", "seq"]
_MARKED = [*_KEY, "topic", "arrival_ts", "event_ts", "value", "value_text", "value_int", "value_type", "quality"]
_TOLD = ["plant", "ledger_epoch", "window_start", "first", "last", "equipment_path", "entries", "fingerprint"]
_KIND_OF = {
    "float": KINDS[float],
    "int": KINDS[int],
    "bool": KINDS[bool],
    "text": KINDS[str],
    "null": KINDS[type(None)],
}


@dataclass(slots=True)
class Account:
    """What one or many files hold."""

    ranges: dict[Source, list[tuple[int, int]]] = field(default_factory=dict)
    """Where a number stands twice, ranges overlap."""
    windows: dict[Window, Tallies] = field(default_factory=dict)
    told: dict[Window, list[tuple[int, int]]] = field(default_factory=dict)
    """The numbers of which the plant told a window; only in accounts of `silver/ledger`."""

    def add(self, other: "Account") -> None:
        for source, ranges in other.ranges.items():
            self.ranges.setdefault(source, []).extend(ranges)
        for window, ranges in other.told.items():
            self.told.setdefault(window, []).extend(ranges)
        for window, tallies in other.windows.items():
            mine = self.windows.setdefault(window, {})
            for equipment, tally in tallies.items():
                mine[equipment] = mine.get(equipment, Tally()).plus(tally)


class Holdings:
    """The accounts of the tables' present files, each file read once."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._files: dict[str, dict[str, Account]] = {}

    def readings(self) -> Account:
        """What `silver/readings` holds, by number and by window."""
        return self._account(tables.READINGS, _marked)

    def events(self) -> Account:
        """Which numbers of the stream `events` the tables of events hold."""
        whole = Account()
        for table in (tables.PREDICTIONS, tables.ALARMS, tables.EVENTS, tables.GAPS):
            whole.add(self._account(table, _numbered))
        whole.add(self._account(tables.LEDGER, _told))
        return whole

    def _account(self, table: Table, read: Callable[[str], Account]) -> Account:
        paths = files_of(self._lake.table(table.name))
        known = self._files.get(table.name, {})
        self._files[table.name] = files = {path: known.get(path) or read(path) for path in paths}
        whole = Account()
        for account in files.values():
            whole.add(account)
        _forget_old(whole.windows, files.values())
        return whole


def _forget_old(windows: dict[Window, Tallies], accounts: Iterable[Account]) -> None:
    newest: dict[str, int] = {}
    for plant, _, start_us in windows:
        newest[plant] = max(newest.get(plant, start_us), start_us)
    old = [window for window in windows if window[2] < newest[window[0]] - WINDOWS_US]
    for its in (windows, *(account.windows for account in accounts)):
        for window in old:
            its.pop(window, None)


def held(ranges: Iterable[tuple[int, int]]) -> tuple[Ranges, int]:
    """Ranges as a set, and how many numbers stood in more than one of them."""
    whole, doubled = Ranges(), 0
    for first, last in ranges:
        new = whole.take(first, last)
        doubled += last - first + 1 - sum(high - low + 1 for low, high in new)
    return whole, doubled


def _batches(path: str, table: Table, columns: list[str]) -> Iterable[pa.Table]:
    """Rows of a file, typed as the table says: other writers have other text types."""
    schema = pa.schema([table.schema.field(name) for name in columns])
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
            yield pa.Table.from_batches([batch]).select(columns).cast(schema)


def _numbered(path: str) -> Account:
    account = Account()
    for rows in _batches(path, tables.EVENTS, _KEY):
        _add_ranges(account, rows)
    return account


def _add_ranges(account: Account, rows: pa.Table) -> list[tuple[Source, pa.Table]]:
    """Add the numbers of these rows; gives the rows of each source."""
    parts = []
    for source, part in _by_source(rows):
        seqs = np.sort(part["seq"].to_numpy())
        breaks = np.flatnonzero(np.diff(seqs) != 1)
        firsts, lasts = seqs[np.r_[0, breaks + 1]], seqs[np.r_[breaks, len(seqs) - 1]]
        account.ranges.setdefault(source, []).extend(zip(firsts.tolist(), lasts.tolist(), strict=True))
        parts.append((source, part))
    return parts


def _by_source(rows: pa.Table) -> Iterable[tuple[Source, pa.Table]]:
    sources = rows.select(_KEY[:3]).group_by(_KEY[:3]).aggregate([]).to_pylist()
    for source in sources:
        part = rows
        if len(sources) > 1:
            wanted = [pc.equal(rows[name], value) for name, value in source.items()]
            part = rows.filter(pc.and_(pc.and_(wanted[0], wanted[1]), wanted[2]))
        yield (source["plant"], source["epoch"], source["stream"]), part


def _marked(path: str) -> Account:
    account = Account()
    for rows in _batches(path, tables.READINGS, _MARKED):
        for (plant, epoch, _), part in _add_ranges(account, rows):
            found = Account(windows={(plant, epoch, start): its for start, its in _tallied(part).items()})
            account.add(found)
    return account


def _tallied(rows: pa.Table) -> dict[int, Tallies]:
    """The tallies of readings, by the start of their window and by equipment."""
    topics = rows["topic"].combine_chunks().dictionary_encode()
    numbers, texts = topics.indices.to_numpy(), topics.dictionary.to_pylist()
    marks = fingerprints_of(
        rows["seq"].to_numpy().astype(np.uint64),
        _looked_up(map(text_hash, texts), topics),
        *_values(rows),
        rows["quality"].to_numpy().astype(np.uint64),
        rows["event_ts"].cast(pa.int64()).to_numpy(),
    )
    names = list(dict.fromkeys(map(equipment_of_any, texts)))
    number_of = {name: number for number, name in enumerate(names)}
    equipment = np.array([number_of[equipment_of_any(text)] for text in texts], np.int64)[numbers]
    arrivals = rows["arrival_ts"].cast(pa.int64()).to_numpy()
    starts, window = np.unique(arrivals - arrivals % WINDOW_US, return_inverse=True)
    cell = window * len(names) + equipment
    counts = np.bincount(cell, minlength=len(starts) * len(names))
    sums = np.zeros(len(counts), np.uint64)
    np.add.at(sums, cell, marks)
    found: dict[int, Tallies] = {int(start): {} for start in starts}
    for place in np.flatnonzero(counts).tolist():
        start, name = divmod(place, len(names))
        found[int(starts[start])][names[name]] = Tally(int(counts[place]), int(sums[place]))
    return found


def _values(rows: pa.Table) -> tuple[Words, Words]:
    """Kind and bits of each value, as the fingerprint wants them."""
    types = rows["value_type"].combine_chunks().dictionary_encode()
    kinds = _looked_up(map(_KIND_OF.__getitem__, types.dictionary.to_pylist()), types)
    bits = np.zeros(len(kinds), np.uint64)
    for kind, bits_of in _BITS_OF.items():
        mask = kinds == kind
        if mask.any():
            bits[mask] = bits_of(rows if mask.all() else rows.filter(pa.array(mask)))
    return kinds, bits


def _looked_up(of_each: Iterable[int], coded: pa.DictionaryArray) -> Words:
    words: Words = np.fromiter(of_each, np.uint64)[coded.indices.to_numpy()]
    return words


def _text_bits(rows: pa.Table) -> Words:
    texts = rows["value_text"].combine_chunks().dictionary_encode()
    return _looked_up(map(text_hash, texts.dictionary.to_pylist()), texts)


_BITS_OF: dict[int, Callable[[Any], Words]] = {
    KINDS[float]: lambda rows: number_bits(rows["value"].to_numpy()),
    KINDS[int]: lambda rows: rows["value_int"].to_numpy().view(np.uint64),
    KINDS[bool]: lambda rows: rows["value"].to_numpy().astype(np.uint64),
    KINDS[str]: _text_bits,
}


def _told(path: str) -> Account:
    """What the plants wrote down: the windows as they told them. An event of many equipments has a row for each."""
    account = Account()
    for rows in _batches(path, tables.LEDGER, [*_KEY, *_TOLD[1:]]):
        keys = rows.select(_KEY).group_by(_KEY).aggregate([])
        _add_ranges(account, keys)
        said = rows.set_column(
            rows.schema.get_field_index("window_start"), "window_start", rows["window_start"].cast(pa.int64())
        )
        spans: dict[Window, set[tuple[int, int]]] = {}
        columns = [said[name].to_pylist() for name in _TOLD]
        for plant, epoch, start_us, first, last, path_of, entries, mark in zip(*columns, strict=True):
            window = (plant, epoch, start_us)
            spans.setdefault(window, set()).add((first, last))
            mine = account.windows.setdefault(window, {})
            if path_of is not None:
                mine[path_of] = mine.get(path_of, Tally()).plus(Tally(entries, mark % 2**64))
        for window, ranges in spans.items():
            account.told.setdefault(window, []).extend(ranges)
    return account
