"""The Keeper: seals what is loose, and keeps the log within its bounds; each drop writes its Gap."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Protocol

from appliance.buffer.blocks import Block, NewBlock, Run, new_blocks
from appliance.buffer.reserve import Reserve
from appliance.buffer.retention import HYSTERESIS, Bounds, Growth, Policy, every_second, oldest, stretches
from appliance.buffer.store import Dropped, Room, Store
from appliance.contract.envelope import ENTRIES_MAX, Sealed, open_sealed
from appliance.contract.gap import TOPICS_NAMED_MAX, Gap, GapReason, gap_topic
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
    ) -> None:
        self._store, self._bounds, self._last, self._remembered = store, bounds, last, remembered
        self._topic = gap_topic(root, store.plant)
        self.reserve = Reserve(store.path.with_suffix(".reserve"))
        self._growth = Growth()
        # Age is counted by a steady clock: one that is set forward a year must not empty the log.
        self._started_us, self._started_s = now_us(), monotonic()
        self.sealed_to: dict[Stream, int] = {}
        self._loose_since_s: dict[Stream, float] = {}
        self._looked_s = 0.0
        self._looked_bytes = 0
        self.is_full = False
        """Producers have to wait: the policy is to reject, and nothing more can leave."""
        self.days_to_full: float | None = None
        self.dropped_entries = 0

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
        if self._unseen_bytes > self._bounds.unseen_max_bytes // 4:
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
        """Seal what is due, let go of what is damaged, then look at the bounds."""
        for stream in Stream:
            loose = self._last(stream) - self.sealed_to[stream]
            since = self._loose_since_s.get(stream)
            if loose >= ENTRIES_MAX or (loose and since is not None and monotonic() - since >= SEAL_AGE_S):
                await self.seal(stream, commit)
        await self._drop_damaged(commit)
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
        is_whole = run.entries and run.first == first
        if not is_whole:  # The first chunk cannot be read: it leaves the log, and a gap says so.
            beyond = min(run.first, first + count) - 1 if run.entries else first + count - 1
            lost = Block(first, beyond - first + 1, 0, 0, 0)
            await commit((), (Dropped(stream, first, beyond),), (await self._gap(stream, [lost], GapReason.DAMAGED),))
        else:
            entries = run.entries
            blocks = await asyncio.to_thread(new_blocks, self._store.plant, self._store.epoch, stream, first, entries)
            await commit(blocks, (), ())
            beyond = first + len(entries) - 1
        self.sealed_to[stream] = beyond

    async def _drop_damaged(self, commit: Commit) -> None:
        """What cannot be read, not even a second time, leaves the log, and a gap says so; loose entries at sealing."""
        for found in [found for found in self._store.damaged if found.last <= self.sealed_to[found.stream]]:
            run = await self._store.read(found.stream, found.first - 1, 1)
            if not run.entries or run.first != found.first:
                lost = Block(found.first, found.last - found.first + 1, 0, 0, 0)
                await commit((), (found,), (await self._gap(found.stream, [lost], GapReason.DAMAGED),))
            self._store.damaged.discard(found)

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
        self._growth.sample(monotonic(), room.used_bytes)
        self.days_to_full = self._growth.days_to_full(room, self._bounds)

    async def shrink(self, excess: int, reason: GapReason, commit: Commit) -> bool:
        """Drop blocks as the policy says; False when nothing could go.

        Only readings leave: events are few, leave by age, and the gaps are among them.
        """
        stream = Stream.READINGS
        blocks = await self._store.blocks(stream, 0, DROPPED_BLOCKS_MAX)
        if self._bounds.policy is Policy.REJECT:
            taken_to = await self._store.slowest(stream)
            blocks = [block for block in blocks if block.last <= taken_to]
        chosen = await self._thinned(stream, blocks, excess) or oldest(blocks, excess)
        await self._drop(stream, chosen, reason, commit)
        return bool(chosen)

    async def _drop_aged(self, commit: Commit) -> None:
        if not math.isfinite(self._bounds.age_max_s):
            return
        until_us = self._started_us + int((monotonic() - self._started_s - self._bounds.age_max_s) * 1e6)
        for stream in Stream:
            blocks = await self._store.blocks(stream, 0, DROPPED_BLOCKS_MAX)
            await self._drop(stream, [block for block in blocks if block.to_us < until_us], GapReason.AGE, commit)

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
        topics: dict[str, None] = {}
        for block in blocks:
            if block.size and (sealed := await self._store.sealed(stream, block.first - 1)):
                topics.update(dict.fromkeys(await asyncio.to_thread(_topics, sealed)))
        first, last = blocks[0].first, blocks[-1].last
        taken_to = await self._store.slowest(stream)
        unread = sum(max(0, min(block.count, block.last - taken_to)) for block in blocks)
        gap = Gap(
            epoch=self._store.epoch,
            stream=stream,
            first=first,
            last=last,
            count=sum(block.count for block in blocks),
            unread=unread,
            reason=reason,
            topics=tuple(topics)[:TOPICS_NAMED_MAX],
            topic_count=len(topics),
            from_us=min(block.from_us for block in blocks),
            to_us=max(block.to_us for block in blocks),
        )
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


def _topics(sealed: Sealed) -> list[str]:
    try:
        return list(dict.fromkeys(entry.topic for entry in open_sealed(sealed).entries))
    except ValueError:
        return []  # Damaged: it goes all the same, and the gap names its numbers.
