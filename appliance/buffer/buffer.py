"""The Buffer: the plant's durable log. Whoever needs entries follows it with a Cursor."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Self

from appliance.buffer.admission import CURSOR, Admission
from appliance.buffer.blocks import Run
from appliance.buffer.cursor import Cursor, Move
from appliance.buffer.damage import suspicion
from appliance.buffer.keeper import Keeper
from appliance.buffer.renewal import finish, is_damaged, renew
from appliance.buffer.retention import Bounds
from appliance.buffer.store import Store
from appliance.buffer.tail import Batch
from appliance.buffer.wal import mended
from appliance.buffer.writer import Writer
from appliance.contract.envelope import Sealed
from appliance.contract.gap import gap_topic
from appliance.contract.reading import Reading, Stream
from appliance.supervisor import now_us, supervise

log = logging.getLogger(__name__)

WAITING_ENTRIES_MAX = 50_000
"""Entries that may wait for their commit; beyond it, append waits before it accepts."""
SWITCH_S = 0.000_5
"""How long a thread computes while another waits. With the 5 ms of Python, commits would wait for whole seals."""


class Buffer:
    """Appends are grouped, one transaction each; an append returns when its entries are on disk."""

    def __init__(self, store: Store, bounds: Bounds, root: str, lasts: dict[Stream, int], thinned: str) -> None:
        self.plant, self.epoch = store.plant, store.epoch
        self._store = store
        self._writer = Writer(store, lasts, lambda commit: self.keeper.relieve(commit))
        self._tails = self._writer.tails
        self.admission = Admission(bounds.branches, thinned)
        self.keeper = Keeper(store, bounds, root, self.last, self._remembered, self.admission)
        self._gap_topic = gap_topic(root, store.plant)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path, plant: str, bounds: Bounds | None = None, root: str = "acme"
    ) -> AsyncIterator[Self]:
        """Open the log of a plant, creating it when absent, and keep its writer running; raises `StoreError`.

        Gaps are said below `root` of the namespace. A damaged file is set aside, and what can be read of it is
        carried over to a new epoch: the plant goes on in any case.
        """
        sys.setswitchinterval(min(SWITCH_S, sys.getswitchinterval()))
        await asyncio.to_thread(finish, path)
        # The write-ahead log comes first: whoever opens the database takes damage in it for its end.
        if reason := await asyncio.to_thread(mended, path) or await asyncio.to_thread(is_damaged, path):
            await _replaced(path, plant, root, reason)
        await asyncio.to_thread(suspicion(path).unlink, missing_ok=True)
        async with Store.open(path, plant) as store:
            lasts = {stream: await store.last(stream) for stream in Stream}
            thinned = (await store.cursor(CURSOR, Stream.EVENTS)).state
            buffer = cls(store, bounds or Bounds(), root, lasts, thinned)
            await buffer.keeper.start()
            async with supervise() as parts:
                parts.start("buffer", buffer._writer.run)
                parts.start("buffer keeper", buffer._keep)
                yield buffer

    async def append(
        self, entries: Sequence[Reading], stream: Stream = Stream.READINGS, moves: Sequence[Move] = ()
    ) -> int:
        """Make entries durable, and the cursors' moves with them; gives the number of the first.

        Waits while the disk is full or too much is waiting: whoever produces feels it, and nothing is dropped.
        Raises TypeError, ValueError or OverflowError when an entry cannot be kept; then none of these entries is.
        """
        while self._writer.waiting_entries > WAITING_ENTRIES_MAX or (
            (self.keeper.is_full or self.keeper.is_behind or self.admission.must_wait(entries))
            and entries
            and stream is Stream.READINGS
        ):
            await self._writer.settled.wait()
        if self.admission.is_tight and stream is Stream.READINGS:
            entries, moves = self._let_in(entries, moves)
        return await self._writer.append(stream, entries, moves)

    def _let_in(self, entries: Sequence[Reading], moves: Sequence[Move]) -> tuple[Sequence[Reading], Sequence[Move]]:
        """What of these comes in while the log is tight; the count of the others is committed with it."""
        admitted = self.admission.let_in(entries)
        return admitted, moves if admitted is entries else [*moves, self._counted()]

    def _counted(self) -> Move:
        """The count of thinned readings as it stands, to be committed."""
        last = self.last(Stream.EVENTS)
        return Move(Cursor(self, CURSOR, Stream.EVENTS, last, ""), last, self.admission.state())

    @property
    def commits(self) -> int:
        """Transactions since the start."""
        return self._writer.commits

    @property
    def makes_wait(self) -> bool:
        """Whether producers have to wait for room, all of them or those of a branch."""
        return self.keeper.is_full or self.admission.is_holding

    async def cursor(self, name: str, stream: Stream = Stream.READINGS) -> Cursor:
        """The named follower's cursor, where it stood when it last moved."""
        self.keeper.followers.following.add((name, stream))
        with self._store.sound():
            stored = await self._store.cursor(name, stream)
        return Cursor(self, name, stream, stored.seq, stored.state)

    def last(self, stream: Stream = Stream.READINGS) -> int:
        """The number of the newest entry; 0 when there has been none."""
        return self._tails[stream].last

    async def read(self, stream: Stream, after: int, limit: int) -> Batch:
        """Up to `limit` consecutive entries after the number `after`, from memory where they still are; may be empty.

        Behind a gap the batch begins later than asked.
        """
        tail = self._tails[stream]
        if after + 1 >= tail.first:
            return Batch(after + 1, tail.after(after, limit))
        with self._store.sound():
            run = await self._store.read(stream, after, limit)
        if not run.entries and tail.entries:  # It has left the file, and memory still has the newest of it.
            return Batch(tail.first, tail.after(tail.first - 1, limit))
        return Batch(run.first, tuple(run.entries))

    async def sealed(self, stream: Stream, after: int) -> Sealed | None:
        """The block that holds the entry after the number `after`, or the next one behind a gap.

        These are the bytes as they are stored, the same each time; None while that entry is loose.
        It may begin before `after` when the cursor stands inside it.
        """
        with self._store.sound():
            return await self._store.sealed(stream, after)

    async def sealed_run(self, stream: Stream, after: int, limit: int) -> list[Sealed]:
        """The block that `sealed` gives, and those behind it: up to `limit` of them, in order; gaps may lie between."""
        with self._store.sound():
            return await self._store.sealed_run(stream, after, limit)

    async def latest(self) -> dict[str, int]:
        """The newest source time of each topic in the log, so that a connector can tell old values from new ones."""
        with self._store.sound():
            return await self._store.latest()

    async def grown(self, stream: Stream, beyond: int) -> None:
        """Wait until the stream has an entry after the number `beyond`."""
        while self._tails[stream].last <= beyond:
            await self._writer.settled.wait()

    def _remembered(self, stream: Stream, after: int, limit: int) -> Run | None:
        """Up to `limit` entries after the number `after`, if all of them are in memory."""
        tail = self._tails[stream]
        return Run(after + 1, list(tail.after(after, limit))) if after + 1 >= tail.first else None

    async def _keep(self) -> None:
        """Seal and drop as the Keeper finds it due."""
        while True:
            try:
                async with asyncio.timeout(self.keeper.due_s()):
                    await self._writer.settled.wait()
            except TimeoutError:
                with self._store.sound():
                    await self.keeper.work(self._writer.keep)
                self._writer.settle()  # Producers that wait for room look again.
                if gap := self.admission.due(monotonic()):
                    await self.append([gap.entry(self._gap_topic, now_us())], Stream.EVENTS, [self._counted()])


async def _replaced(path: Path, plant: str, root: str, reason: str) -> None:
    log.error("buffer: the file is damaged (%s); what can be read goes to a new epoch", reason)
    report, aside = await renew(path, plant, root, reason)
    log.error(
        "buffer: the damaged file is kept as %s; %d readings and %d events are carried over; not there: %s",
        aside.name,
        report.entries[Stream.READINGS],
        report.entries[Stream.EVENTS],
        "; ".join(f"{stream} {report.missing(stream)}" for stream in Stream),
    )
