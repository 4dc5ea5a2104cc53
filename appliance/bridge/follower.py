"""A Follower: one stream of the log on its way out, in envelopes whose bounds survive a restart."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import google_crc32c

from appliance.bridge.progress import Plan, Progress
from appliance.bridge.resends import Resends
from appliance.buffer.buffer import Buffer
from appliance.buffer.cursor import Cursor
from appliance.contract.envelope import ENTRIES_MAX, Envelope, Lane, Sealed, envelopes, seal
from appliance.contract.ranges import Range, minus, size, union
from appliance.contract.reading import Reading, Stream
from appliance.contract.sent import Sent

log = logging.getLogger(__name__)

LANES: Final = {Stream.EVENTS: (Lane.EVENTS,), Stream.READINGS: (Lane.LIVE, Lane.BACKLOG)}
"""The lanes of each stream; all of them in the order of sending."""
BLOCKS_AT_ONCE: Final = 8
"""Blocks that the backlog reads, and plans, in one turn."""
SAVE_EVERY_S: Final = 0.05
"""Acknowledgements of this long are written down together; after a crash the envelopes they were for are sent again."""
SETTLE_S: Final = 1.0


class Outgoing(NamedTuple):
    """An envelope and its lane, decided when it was sealed and kept for every resend."""

    sealed: Sealed
    lane: Lane
    is_again: bool = False
    """Whether it was acknowledged once before, so that no plan waits for it."""

    @property
    def plan(self) -> Plan:
        return Plan(*self.range, self.lane)

    @property
    def range(self) -> Range:
        return self.sealed.first, self.sealed.first + self.sealed.count - 1


class Follower:
    """Finds what the far side lacks, lane by lane, and moves its cursor on acknowledgement.

    The older entries leave as the blocks that the log has sealed them in, byte for byte; the newest ones are sealed
    here. The bounds of an envelope are written down, in the cursor's state, before it is sent for the first time:
    after a crash the same envelopes are made again, so that what had arrived already is a plain duplicate.
    """

    def __init__(self, buffer: Buffer, cursor: Cursor, resends: Resends | None = None) -> None:
        self._buffer, self._cursor = buffer, cursor
        self._progress = Progress.from_state(cursor.seq, cursor.state, buffer.epoch)
        self._promised = deque(self._progress.planned)
        self._ready: dict[Lane, deque[Outgoing]] = {lane: deque() for lane in LANES[cursor.stream]}
        self._resends = resends or Resends()
        self._refused: list[Range] = []
        """Refused, and the gap that says so is not written down yet."""
        self._saving = asyncio.Lock()
        self._has_changed = asyncio.Event()
        self._changes = self._saved = 0
        self.acknowledged = cursor.seq
        """The number up to which the far side has acknowledged everything, as it stands on disk."""

    @property
    def waiting(self) -> int:
        """Entries that wait for their acknowledgement."""
        return self._progress.waiting(self._last)

    def unsent(self, lane: Lane) -> int:
        """Entries of a lane that have never been sent, or wait to be sent again."""
        ready = sum(outgoing.sealed.count for outgoing in self._ready[lane])
        ready += size(plan.range for plan in self._promised if plan.lane is lane)
        if lane is not Lane.LIVE:
            ready += self._progress.backlog() + self._resends.entries
        return ready + (0 if lane is Lane.BACKLOG else self._last - self._progress.frontier)

    def is_due(self, lane: Lane) -> bool:
        """Whether an envelope of this lane is full, or was sealed before: it waits for nothing."""
        return bool(self._ready[lane]) or self.unsent(lane) >= ENTRIES_MAX

    async def next(self, lane: Lane) -> Outgoing | None:
        """Take an envelope of this lane on its way; None when nothing waits. Its bounds are on disk."""
        while self._promised:
            await self._seal_again(self._promised.popleft())
        if lane is not Lane.LIVE and (again := await self._again(lane)) is not None:
            return again
        if not self._ready[lane] and (wanted := self._wanted(lane)) is not None:
            await self._plan(lane, wanted)
        ready = self._ready[lane]
        return ready.popleft() if ready else None

    def returned(self, outgoing: Outgoing) -> None:
        """An envelope did not get through: it is the next one of its lane."""
        if outgoing.is_again:
            self._resends.returned(outgoing.range)
            return
        ready = self._ready[outgoing.lane]
        ready.appendleft(outgoing)
        self._ready[outgoing.lane] = deque(sorted(ready, key=lambda one: one.sealed.first))

    def arrived(self, outgoing: Outgoing) -> None:
        """The far side has acknowledged: `run` writes it down."""
        if outgoing.is_again:
            self._resends.arrived(outgoing.range)
            return
        self._progress.acknowledge(outgoing.plan)
        self._has_changed.set()

    async def refused(self, outgoing: Outgoing, gap: Sequence[Reading]) -> None:
        """The far side will never take it: move on, in the transaction that writes the gap."""
        self._refused.append(outgoing.range)
        if outgoing.is_again:
            self._resends.arrived(outgoing.range)
        else:
            self._progress.acknowledge(outgoing.plan)
        await self._save(gap)
        self._refused.remove(outgoing.range)

    def sent(self) -> Sent:
        """What is acknowledged, and what is planned or on its way, for the first time or again."""
        planned, again = [plan.range for plan in self._progress.planned], self._resends
        under_way = union(planned, again.waiting, again.under_way, self._refused)
        return Sent(minus(self._progress.acknowledged(), union(self._refused)), under_way)

    def resend(self, ranges: Sequence[Range]) -> None:
        """Send acknowledged numbers again, beside the rest."""
        if beyond := self._resends.ask(ranges, self._progress.acknowledged()):
            log.warning("bridge: %d entries in %d ranges are too many to send again now", size(beyond), len(beyond))

    async def run(self) -> None:
        """Write acknowledgements down as they come, until cancelled."""
        while True:
            await self._has_changed.wait()
            await self._save()
            await asyncio.sleep(SAVE_EVERY_S)

    async def settle(self) -> None:
        """Write down what came last, for as long as a stop may take."""
        try:
            async with asyncio.timeout(SETTLE_S):
                if self._has_changed.is_set():
                    await self._save()
        except TimeoutError:
            log.debug("bridge: the last acknowledgements of %s were not written down", self._cursor.stream)

    @property
    def _last(self) -> int:
        return self._buffer.last(self._cursor.stream)

    def _wanted(self, lane: Lane) -> Range | None:
        oldest = self._progress.oldest(BLOCKS_AT_ONCE * ENTRIES_MAX) if lane is not Lane.LIVE else None
        return oldest if oldest or lane is Lane.BACKLOG else self._progress.newest(self._last)

    async def _plan(self, lane: Lane, wanted: Range) -> None:
        first, _ = wanted
        blocks_max = BLOCKS_AT_ONCE if first <= self._progress.frontier else 0  # The newest are loose.
        begins, found = await self._envelopes(wanted, blocks_max)
        if begins > first:  # The log let go of what stands before, and a gap says so.
            self._progress.skip((first, begins - 1))
        for sealed in found:
            outgoing = Outgoing(sealed, lane)
            self._progress.plan(outgoing.plan)
            self._ready[lane].append(outgoing)
        await self._save()

    async def _again(self, lane: Lane) -> Outgoing | None:
        """The next envelope that is sent again, if it has its turn."""
        while (wanted := self._resends.next(has_rest=self.unsent(lane) > self._resends.entries)) is not None:
            begins, found = await self._envelopes(wanted, blocks_max=1)
            if begins > (first := wanted[0]):
                self._resends.pass_over((first, begins - 1))
                gone = f"{self._cursor.stream} {first} to {begins - 1}"
                log.warning("bridge: %s cannot be sent again, the log no longer holds them", gone)
            if found:
                outgoing = Outgoing(found[0], lane, is_again=True)
                self._resends.leave(outgoing.range)
                return outgoing
        return None

    async def _envelopes(self, wanted: Range, blocks_max: int) -> tuple[int, list[Sealed]]:
        """Envelopes of the first of these entries, and from where on the log has any of them.

        They are the log's blocks where these lie within the bounds; a block that begins or ends beyond is cut.
        """
        stream, (first, last) = self._cursor.stream, wanted
        blocks = await self._buffer.sealed_run(stream, first - 1, blocks_max) if blocks_max else []
        if whole := _whole(blocks, wanted):
            return first, whole
        if blocks:
            begins = blocks[0].first
            last = min(last, begins + blocks[0].count - 1 if begins <= first else begins - 1)
        batch = await self._buffer.read(stream, first - 1, min(ENTRIES_MAX, last - first + 1))
        if not batch.entries or batch.first > first:
            return min(batch.first if batch.entries else last + 1, wanted[1] + 1), []
        return batch.first, envelopes(self._buffer.plant, self._buffer.epoch, stream, batch.first, batch.entries)

    async def _seal_again(self, plan: Plan) -> None:
        """What was promised before the last stop, with the same bounds and so the same bytes."""
        stream, count = self._cursor.stream, size([plan.range])
        for block in _whole(await self._buffer.sealed_run(stream, plan.first - 1, 1), plan.range):
            if block.count == count:
                self._ready[plan.lane].append(Outgoing(block, plan.lane))
                return
        batch = await self._buffer.read(stream, plan.first - 1, count)
        if (batch.first, batch.last) != plan.range:
            self._progress.drop(plan)
            return
        sealed = seal(Envelope(self._buffer.plant, self._buffer.epoch, stream, plan.first, batch.entries))
        self._ready[plan.lane].append(Outgoing(sealed, plan.lane))

    async def _save(self, events: Sequence[Reading] = ()) -> None:
        """Write down the progress so far, and events with it; callers that come meanwhile share the next write."""
        self._changes += 1
        change = self._changes
        async with self._saving:
            if self._saved >= change and not events:
                return
            self._has_changed.clear()
            changes, floor = self._changes, self._progress.floor
            move = self._cursor.moved(floor, self._progress.to_state(self._buffer.epoch))
            await self._buffer.append(events, Stream.EVENTS, (move,))
            self._saved, self.acknowledged = changes, floor


def _whole(blocks: Sequence[Sealed], wanted: Range) -> list[Sealed]:
    """The first of these blocks, as far as they follow on each other within the bounds and are undamaged."""
    whole: list[Sealed] = []
    begins, last = wanted
    for block in blocks:
        if block.first != begins or begins + block.count - 1 > last:
            break
        if google_crc32c.value(block.body) != block.crc32c:
            break
        whole.append(block)
        begins += block.count
    return whole
