"""Receipts: what the lake holds of each plant's log, said again and again to the plant."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

from deltalake.exceptions import DeltaError

from appliance.contract.ledger import Tally
from appliance.contract.reading import Stream
from appliance.contract.receipt import RANGES_MAX, Receipt
from cloud_sync import tables
from cloud_sync.holdings import Account, Holdings, held
from cloud_sync.lake import Clock, Lake, now
from cloud_sync.ranges import Ranges
from cloud_sync.receipt_door import Door, DoorError
from cloud_sync.source import Source, SourceError

log = logging.getLogger(__name__)

ENDS_MAX: Final = 100
"""Looks at the hub's ends that are remembered until silver has come so far."""
DIFFERING_MAX: Final = 500
"""Windows named in one receipt."""
REPEAT_S: Final = 60.0
"""Everything is said again after so long, for a plant that has not heard it."""


Log: TypeAlias = tuple[str, int, Stream]
"""Plant, epoch and stream."""


class Ends(NamedTuple):
    """The hub's newest sequence numbers, asked after the receipts of `at_us` were made."""

    at_us: int
    newest: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Findings:
    """What one look at silver has found."""

    receipts: tuple[Receipt, ...]
    """By plant, epoch and stream."""
    equal: int
    """Windows that plants have told and silver holds alike."""
    doubled: int
    """Numbers that stand twice in silver."""


class Look:
    """Looks at silver again and again; each time costs what is new."""

    def __init__(self, lake: Lake) -> None:
        self._holdings = Holdings(lake)

    def findings(self, at_us: int = 0, complete_to_us: int = 0) -> Findings:
        """What silver holds now, as receipts."""
        readings, events = self._holdings.readings(), self._holdings.events()
        sets: dict[Log, Ranges] = {}
        doubled = 0
        for account in (readings, events):
            for (plant, epoch, stream), ranges in account.ranges.items():
                sets[plant, epoch, Stream(stream)], twice = held(ranges)
                doubled += twice
        equal, differing = _compared(readings, events, sets)
        receipts = []
        for log_of, numbers in sorted(sets.items()):
            parts, wrong = tuple(numbers)[:RANGES_MAX], differing.get(log_of, ())
            last = parts[-1][1]
            receipts.append(Receipt(*log_of, at_us, complete_to_us, last, parts, tuple(wrong)[-DIFFERING_MAX:]))
        return Findings(tuple(receipts), equal, doubled)


class Receipts:
    """Looks at silver every few seconds, and tells the plants what changed."""

    def __init__(self, lake: Lake, source: Source, door: Door, every_s: float = 5.0, clock: Clock = now) -> None:
        self._lake, self._source, self._door, self._every_s, self._clock = lake, source, door, every_s, clock
        self._look = Look(lake)
        self._ends: list[Ends] = []
        self._said: dict[Log, Receipt] = {}
        self._said_all_s = -REPEAT_S
        self._at_us = 0
        self._doubled = 0
        self._trouble = ""

    async def run(self) -> None:
        """Look and tell until cancelled."""
        try:
            while True:
                await self._turn()
                await asyncio.sleep(self._every_s)
        finally:
            await self._door.close()

    async def once(self) -> Findings:
        """One look, told to the plants; raises `DoorError`, `SourceError`, DeltaError or OSError."""
        # Ends that were asked before silver was looked at, and are reached by what silver had before the look.
        positions = await asyncio.to_thread(self._positions)
        self._at_us = max(self._clock(), self._at_us + 1)
        complete_to_us = max((ends.at_us for ends in self._ends if _reached(positions, ends.newest)), default=0)
        found = await asyncio.to_thread(self._look.findings, self._at_us, complete_to_us)
        if found.doubled != self._doubled:
            log.error(
                "receipts: %d numbers stand in silver more than once; see `plantward-cloud reconcile`", found.doubled
            )
            self._doubled = found.doubled
        await self._tell(found.receipts)
        newest = await self._source.ends()
        self._ends = [ends for ends in self._ends if ends.at_us >= complete_to_us][-ENDS_MAX:]
        self._ends.append(Ends(self._at_us, newest))
        return found

    async def _turn(self) -> None:
        try:
            await self.once()
        except (DoorError, SourceError, DeltaError, OSError) as error:
            text = str(error).partition("\n")[0]
            if text != self._trouble:
                log.warning("receipts: %s; trying again every %.0f s", text, self._every_s)
            self._trouble = text
        else:
            if self._trouble:
                log.info("receipts: plants are told again what the lake holds")
            self._trouble = ""

    async def _tell(self, receipts: Iterable[Receipt]) -> None:
        """Send what is not as it was said last; everything now and then."""
        if time.monotonic() - self._said_all_s >= REPEAT_S:
            self._said.clear()
            self._said_all_s = time.monotonic()
        keys = {(receipt.plant, receipt.epoch, receipt.stream): receipt for receipt in receipts}
        newest = {receipt.plant: receipt.epoch for receipt in keys.values()}  # The later epoch comes later.
        fresh = {
            key[:2]
            for key, receipt in keys.items()
            if not _is_same(receipt, self._said.get(key), is_old=receipt.epoch < newest[receipt.plant])
        }
        # Both streams of an epoch together: what proves a loss in one may stand in the other.
        changed = [receipt for key, receipt in keys.items() if key[:2] in fresh]
        if changed:
            await self._door.send(changed, list(keys.values()))
            self._said |= {(receipt.plant, receipt.epoch, receipt.stream): receipt for receipt in changed}

    def _positions(self) -> dict[int, int]:
        """How far silver has come in each partition of the hub: up to there everything is opened or dead."""
        bronze, readings = (self._lake.table(table.name) for table in (tables.ENVELOPES, tables.READINGS))
        app = f"silver/{bronze.metadata().id}/{self._source.hub}"
        partitions = {partition for ends in self._ends for partition in ends.newest}
        found = {partition: readings.transaction_version(f"{app}/{partition}") for partition in partitions}
        return {partition: position for partition, position in found.items() if position is not None}


def _reached(positions: Mapping[int, int], newest: Mapping[int, int]) -> bool:
    return all(positions.get(partition, -1) >= end for partition, end in newest.items())


def _is_same(receipt: Receipt, said: Receipt | None, *, is_old: bool) -> bool:
    """Whether nothing new is to be said; of an epoch that is over, only what is held matters."""
    if said is None:
        return False
    complete_to_us = said.complete_to_us if is_old else receipt.complete_to_us
    return replace(receipt, at_us=said.at_us, complete_to_us=complete_to_us) == said


def _compared(readings: Account, events: Account, sets: Mapping[Log, Ranges]) -> tuple[int, dict[Log, list[int]]]:
    """Of the windows told in full and held in full: how many are equal, and which differ."""
    equal = 0
    differing: dict[Log, list[int]] = {}
    for window, stands in sorted(readings.windows.items()):
        plant, epoch, start_us = window
        readings_of = (plant, epoch, Stream.READINGS)
        said = events.windows.get(window, {})
        if _entries(stands) <= _entries(said) and all(sets[readings_of].holds(*part) for part in events.told[window]):
            if stands == said:
                equal += 1
            else:
                differing.setdefault(readings_of, []).append(start_us)
    return equal, differing


def _entries(tallies: Mapping[str, Tally]) -> int:
    return sum(tally.entries for tally in tallies.values())


def missing(held_ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The numbers below the highest one held that are not held."""
    ends = [(0, 0), *held_ranges]
    return [(low[1] + 1, high[0] - 1) for low, high in pairwise(ends) if high[0] > low[1] + 1]
