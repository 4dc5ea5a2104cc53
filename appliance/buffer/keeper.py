"""The Keeper: seals what is loose, and keeps the log within its bounds; each drop writes its Gap."""

import asyncio
import logging
import math
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Protocol

from appliance.buffer.admission import Admission
from appliance.buffer.blocks import Block, NewBlock, Run, new_blocks
from appliance.buffer.damage import damage_alarm, set_apart
from appliance.buffer.followers import Followers
from appliance.buffer.leaving import gap_of
from appliance.buffer.quarantine import Quarantine
from appliance.buffer.reserve import Reserve
from appliance.buffer.retention import HYSTERESIS, Bounds, Growth, Policy, Seen, every_second, oldest, stretches
from appliance.buffer.store import Dropped, Room, Store
from appliance.contract.envelope import ENTRIES_MAX
from appliance.contract.gap import GapReason, gap_topic
from appliance.contract.reading import Reading, Stream
from appliance.supervisor import now_us

log = logging.getLogger(__name__)

SEAL_AGE_S = 30.0
"""Loose entries are sealed at this age, however few they are."""
LOOK_S = 5.0
"""How often the Keeper looks at the bounds when nothing is to be sealed."""
LOOK_BUSY_S = 0.25
"""How often it looks at them at most."""
DROPPED_BLOCKS_MAX = 200
"""Blocks that one transaction drops."""
RELIEF_BYTES = 1_000_000
"""What leaves the log at once when the disk is full."""


class Commit(Protocol):
    """The writer's door for the Keeper: blocks sealed, ranges dropped and their gaps, one transaction."""

    def __call__(
        self, sealed: Sequence[NewBlock], dropped: Sequence[Dropped], gaps: Sequence[Reading]
    ) -> Awaitable[None]: ...


class Keeper:
    """Follows the log like everyone else, a block behind."""

    def __init__(
        self,
        store: Store,
        bounds: Bounds,
        root: str,
        last: Callable[[Stream], int],
        remembered: Callable[[Stream, int, int], Run | None],
        admission: Admission,
    ) -> None:
        self._admission = admission
        self._store, self._bounds, self._last, self._remembered = store, bounds, last, remembered
        self._root, self._topic = root, gap_topic(root, store.plant)
        self._quarantine = Quarantine(store.path.parent / "quarantine")
        self.reserve = Reserve(store.path.with_suffix(".reserve"))
        self._growth = Growth()
        # Age is counted by a steady clock: one that is set forward a year must not empty the log.
        self._started_us, self._started_s = now_us(), monotonic()
        self._seen = {stream: Seen(bounds.age_max_s, self._started_s, last(stream)) for stream in Stream}
        self.sealed_to: dict[Stream, int] = {}
        self._loose_since_s: dict[Stream, float] = {}
        self._looked_s = 0.0
        self._looked_bytes = 0
        self.is_full = False
        """Producers have to wait: the policy is to reject, and nothing more can leave."""
        self.days_to_full: float | None = None
        self.dropped_entries = 0
        self.followers = Followers(store, last, self._started_s)

    @property
    def is_behind(self) -> bool:
        """More has come in than the bounds allow for: producers wait until the oldest has left."""
        return self._unseen_bytes > self._bounds.unseen_max_bytes

    @property
    def _unseen_bytes(self) -> int:
        return self._store.appended_bytes - self._looked_bytes

    async def start(self) -> None:
        """Find out where the loose entries begin."""
        for stream in Stream:
            self.sealed_to[stream] = await self._store.sealed_to(stream)
        await asyncio.to_thread(self.reserve.take)

    def due_s(self) -> float:
        """Seconds until there is something to do; 0 for now."""
        if self._store.damaged or self._unseen_bytes > self._bounds.unseen_max_bytes // 4:
            return 0.0
        now = monotonic()
        waits = [self._looked_s + LOOK_S - now]
        for stream in Stream:
            loose = self._last(stream) - self.sealed_to[stream]
            if not loose:
                self._loose_since_s.pop(stream, None)
                continue
            waits.append(self._loose_since_s.setdefault(stream, now) + SEAL_AGE_S - now if loose < ENTRIES_MAX else 0)
        return max(0.0, min(waits))

    async def work(self, commit: Commit) -> None:
        """Seal what is due, then look at the bounds."""
        for stream in Stream:
            loose = self._last(stream) - self.sealed_to[stream]
            since = self._loose_since_s.get(stream)
            if loose >= ENTRIES_MAX or (loose and since is not None and monotonic() - since >= SEAL_AGE_S):
                await self.seal(stream, commit)
        if self._store.damaged:
            await self._set_apart(commit)
        is_much = self._unseen_bytes > self._bounds.unseen_max_bytes // 4
        if is_much or monotonic() - self._looked_s >= LOOK_BUSY_S:
            self._looked_s = monotonic()
            await self.retain(commit)

    async def seal(self, stream: Stream, commit: Commit) -> None:
        """Seal the oldest loose entries of the stream, as many as one block holds."""
        first, count = await self._store.loose(stream, ENTRIES_MAX)
        self._loose_since_s.pop(stream, None)
        if not count:
            self.sealed_to[stream] = self._last(stream)
            return
        run = self._remembered(stream, first - 1, count) or await self._store.read(stream, first - 1, count)
        if not run.entries or run.first != first:
            return  # The first chunk cannot be read: it is set apart, and the rest is sealed the next time.
        entries = run.entries
        blocks = await asyncio.to_thread(new_blocks, self._store.plant, self._store.epoch, stream, first, entries)
        await commit(blocks, (), ())
        self.sealed_to[stream] = first + len(entries) - 1

    async def _set_apart(self, commit: Commit) -> None:
        """Take out what cannot be read: a gap names it, its bytes are kept beside the log, and an alarm says so."""
        dropped: list[Dropped] = []
        gaps: list[Reading] = []
        for stream, first in sorted(self._store.damaged):
            if (found := await self._store.damaged_body(stream, first)) is not None:
                count, body = found
                name = f"{self._store.epoch}-{stream}-{first}-{count}.bin"
                await asyncio.to_thread(self._quarantine.keep, name, body)
                known = [block for block in await self._store.blocks(stream, first, 1) if block.first == first]
                lost = known or [Block(first, count, 0, 0, 0)]
                dropped.append(Dropped(stream, first, first + count - 1))
                gaps.append(await self._gap(stream, lost, GapReason.DAMAGED))
            self._store.damaged.discard((stream, first))
        if dropped:
            message, lost_count = set_apart(dropped, self._quarantine.folder.name)
            log.error("buffer: %s", message)
            alarm = damage_alarm(self._root, self._store.plant, message, lost_count, now_us())
            await commit((), dropped, [*gaps, alarm])

    async def retain(self, commit: Commit) -> None:
        """Drop what is too old, then what is too much; tell how long the room will last."""
        await self._drop_aged(commit)
        appended_bytes, can_shrink = self._store.appended_bytes, False
        room = await self._store.room()
        excess, reason = self._bounds.excess(room)
        if not excess and self.is_full and self._is_tight(room):
            # What followers have taken meanwhile makes the room that producers wait for.
            excess, reason = room.used_bytes - self._used_easy_bytes, GapReason.SIZE
        if excess:
            can_shrink = await self.shrink(excess, reason, commit)
            if not can_shrink and self._bounds.policy is not Policy.REJECT:
                can_shrink = self.sealed_to[Stream.READINGS] < self._last(Stream.READINGS)
                await self.seal(Stream.READINGS, commit)  # Only what is sealed can leave.
            if reason is GapReason.DISK:
                await self._store.give_back()
            room = await self._store.room()
            excess, reason = self._bounds.excess(room)
        elif not self.reserve.is_there and room.disk_free_bytes > self._bounds.free_min_bytes:
            await asyncio.to_thread(self.reserve.take)
        if excess and can_shrink and self._bounds.policy is not Policy.REJECT:
            self._looked_s = 0.0  # There is more to drop: look again at once.
        else:
            self._looked_bytes = appended_bytes
        self._say_full(self._bounds.policy is Policy.REJECT and (excess > 0 or (self.is_full and self._is_tight(room))))
        if self._admission.has_branches:
            await self._look_at_branches(room)
        self._growth.sample(monotonic(), room.used_bytes)
        self.days_to_full = self._growth.days_to_full(room, self._bounds)

    async def _look_at_branches(self, room: Room) -> None:
        oldest_block = await self._store.blocks(Stream.READINGS, 0, 1)
        first = oldest_block[0].first if oldest_block else self.sealed_to[Stream.READINGS] + 1
        last = self._last(Stream.READINGS)
        unsent = last - max(first - 1, await self.followers.slowest(Stream.READINGS))
        self._admission.see(self._bounds.tightness(room, unsent / max(1, last - first + 1)))

    async def relieve(self, commit: Commit) -> bool:
        """The disk is full: give up the reserve, and then the oldest blocks; False when neither helps."""
        if self.reserve.give_up():
            log.error("buffer: the disk is full, the reserve is given up so that what is at hand can be written")
            return True
        if self._bounds.policy is Policy.REJECT:
            return False
        try:
            return await self.shrink(RELIEF_BYTES, GapReason.DISK, commit)
        except sqlite3.OperationalError:
            return False  # Not even that can be written.

    async def shrink(self, excess: int, reason: GapReason, commit: Commit) -> bool:
        """Drop blocks as the policy says; False when nothing could go.

        Only readings leave: events are few, leave by age, and the gaps are among them.
        """
        stream = Stream.READINGS
        blocks = await self._store.blocks(stream, 0, DROPPED_BLOCKS_MAX)
        if self._bounds.policy is Policy.REJECT:
            taken_to = await self.followers.slowest(stream)
            blocks = [block for block in blocks if block.last <= taken_to]
        chosen = await self._thinned(stream, blocks, excess) or oldest(blocks, excess)
        await self._drop(stream, chosen, reason, commit)
        return bool(chosen)

    async def _drop_aged(self, commit: Commit) -> None:
        if not math.isfinite(self._bounds.age_max_s):
            return
        now_s = monotonic()
        until_us = self._started_us + int((now_s - self._started_s - self._bounds.age_max_s) * 1e6)
        for stream in Stream:
            # A start with a clock that is a year ahead must not cost what nobody has taken yet.
            old_to = max(await self.followers.slowest(stream), self._seen[stream].sample(now_s, self._last(stream)))
            blocks = await self._store.blocks(stream, 0, DROPPED_BLOCKS_MAX)
            old = [block for block in blocks if block.to_us < until_us and block.last <= old_to]
            await self._drop(stream, old, GapReason.AGE, commit)

    async def _thinned(self, stream: Stream, blocks: list[Block], excess: int) -> list[Block]:
        if self._bounds.policy is not Policy.THIN or not blocks:
            return []
        half = (blocks[0].first + self._last(stream)) // 2
        while blocks and blocks[0].first < half:
            if chosen := every_second([block for block in blocks if block.first < half], excess):
                return chosen
            blocks = await self._store.blocks(stream, blocks[-1].first + 1, DROPPED_BLOCKS_MAX)
        return []

    async def _drop(self, stream: Stream, blocks: list[Block], reason: GapReason, commit: Commit) -> None:
        if not blocks:
            return
        groups = stretches(blocks)
        gaps = [await self._gap(stream, group, reason) for group in groups]
        await commit((), [Dropped(stream, group[0].first, group[-1].last) for group in groups], gaps)
        count = sum(block.count for block in blocks)
        self._growth.dropped(sum(block.size for block in blocks))
        self.dropped_entries += count
        first, last = blocks[0].first, blocks[-1].last
        log.warning("buffer: %d %s between %d and %d dropped (%s); a gap says so", count, stream, first, last, reason)

    async def _gap(self, stream: Stream, blocks: Sequence[Block], reason: GapReason) -> Reading:
        gap = await gap_of(self._store, stream, blocks, await self.followers.slowest(stream), reason)
        return gap.entry(self._topic, now_us())

    def _is_tight(self, room: Room) -> bool:
        """Whether room that has just been made would be gone with the next appends."""
        return room.used_bytes > self._used_easy_bytes

    @property
    def _used_easy_bytes(self) -> int:
        return int(self._bounds.used_max_bytes * (1 - 1 / HYSTERESIS))

    def _say_full(self, is_full: bool) -> None:
        if is_full and not self.is_full:
            log.error("buffer: full, and the policy is to reject; producers wait until followers have caught up")
        elif self.is_full and not is_full:
            log.info("buffer: there is room again, producers go on")
        self.is_full = is_full
