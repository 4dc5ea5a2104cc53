"""Replay: recorded CSV or Parquet data onto the UNS, as if the machines said it now."""

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from appliance.broker.payload import iso
from appliance.broker.publisher import Publisher, PublishError
from appliance.contract.topic import Topic, TopicError

COLUMN: Final = "column"
WINDOW: Final = 2_000
"""Messages on their way at once, if the broker does not want fewer."""
ROWS_A_BATCH: Final = 4_096
PROGRESS_S: Final = 0.2
_FIELD: Final = re.compile(r"\{([^{}]*)\}")


class ReplayError(Exception):
    """A replay that cannot go on; one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the columns of a file become messages."""

    template: str
    time_column: str
    keys: tuple[str, ...]
    """Columns whose values stand in the topic."""
    values: tuple[str, ...]
    """Columns that become tags, or none when the template names no `{column}`."""

    @classmethod
    def of(cls, template: str, time_column: str, columns: Sequence[str]) -> Self:
        """Check a template against the columns of a file; raises `ReplayError`."""
        known = ", ".join(columns)
        if not template:
            raise ReplayError(f"there is no topic template; write for example acme/site/area/line/cell/m1/{{{COLUMN}}}")
        fields = _FIELD.findall(template)
        if "{" in (rest := _FIELD.sub("", template)) or "}" in rest:
            raise ReplayError(f"template {template!r}: a brace stands alone; write {{name}} for the value of a column")
        if time_column not in columns:
            raise ReplayError(f"there is no column {time_column!r} for the time; the file has {known}")
        for name in fields:
            if name != COLUMN and name not in columns:
                raise ReplayError(f"template {template!r}: there is no column {name!r}; the file has {known}")
        if COLUMN not in fields:
            raise ReplayError(
                f"template {template!r} has no {{{COLUMN}}}, the place of the tag; write .../{{{COLUMN}}}"
            )
        keys = tuple(dict.fromkeys(name for name in fields if name != COLUMN))
        values = tuple(name for name in columns if name not in keys and name != time_column)
        if not values:
            raise ReplayError(f"no column is left to be a tag; the file has {known}")
        return cls(template, time_column, keys, values)

    def topic(self, column: str, keys: Mapping[str, str]) -> str:
        """The topic of one column in rows with these keys; raises `ReplayError` when it does not fit ISA-95."""
        topic = _FIELD.sub(lambda found: column if found[1] == COLUMN else keys[found[1]], self.template)
        try:
            Topic.parse(topic)
        except TopicError as error:
            raise ReplayError(f"{error}; change the template or the data") from error
        return topic


@dataclass(frozen=True, slots=True)
class Recording:
    """A CSV or Parquet file, open for reading."""

    columns: tuple[str, ...]
    rows: int
    batches: Iterator[pa.RecordBatch]

    @classmethod
    @contextmanager
    def open(cls, file: Path) -> Iterator[Self]:
        """Open a file; raises `ReplayError`, also for faults found while its batches are read."""
        try:
            if _is_parquet(file):
                with pa.parquet.ParquetFile(file) as parquet:
                    names, rows = tuple(parquet.schema_arrow.names), parquet.metadata.num_rows
                    yield cls(names, rows, parquet.iter_batches(ROWS_A_BATCH))
            else:
                # Read as a whole, so that each column has one type: the first block alone may look like integers.
                table = pa.csv.read_csv(file)
                yield cls(tuple(table.column_names), table.num_rows, iter(table.to_batches(ROWS_A_BATCH)))
        except (FileNotFoundError, IsADirectoryError, PermissionError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0] if isinstance(error, pa.ArrowException) else error.strerror
            hint = "give a CSV file with a header line, or a Parquet file"
            raise ReplayError(f"{file} cannot be read ({reason}); {hint}") from error

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows, one mapping each."""
        for batch in self.batches:
            yield from pa.RecordBatch.from_arrays(
                [_in_microseconds(column) for column in batch.columns], batch.schema.names
            ).to_pylist()


def _in_microseconds(column: pa.Array) -> pa.Array:
    """Python's datetime knows no nanoseconds."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        return column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return column


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"PAR1"


@dataclass(frozen=True, slots=True)
class Row:
    """One moment of a file: its time and the messages it holds."""

    at_us: int
    messages: tuple[tuple[str, bytes], ...]


async def replay(
    file: Path,
    host: str,
    port: int,
    template: str,
    time_column: str,
    speed: float = 0.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Publish every value of a file and wait until the broker has acknowledged it; returns how many.

    Speed 1 keeps the recorded pace, N is N times as fast, 0 as fast as the broker acknowledges. Rows without a
    value in a column give no message. Raises `ReplayError`; what was acknowledged before then stands.
    """
    with Recording.open(file) as recording:
        plan = Plan.of(template, time_column, recording.columns)
        total = recording.rows * len(plan.values)
        try:
            async with await _connected(host, port) as publisher:
                await _publish(publisher, rows_of(recording, plan), speed, lambda done: progress(done, total))
        except PublishError as error:
            raise ReplayError(str(error)) from error
        progress(publisher.acknowledged, publisher.acknowledged)
        return publisher.acknowledged


async def _connected(host: str, port: int) -> Publisher:
    try:
        return await Publisher.connect(host, port, WINDOW)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        hint = "is the appliance running, and is --mqtt right?"
        raise ReplayError(f"no broker answers at {host}:{port} ({reason}); {hint}") from error


async def _publish(publisher: Publisher, rows: Iterator[Row], speed: float, progress: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    started, shown_at = loop.time(), -math.inf
    first_us: int | None = None
    for row in rows:
        first_us = row.at_us if first_us is None else first_us
        if speed:
            await asyncio.sleep(started + (row.at_us - first_us) / 1e6 / speed - loop.time())
        for topic, payload in row.messages:
            await publisher.publish(topic, payload)
        if loop.time() - shown_at >= PROGRESS_S:
            shown_at = loop.time()
            progress(publisher.acknowledged)
    await publisher.drain()


def rows_of(recording: Recording, plan: Plan) -> Iterator[Row]:
    """The rows of a file as messages, in the file's order; raises `ReplayError`."""
    topics: dict[tuple[str, ...], tuple[str, ...]] = {}
    for number, record in enumerate(recording.records(), 1):
        try:
            at_us = _time_us(record[plan.time_column])
        except (ValueError, TypeError) as error:
            shown = str(record[plan.time_column])[:40]
            hint = "write ISO 8601, such as 2026-01-31T12:00:00Z"
            raise ReplayError(f"row {number}: column {plan.time_column!r}: {shown!r} is no time; {hint}") from error
        keys = tuple(_key(number, name, record[name]) for name in plan.keys)
        if keys not in topics:
            named = dict(zip(plan.keys, keys, strict=True))
            topics[keys] = tuple(plan.topic(column, named) for column in plan.values)
        timestamp = iso(at_us)
        messages = tuple(
            (topic, _payload(record[column], timestamp))
            for column, topic in zip(plan.values, topics[keys], strict=True)
            if record[column] is not None
        )
        yield Row(at_us, messages)


def _key(number: int, name: str, value: Any) -> str:
    if value is None:
        raise ReplayError(f"row {number}: column {name!r} is empty, but stands in the topic; fill it, or drop the row")
    return str(value)


def _payload(value: Any, timestamp: str) -> bytes:
    if not isinstance(value, bool | int | float | str):
        value = value.isoformat() if isinstance(value, date) else str(value)
    return json.dumps({"value": value, "timestamp": timestamp}, separators=(",", ":")).encode("ascii")


def _time_us(value: Any) -> int:
    """Microseconds since 1970; a time without a zone is UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # A day stands for its midnight.
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} is no time")
    at = value if value.tzinfo else value.replace(tzinfo=UTC)
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
