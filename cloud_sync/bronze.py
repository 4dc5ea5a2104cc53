"""Bronze: the hub's events untouched, appended with the positions they reach, in one commit."""

import json
import logging
import os
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction
from pyarrow import dataset

from appliance.contract.envelope import EnvelopeError, Sealed
from cloud_sync import tables
from cloud_sync.dead_letters import is_accountable
from cloud_sync.lake import Clock, Lake, append, compact, now, transaction
from cloud_sync.source import HubEvent

log = logging.getLogger(__name__)

_FILE_SCHEMA = pa.schema([field for field in tables.ENVELOPES.schema if field.name not in ("year", "month", "day")])
_FILES_MAX = 200


class Conflict(Exception):
    """Another drain of the same group was faster; plan again from the table."""


class Loss(NamedTuple):
    """Sequence numbers `lo` to `hi` of a partition that never came."""

    partition: int
    lo: int
    hi: int


class Gap(Exception):
    """Sequence numbers are missing that nobody has asked for twice yet."""

    def __init__(self, losses: Sequence[Loss]) -> None:
        super().__init__(f"missing {losses}")
        self.losses = tuple(losses)


class Bronze:
    """The table `bronze/events` for one hub and consumer group."""

    def __init__(self, lake: Lake, hub: str, group: str, clock: Clock = now) -> None:
        self._lake, self._hub, self._clock = lake, hub, clock
        self._app = f"drain/{hub}/{group}"

    def positions(self, partitions: Sequence[int]) -> dict[int, int]:
        """The last sequence number of each partition that was ever drained."""
        handle = self._lake.table(tables.ENVELOPES.name)
        found = {partition: _version(handle, f"{self._app}/{partition}") for partition in partitions}
        return {partition: sequence for partition, sequence in found.items() if sequence is not None}

    def append(self, events: Sequence[HubEvent], known: Collection[Loss] = ()) -> int:
        """Commit events of any partitions, each in order; returns how many were new.

        Events that the table has already are left out, so a replay changes nothing. Raises `Conflict` when a rival
        was faster, and `Gap` when numbers are missing that are not among the `known` losses. What is planned from
        a handle is committed on that very handle: re-reading the table in between would lose the guard.
        """
        handle = self._lake.table(tables.ENVELOPES.name)
        fresh: list[HubEvent] = []
        losses: list[Loss] = []
        reached: dict[int, int | None] = {}
        for event in events:
            if event.partition not in reached:
                reached[event.partition] = _version(handle, f"{self._app}/{event.partition}")
            before = reached[event.partition]
            if before is not None and event.sequence <= before:
                continue
            if before is not None and event.sequence > before + 1:
                losses.append(Loss(event.partition, before + 1, event.sequence - 1))
            fresh.append(event)
            reached[event.partition] = event.sequence
        if not set(losses) <= set(known):
            raise Gap(losses)
        if fresh:
            self._record(losses)
            self._commit(handle, fresh)
        return len(fresh)

    def compact(self) -> None:
        """Join small files, when there are many."""
        removed = compact(self._lake, tables.ENVELOPES, _FILES_MAX)
        if removed:
            log.info("bronze: %d small files joined", removed)

    def _record(self, losses: Sequence[Loss]) -> None:
        """Before the events themselves: a replay of the same gap finds it recorded."""
        if not losses:
            return
        handle = self._lake.table(tables.LOSSES.name)
        recorded = {loss.partition: _version(handle, f"{self._app}/{loss.partition}") or 0 for loss in losses}
        new = [loss for loss in losses if loss.hi > recorded[loss.partition]]
        if not new:
            return
        found_at = self._clock()
        rows = [
            {"eh_hub": self._hub, "eh_partition": loss.partition, "lo": loss.lo, "hi": loss.hi, "found_at": found_at}
            for loss in new
        ]
        reached = {f"{self._app}/{loss.partition}": loss.hi for loss in new}
        if not append(handle, pa.Table.from_pylist(rows, schema=tables.LOSSES.schema), reached):
            raise Conflict
        for loss in new:
            count = loss.hi - loss.lo + 1
            log.error(
                "drain: %d events lost in %s, partition %d: the hub no longer has %d to %d; raise its retention",
                count, self._hub, loss.partition, loss.lo, loss.hi,
            )  # fmt: skip

    def _commit(self, handle: DeltaTable, events: Sequence[HubEvent]) -> None:
        groups: dict[tuple[int, tuple[int, int, int]], list[HubEvent]] = {}
        for event in events:
            groups.setdefault((event.partition, _day(event.enqueued_us)), []).append(event)
        adds: list[AddAction | RemoveAction] = [
            self._write(partition, day, rows) for (partition, day), rows in groups.items()
        ]
        positions = {f"{self._app}/{event.partition}": event.sequence for event in events}
        try:
            handle.create_write_transaction(
                adds,
                "append",
                tables.ENVELOPES.schema,
                partition_by=list(tables.ENVELOPES.partition_by),
                commit_properties=transaction(positions),
            )
        except CommitFailedError as error:
            raise Conflict from error

    def _write(self, partition: int, day: tuple[int, int, int], events: Sequence[HubEvent]) -> AddAction:
        """One Parquet file; until it is committed nobody knows of it, and a crash leaves only an orphan."""
        year, month, day_of_month = day
        lo, hi = events[0].sequence, events[-1].sequence
        name = f"p{partition:02d}-{lo:012d}-{hi:012d}-{self._clock():x}.parquet"
        relative = f"year={year}/month={month}/day={day_of_month}/{name}"
        path = self._lake.path / tables.ENVELOPES.name / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            # The bodies are compressed already.
            pq.write_table(self._rows(events), file, compression={"body": "none", **_ZSTD})
            file.flush()
            os.fsync(file.fileno())
        ends = {"eh_hub": self._hub, "eh_partition": partition}
        statistics = {
            "numRecords": len(events),
            "minValues": {**ends, "eh_sequence": lo},
            "maxValues": {**ends, "eh_sequence": hi},
            "nullCount": {"eh_hub": 0, "eh_partition": 0, "eh_sequence": 0},
        }
        values: dict[str, str | None] = {"year": str(year), "month": str(month), "day": str(day_of_month)}
        return AddAction(relative, path.stat().st_size, values, self._clock() // 1_000, True, json.dumps(statistics))

    def _rows(self, events: Sequence[HubEvent]) -> pa.Table:
        ingested_at = self._clock()
        return pa.Table.from_pylist([self._row(event, ingested_at) for event in events], schema=_FILE_SCHEMA)

    def _row(self, event: HubEvent, ingested_at: int) -> dict[str, Any]:
        row = {
            "eh_hub": self._hub,
            "eh_partition": event.partition,
            "eh_sequence": event.sequence,
            "eh_offset": event.offset,
            "enqueued_at": event.enqueued_us,
            "partition_key": event.partition_key,
            "properties": json.dumps({_text(key): _text(value) for key, value in event.properties.items()}),
            "body": event.body,
            "ingested_at": ingested_at,
        }
        try:
            sealed = Sealed.from_wire(event.properties, b"")
        except EnvelopeError:
            return row  # Silver will say why it cannot be opened.
        if not is_accountable(sealed):
            return row
        head = {"plant": sealed.plant, "epoch": sealed.epoch, "stream": str(sealed.stream)}
        return {**row, **head, "first": sealed.first, "count": sealed.count}


def drained(lake: Lake, hub: str) -> dict[str, int]:
    """The offsets of a hub's events in bronze, and their sequence numbers."""
    events = lake.table(tables.ENVELOPES.name).to_pyarrow_dataset()
    found = events.to_table(columns=["eh_offset", "eh_sequence"], filter=dataset.field("eh_hub") == hub)
    return dict(zip(found["eh_offset"].to_pylist(), found["eh_sequence"].to_pylist(), strict=True))


_ZSTD = {name: "zstd" for name in _FILE_SCHEMA.names if name != "body"}


def _version(handle: DeltaTable, app: str) -> int | None:
    version: int | None = handle.transaction_version(app)
    return version


def _day(at_us: int) -> tuple[int, int, int]:
    day = datetime.fromtimestamp(at_us / 1_000_000, UTC)
    return day.year, day.month, day.day


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str | int | float | bool | None) else str(value)
