"""Silver: bronze opened, each entry of each plant once.

Which entries are new follows from bronze alone: the envelopes up to the positions in silver's log say what was seen,
and what a pass writes is committed together with the positions it reaches. A pass that was cut between two of its
tables is repeated with its own bounds, so the tables it had finished need nothing and the others get the same rows.
"""

import gc
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow as pa
from deltalake import DeltaTable

from appliance.contract.envelope import Envelope
from appliance.contract.reading import Stream
from cloud_sync import dead_letters, tables
from cloud_sync.dead_letters import DeadLetter, Letter, open_letter
from cloud_sync.entries import Run, event_rows, reading_rows
from cloud_sync.lake import Clock, Lake, append, compact, now
from cloud_sync.letters import Letters, Partition, Positions, Seen
from cloud_sync.ranges import Ranges

log = logging.getLogger(__name__)

ENVELOPES_PER_PASS_MAX = 60
PASSES_PER_COMPACTION = 100
_BEFORE = (tables.DEAD_LETTERS, tables.PREDICTIONS, tables.ALARMS, tables.GAPS, tables.LEDGER, tables.EVENTS)
"""Committed in this order when they have rows; `silver/readings` always comes last and closes the pass."""
_BAD = (ValueError, TypeError, OverflowError, AttributeError, KeyError)
"""What entries with values of the wrong types end in, once they are put into columns."""

Rows = dict[str, pa.Table]


class Passed(NamedTuple):
    """What a pass did."""

    envelopes: int = 0
    readings: int = 0
    events: int = 0
    dead: int = 0
    repeated: int = 0
    """Entries that silver had already."""


class Silver:
    """The silver tables of one lake."""

    def __init__(self, lake: Lake, clock: Clock = now) -> None:
        self._lake, self._clock = lake, clock
        self._letters = Letters(lake)
        self._seen: tuple[Positions, Seen] | None = None
        self._passes = 0

    def step(self) -> Passed:
        """Take up the next envelopes; nothing happens when there are none, or when a rival was faster."""
        before = {table.name: self._lake.table(table.name) for table in _BEFORE}
        readings = self._lake.table(tables.READINGS.name)
        self._letters.refresh()
        app = f"silver/{self._letters.table_id}"
        floor = _positions(readings, app, self._letters.partitions)
        ahead = {name: _ahead(handle, app, floor, self._letters.partitions) for name, handle in before.items()}
        bounds = {key: sequence for positions in ahead.values() for key, sequence in positions.items()}
        letters = self._letters.next(floor, bounds, ENVELOPES_PER_PASS_MAX)
        if not letters:
            return Passed()
        with _collector_paused():
            passed, rows, seen = self._opened(letters, floor)
        reached = {(letter.hub, letter.partition): letter.sequence for letter in letters}
        moved = {f"{app}/{hub}/{partition}": sequence for (hub, partition), sequence in reached.items()}
        for name, handle in before.items():
            if len(rows[name]) and not ahead[name] and not append(handle, rows[name], moved):
                return Passed()
        if not append(readings, rows[tables.READINGS.name], moved):
            return Passed()
        self._seen = ({**floor, **reached}, seen)
        self._compact()
        return passed

    def run_once(self) -> Passed:
        """Take up all that bronze has."""
        total = Passed()
        while (passed := self.step()).envelopes:
            total = Passed(*map(sum, zip(total, passed, strict=True)))
        return total

    def _opened(self, letters: Sequence[Letter], floor: Positions) -> tuple[Passed, Rows, Seen]:
        """The rows of these letters. The set of what was seen changes, so it counts only after the commit."""
        opened = [(letter, open_letter(letter)) for letter in letters]
        runs, seen = _new_runs(opened, self._seen_until(floor))
        try:
            rows = _rows(runs)
        except _BAD:
            opened = _without_misfits(opened)
            runs, seen = _new_runs(opened, self._seen_until(floor))
            rows = _rows(runs)
        dead = [found for _, found in opened if isinstance(found, DeadLetter)]
        for one in dead:
            partition, sequence = one.letter.partition, one.letter.sequence
            log.warning("silver: event %d of partition %d is a dead letter: %s", sequence, partition, one.error)
        rows[tables.DEAD_LETTERS.name] = dead_letters.rows(dead, self._clock())
        new = sum(len(run.entries) for run in runs)
        readings = len(rows[tables.READINGS.name])
        came = sum(len(found.entries) for _, found in opened if isinstance(found, Envelope))
        return Passed(len(letters), readings, new - readings, len(dead), came - new), rows, seen

    def _seen_until(self, floor: Positions) -> Seen:
        """Kept from the last pass when that is still true, else made again from bronze."""
        kept, self._seen = self._seen, None
        return kept[1] if kept is not None and kept[0] == floor else self._letters.seen(floor)

    def _compact(self) -> None:
        self._passes += 1
        if self._passes % PASSES_PER_COMPACTION == 0:
            removed = sum(compact(self._lake, table) for table in (*_BEFORE, tables.READINGS))
            if removed:
                log.info("silver: %d small files joined", removed)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Hundreds of thousands of tuples in no cycle: looking for cycles among them would take a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _positions(handle: DeltaTable, app: str, partitions: Iterable[Partition]) -> Positions:
    found = {key: handle.transaction_version(f"{app}/{key[0]}/{key[1]}") for key in partitions}
    return {key: sequence for key, sequence in found.items() if sequence is not None}


def _ahead(handle: DeltaTable, app: str, floor: Positions, partitions: Iterable[Partition]) -> Positions:
    """What this table has of a pass that was cut before `silver/readings` closed it."""
    positions = _positions(handle, app, partitions)
    return {key: sequence for key, sequence in positions.items() if sequence > floor.get(key, -1)}


def _new_runs(opened: Sequence[tuple[Letter, Envelope | DeadLetter]], seen: Seen) -> tuple[list[Run], Seen]:
    """The entries that were not seen before, in the order of the letters."""
    runs = []
    for letter, envelope in opened:
        if isinstance(envelope, DeadLetter):
            continue
        source = (envelope.plant, envelope.epoch, str(envelope.stream))
        for lo, hi in seen.setdefault(source, Ranges()).take(envelope.first, envelope.last):
            entries = envelope.entries[lo - envelope.first : hi - envelope.first + 1]
            runs.append(Run(envelope.plant, envelope.epoch, envelope.stream, lo, entries, *letter[:4]))
    return runs, seen


def _rows(runs: Sequence[Run]) -> Rows:
    readings = [run for run in runs if run.stream is Stream.READINGS]
    return {
        tables.READINGS.name: reading_rows(readings),
        **event_rows([run for run in runs if run.stream is Stream.EVENTS]),
    }


def _without_misfits(
    opened: Sequence[tuple[Letter, Envelope | DeadLetter]],
) -> list[tuple[Letter, Envelope | DeadLetter]]:
    """Envelopes whose entries fit no columns become dead letters; each is tried by itself."""
    kept: list[tuple[Letter, Envelope | DeadLetter]] = []
    for letter, found in opened:
        try:
            _rows(_new_runs([(letter, found)], {})[0])
            kept.append((letter, found))
        except _BAD as error:
            kept.append((letter, DeadLetter(letter, "bad-entries", repr(error))))
    return kept
