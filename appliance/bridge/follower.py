"""A Follower: one stream of the log on its way out, sealed into envelopes whose bounds survive a restart."""

import asyncio
from collections import deque
from typing import Final, NamedTuple

from appliance.bridge.progress import Plan, Progress, Range
from appliance.buffer.buffer import Buffer, Cursor
from appliance.contract.envelope import ENTRIES_MAX, Envelope, Lane, Sealed, envelopes, seal
from appliance.contract.reading import Stream

LANES: Final = {Stream.EVENTS: (Lane.EVENTS,), Stream.READINGS: (Lane.LIVE, Lane.BACKLOG)}
"""The lanes of each stream; all of them in the order of sending."""


class Outgoing(NamedTuple):
    """An envelope and its lane, decided when it was sealed and kept for every resend."""

    sealed: Sealed
    lane: Lane

    @property
    def plan(self) -> Plan:
        return Plan(self.sealed.first, self.sealed.first + self.sealed.count - 1, self.lane)


class Follower:
    """Seals what the far side lacks, lane by lane, and moves its cursor on acknowledgement.

    The bounds of an envelope are written down, in the cursor's state, before it is sent for the first time:
    after a crash the same envelopes are made again, so that what had arrived already is a plain duplicate.
    """

    def __init__(self, buffer: Buffer, cursor: Cursor) -> None:
        self._buffer, self._cursor = buffer, cursor
        self._progress = Progress.from_state(cursor.seq, cursor.state, buffer.epoch)
        self._promised = deque(self._progress.planned)
        self._ready: dict[Lane, deque[Outgoing]] = {lane: deque() for lane in LANES[cursor.stream]}
        self._saving = asyncio.Lock()
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
        ready += sum(plan.last - plan.first + 1 for plan in self._promised if plan.lane is lane)
        backlog = self._progress.backlog()
        if lane is Lane.BACKLOG:
            return ready + backlog
        return ready + self._last - self._progress.frontier + (backlog if lane is Lane.EVENTS else 0)

    def is_due(self, lane: Lane) -> bool:
        """Whether an envelope of this lane is full, or was sealed before: it waits for nothing."""
        return bool(self._ready[lane]) or self.unsent(lane) >= ENTRIES_MAX

    async def next(self, lane: Lane) -> Outgoing | None:
        """Take an envelope of this lane on its way; None when nothing waits. Its bounds are on disk."""
        while self._promised:
            await self._seal_again(self._promised.popleft())
        if not self._ready[lane] and (wanted := self._wanted(lane)) is not None:
            await self._seal(lane, wanted)
        ready = self._ready[lane]
        return ready.popleft() if ready else None

    def returned(self, outgoing: Outgoing) -> None:
        """An envelope did not get through: it is the next one of its lane."""
        ready = self._ready[outgoing.lane]
        ready.appendleft(outgoing)
        self._ready[outgoing.lane] = deque(sorted(ready, key=lambda one: one.sealed.first))

    async def arrived(self, outgoing: Outgoing) -> None:
        """The far side has acknowledged: move on, durably."""
        self._progress.acknowledge(outgoing.plan)
        await self._save()

    @property
    def _last(self) -> int:
        return self._buffer.last(self._cursor.stream)

    def _wanted(self, lane: Lane) -> Range | None:
        oldest = self._progress.oldest() if lane is not Lane.LIVE else None
        return oldest if oldest or lane is Lane.BACKLOG else self._progress.newest(self._last)

    async def _seal(self, lane: Lane, wanted: Range) -> None:
        stream = self._cursor.stream
        batch = await self._buffer.read(stream, wanted.first - 1, wanted.size)
        if batch.first > wanted.first:  # The log let go of what stands before, and a gap says so.
            self._progress.skip(Range(wanted.first, batch.first - 1))
        entries = batch.entries[: max(0, wanted.last + 1 - batch.first)]
        for sealed in envelopes(self._buffer.plant, self._buffer.epoch, stream, batch.first, entries):
            outgoing = Outgoing(sealed, lane)
            self._progress.plan(outgoing.plan)
            self._ready[lane].append(outgoing)
        await self._save()

    async def _seal_again(self, plan: Plan) -> None:
        """What was promised before the last stop, with the same bounds and so the same bytes."""
        stream, wanted = self._cursor.stream, Range(plan.first, plan.last)
        batch = await self._buffer.read(stream, wanted.first - 1, wanted.size)
        if (batch.first, batch.last) != wanted:
            self._progress.drop(plan)
            return
        sealed = seal(Envelope(self._buffer.plant, self._buffer.epoch, stream, plan.first, batch.entries))
        self._ready[plan.lane].append(Outgoing(sealed, plan.lane))

    async def _save(self) -> None:
        """Write down the progress so far; callers that come meanwhile share the next write."""
        self._changes += 1
        change = self._changes
        async with self._saving:
            if self._saved >= change:
                return
            changes, floor = self._changes, self._progress.floor
            await self._cursor.advance(floor, self._progress.to_state(self._buffer.epoch))
            self._saved, self.acknowledged = changes, floor
