"""The drain: follows the hub into bronze. Where it stands is what bronze's own log says, nothing else."""

import asyncio
import logging
import random
import time
from collections.abc import Mapping

from deltalake.exceptions import DeltaError

from appliance.contract.envelope import EnvelopeError, Sealed
from cloud_sync.bronze import Bronze, Conflict, Gap, Loss
from cloud_sync.lake import Clock, Lake, now
from cloud_sync.source import HubEvent, Source, SourceError

log = logging.getLogger(__name__)

FLUSH_S = 1.0
SILENCE_S_MAX = 60.0
"""A single pass that hears nothing for so long has failed."""
FLUSH_EVENTS_MAX = 1_000
FLUSH_BYTES_MAX = 32 * 1024 * 1024
LISTS_WAITING_MAX = 8
REPLAN_S_MAX = 0.5
STORE_PAUSE_S = 5.0
FLUSHES_PER_COMPACTION = 300
PAUSE_S_MIN, PAUSE_S_MAX = 0.5, 30.0
LOG_EVERY_S = 10.0


class Drain:
    """Takes what the source has into bronze, each event once, whatever dies on the way."""

    def __init__(self, lake: Lake, source: Source, clock: Clock = now) -> None:
        self._bronze = Bronze(lake, source.hub, source.group, clock)
        self._source = source
        self._known: set[Loss] = set()
        self._flushes = 0
        self._told = _Told()

    async def run(self) -> None:
        """Drain until cancelled."""
        pause_s = PAUSE_S_MIN
        lost_at: float | None = None
        while True:
            try:
                ends = await self._source.ends()
            except SourceError as error:
                if lost_at is None:
                    lost_at = time.monotonic()
                    log.warning("drain: %s; trying again", error)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, PAUSE_S_MAX)
                continue
            if lost_at is not None:
                log.info("drain: %s is there after %.0f s", self._source.hub, time.monotonic() - lost_at)
            pause_s, lost_at = PAUSE_S_MIN, None
            await self._follow(ends, goal=None)

    async def once(self) -> int:
        """Drain to what is the end now, and return the number of new events; raises `SourceError`."""
        goal = {partition: end for partition, end in (await self._source.ends()).items() if end >= 0}
        before = self._told.events
        while not await self._follow(goal, goal):
            pass
        self._told.now()
        return self._told.events - before

    async def _follow(self, partitions: Mapping[int, int], goal: Mapping[int, int] | None) -> bool:
        """One run from the table's positions; True when the goal is reached, False when it must be planned anew."""
        positions = await asyncio.to_thread(self._bronze.positions, list(partitions))
        after = {partition: positions.get(partition, -1) for partition in partitions}
        if goal is not None and _reached(after, goal):
            return True
        is_silent = False
        failed: BaseException | None = None
        lists: asyncio.Queue[list[HubEvent]] = asyncio.Queue(LISTS_WAITING_MAX)
        try:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._source.follow(after, lists.put))
                await self._flush_until(lists, after, goal)
                following.cancel()
            return True
        except* Conflict:
            log.info("drain: another drain of %s was faster, planning again", self._source.hub)
        except* Gap as gaps:
            # A gap is believed when the source shows it twice, each time asked from the table's own position.
            for gap in gaps.exceptions:
                self._known.update(gap.losses if isinstance(gap, Gap) else ())
        except* TimeoutError:
            is_silent = True
        except* (DeltaError, OSError) as group:
            failed = group.exceptions[0]
        if failed is not None:
            if goal is not None:
                raise failed
            log.error("drain: bronze cannot be written (%s); trying again", str(failed).partition("\n")[0])
            await asyncio.sleep(STORE_PAUSE_S)
        if is_silent:
            hint = "see whether it is running"
            raise SourceError(f"hub {self._source.hub}: nothing came for {SILENCE_S_MAX:.0f} s; {hint}")
        await asyncio.sleep(REPLAN_S_MAX * random.random())
        return False

    async def _flush_until(
        self, lists: asyncio.Queue[list[HubEvent]], after: dict[int, int], goal: Mapping[int, int] | None
    ) -> None:
        while goal is None or not _reached(after, goal):
            async with asyncio.timeout(None if goal is None else SILENCE_S_MAX):
                events = await _collected(lists, FLUSH_S if goal is None else 0)
            self._told.add(await asyncio.to_thread(self._bronze.append, events, frozenset(self._known)), events)
            self._known.clear()
            after.update((event.partition, event.sequence) for event in events)
            self._flushes += 1
            if self._flushes % FLUSHES_PER_COMPACTION == 0:
                await asyncio.to_thread(self._bronze.compact)


async def _collected(lists: asyncio.Queue[list[HubEvent]], flush_s: float) -> list[HubEvent]:
    """What comes within `flush_s` of the first event, or less when that is much."""
    events = await lists.get()
    size = _size_bytes(events)
    try:
        async with asyncio.timeout(flush_s):
            while len(events) < FLUSH_EVENTS_MAX and size < FLUSH_BYTES_MAX:
                more = await lists.get()
                events = [*events, *more]
                size += _size_bytes(more)
    except TimeoutError:
        pass
    return events


class _Told:
    """What the log is told of progress, at most every `LOG_EVERY_S`."""

    def __init__(self) -> None:
        self.events = 0
        self._new_events = self._new_readings = 0
        self._at = time.monotonic()

    def add(self, fresh: int, events: list[HubEvent]) -> None:
        self.events += fresh
        self._new_events += fresh
        self._new_readings += sum(_count(event) for event in events[len(events) - fresh :])
        if time.monotonic() - self._at > LOG_EVERY_S:
            self.now()

    def now(self) -> None:
        if self._new_events:
            log.info("drain: %s entries in %s envelopes drained", f"{self._new_readings:,}", f"{self._new_events:,}")
        self._new_events = self._new_readings = 0
        self._at = time.monotonic()


def _count(event: HubEvent) -> int:
    try:
        return Sealed.from_wire(event.properties, b"").count
    except EnvelopeError:
        return 0


def _size_bytes(events: list[HubEvent]) -> int:
    return sum(len(event.body) for event in events)


def _reached(after: Mapping[int, int], goal: Mapping[int, int]) -> bool:
    return all(after.get(partition, -1) >= end for partition, end in goal.items())
