"""Entries of opened envelopes as Arrow rows of the silver tables. Pure: no file, no clock."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appliance.contract.gap import GAP_ORIGIN
from appliance.contract.ledger import (
    LEDGER_ORIGIN,
    YEAR_1970_US,
    YEAR_2200_US,
    Tally,
    WindowTally,
    event_times_us,
    int64_times,
)
from appliance.contract.prediction import ALARM_ORIGIN, PREDICTION_ORIGIN, Alarm, Prediction
from appliance.contract.reading import Reading, Stream, message_id
from appliance.contract.topic import Topic, TopicError
from cloud_sync import tables
from cloud_sync.tables import LEVEL_COLUMNS

_TYPE_NAMES: dict[type, str] = {float: "float", int: "int", bool: "bool", str: "text", type(None): "null"}
_PLACES_MAX = 100_000


class Run(NamedTuple):
    """Consecutive entries that are new to silver, and the letter that brought them."""

    plant: str
    epoch: int
    stream: Stream
    first: int
    entries: Sequence[Reading]
    hub: str
    partition: int
    sequence: int
    enqueued_us: int


def reading_rows(runs: Sequence[Run], table: tables.Table = tables.READINGS) -> pa.Table:
    """Rows of `silver/readings`, or of `silver/events`."""
    entries = [entry for run in runs for entry in run.entries]
    if not entries:
        return table.schema.empty_table()
    topics, values, qualities, sources, servers, arrivals, origins = zip(*entries, strict=True)
    columns = {
        **_of_runs(runs),
        **_places(topics),
        **_times(sources, arrivals),
        "server_ts": _time(event_times_us(servers, arrivals)),
        **_values(values),
        "quality": pa.array(qualities, pa.int32()),
        "origin": _texts(origins),
    }
    columns["late_by_ms"] = _late_by(sources, columns["enqueued_at"])
    return _table(table, columns)


def event_rows(runs: Sequence[Run]) -> dict[str, pa.Table]:
    """Rows of the tables of predictions, alarms, gaps and the ledger, and of `silver/events` for all the rest."""
    opened: dict[str, list[tuple[Run, dict[str, Any]]]] = {table.name: [] for table, _ in _OPENERS.values()}
    others: list[Run] = []
    for run in chain.from_iterable(map(_one_by_one, runs)):
        try:
            table, opener = _OPENERS[run.entries[0].origin]
            opened[table.name] += [(run, _fitting(table, columns)) for columns in opener(run.entries[0])]
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            others.append(run)  # Of another kind, or written by a newer or a broken appliance; kept as it is.
    return {
        **{name: _opened(tables.BY_NAME[name], rows) for name, rows in opened.items()},
        tables.EVENTS.name: reading_rows(others, tables.EVENTS),
    }


def _prediction(entry: Reading) -> Iterator[dict[str, Any]]:
    said = Prediction.from_entry(entry)
    signs = json.dumps([asdict(sign) for sign in said.signs], ensure_ascii=False)
    names = ("probability", "horizon_s", "life_low_s", "life_high_s", "health", "model", "mode")
    yield {"of": said.equipment, "signs": signs, **{name: getattr(said, name) for name in names}}


def _alarm(entry: Reading) -> Iterator[dict[str, Any]]:
    said = Alarm.from_entry(entry)
    names = ("key", "priority", "message", "value", "limit")
    columns = {name: getattr(said, name) for name in names}
    yield {"of": said.equipment, "state": str(said.state), "raised_at": _within(said.raised_at_us), **columns}


def _gap(entry: Reading) -> Iterator[dict[str, Any]]:
    said = json.loads(str(entry.value))
    numbers = {name: int(said[name]) for name in ("first", "last", "count", "unread")}
    yield {
        "gap_epoch": int(said["epoch"]),
        "gap_stream": str(said["stream"]),
        "reason": str(said["reason"]),
        "gap": str(entry.value),
        **numbers,
    }


def _window(entry: Reading) -> Iterator[dict[str, Any]]:
    said = WindowTally.from_entry(entry)
    tallies: Iterable[tuple[str | None, Tally]] = said.equipment.items() or [(None, Tally())]
    for path, tally in tallies:
        yield {
            "window_start": _within(said.start_us),
            "ledger_epoch": said.epoch,
            "first": said.first,
            "last": said.last,
            "equipment_path": path,
            "entries": tally.entries,
            "fingerprint": signed(tally.fingerprint),
        }


_OPENERS: dict[str, tuple[tables.Table, Callable[[Reading], Iterator[dict[str, Any]]]]] = {
    PREDICTION_ORIGIN: (tables.PREDICTIONS, _prediction),
    ALARM_ORIGIN: (tables.ALARMS, _alarm),
    GAP_ORIGIN: (tables.GAPS, _gap),
    LEDGER_ORIGIN: (tables.LEDGER, _window),
}


def signed(word: int) -> int:
    """The number between -2^63 and 2^63 that has the same 64 bits."""
    return word - 2**64 if word >= 2**63 else word


def _within(at_us: int) -> int:
    return min(max(at_us, YEAR_1970_US), YEAR_2200_US)


def _fitting(table: tables.Table, columns: dict[str, Any]) -> dict[str, Any]:
    """The columns of one event; raises ValueError, TypeError or OverflowError for a value its column cannot hold."""
    for name in columns.keys() - {"of"}:
        kind = table.schema.field(name).type
        pa.scalar(columns[name], pa.int64() if kind == tables.TIME else kind)
    return columns


def _opened(table: tables.Table, rows: Sequence[tuple[Run, dict[str, Any]]]) -> pa.Table:
    if not rows:
        return table.schema.empty_table()
    runs = [run for run, _ in rows]
    entries = [run.entries[0] for run in runs]
    sources, arrivals = [entry.source_us for entry in entries], [entry.arrival_us for entry in entries]
    columns: dict[str, Any] = {**_of_runs(runs), **_times(sources, arrivals)}
    if "of" in rows[0][1]:
        columns |= _places([f"{opened['of']}/_" for _, opened in rows])
    for name in rows[0][1].keys() - {"of"}:
        kind = table.schema.field(name).type
        columns[name] = pa.array([opened[name] for _, opened in rows], pa.int64() if kind == tables.TIME else kind)
        columns[name] = columns[name].cast(kind)
    return _table(table, columns)


def _one_by_one(run: Run) -> Iterable[Run]:
    return (run._replace(first=run.first + position, entries=(e,)) for position, e in enumerate(run.entries))


def _of_runs(runs: Sequence[Run]) -> dict[str, pa.Array]:
    """The columns that a run has only one value of, and the numbers."""
    counts = np.array([len(run.entries) for run in runs])
    which = pa.array(np.repeat(np.arange(len(runs)), counts))
    starts = np.cumsum(counts) - counts
    seq = np.repeat(np.array([run.first for run in runs], np.int64) - starts, counts) + np.arange(counts.sum())
    heads = pa.array([message_id(run.plant, run.epoch, run.stream, 0)[:-1] for run in runs])
    numbers = pa.array(seq)
    return {
        "plant": pa.array([run.plant for run in runs]).take(which),
        "epoch": pa.array([run.epoch for run in runs], pa.int64()).take(which),
        "stream": pa.array([str(run.stream) for run in runs]).take(which),
        "seq": numbers,
        "message_id": pc.binary_join_element_wise(heads.take(which), numbers.cast(pa.string()), ""),
        "enqueued_at": _time(np.array([run.enqueued_us for run in runs])).take(which),
        "eh_hub": pa.array([run.hub for run in runs]).take(which),
        "eh_partition": pa.array([run.partition for run in runs], pa.int32()).take(which),
        "eh_sequence": pa.array([run.sequence for run in runs], pa.int64()).take(which),
    }


def _places(topics: Sequence[str]) -> dict[str, pa.Array]:
    coded = pa.array(topics).dictionary_encode()
    levels = list(zip(*map(_levels, coded.dictionary.to_pylist()), strict=True))
    columns = {
        name: pa.array(of_level, pa.string()).take(coded.indices)
        for name, of_level in zip((*LEVEL_COLUMNS, "tag"), levels, strict=True)
    }
    return {**columns, "topic": coded.dictionary.take(coded.indices)}


@lru_cache(_PLACES_MAX)
def _levels(topic: str) -> tuple[str | None, ...]:
    try:
        place = Topic.parse(topic)
    except TopicError:
        return (None,) * (len(LEVEL_COLUMNS) + 1)
    return (place.enterprise, place.site, place.area, place.line, place.cell, place.equipment, place.tag)


def _times(sources: Sequence[int], arrivals: Sequence[int]) -> dict[str, pa.Array]:
    at = event_times_us(sources, arrivals)
    days = (at // 86_400_000_000).astype(np.int32)
    return {"event_ts": _time(at), "event_date": pa.array(days).cast(pa.date32()), "arrival_ts": _arrivals(arrivals)}


def _arrivals(arrivals: Sequence[int]) -> pa.Array:
    return _time(np.clip(int64_times(arrivals), YEAR_1970_US, YEAR_2200_US - 1))


def _late_by(sources: Sequence[int], enqueued_at: pa.Array) -> pa.Array:
    at = int64_times(sources)
    late = (enqueued_at.cast(pa.int64()).to_numpy(zero_copy_only=False) - at) // 1_000
    return pa.array(late, pa.int64(), mask=(at < YEAR_1970_US) | (at >= YEAR_2200_US))


def _time(at_us: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
    return pa.array(at_us.astype(np.int64, copy=False)).cast(tables.TIME)


def _values(values: Sequence[Any]) -> dict[str, pa.Array]:
    kinds = list(map(type, values))
    count = len(values)
    if kinds.count(float) == count:
        return {
            "value": pa.array(values, pa.float64(), from_pandas=False),
            "value_text": pa.nulls(count, pa.string()),
            "value_int": pa.nulls(count, pa.int64()),
            "value_type": pa.repeat(pa.scalar("float"), count),
        }
    pairs = list(zip(values, kinds, strict=True))
    counted = {float, int, bool}
    numbers = [float(value) if kind in counted else None for value, kind in pairs]
    return {
        "value": pa.array(numbers, pa.float64(), from_pandas=False),
        "value_text": pa.array([value if kind is str else None for value, kind in pairs], pa.string()),
        "value_int": pa.array([value if kind is int else None for value, kind in pairs], pa.int64()),
        "value_type": _texts([_TYPE_NAMES[kind] for kind in kinds]),
    }


def _texts(texts: Sequence[str]) -> pa.Array:
    coded = pa.array(texts, pa.string()).dictionary_encode()
    return coded.dictionary.take(coded.indices)


def _table(table: tables.Table, columns: dict[str, pa.Array]) -> pa.Table:
    return pa.Table.from_arrays([columns[name] for name in table.schema.names], schema=table.schema)
