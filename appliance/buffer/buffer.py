"""The Buffer: the plant's durable log. Whoever needs entries follows it with a Cursor."""

import asyncio
import logging
import sqlite3
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import NamedTuple, Self

from appliance.buffer.admission import CURSOR, Admission
from appliance.buffer.blocks import NewBlock, Run
from appliance.buffer.damage import LogDamaged, is_corrupt
from appliance.buffer.keeper import Keeper
from appliance.buffer.renewal import finish, is_damaged, renew, suspect, suspicion
from appliance.buffer.retention import Bounds, Policy
from appliance.buffer.store import Dropped, Store
from appliance.buffer.wal import mended
from appliance.contract.envelope import Sealed
from appliance.contract.gap import GapReason, gap_topic
from appliance.contract.reading import Reading, Stream
from appliance.supervisor import now_us, supervise

log = logging.getLogger(__name__)

TAIL_ENTRIES_MAX = 50_000
"""Newest entries kept in memory for each stream, so that followers who keep up never read the file."""
GROUP_ENTRIES_MAX = 5_000
"""Entries that one transaction takes, as long as single appends are not larger."""
GROUP_WRITES_MAX = 5_000
"""Appends that share one transaction."""
WAITING_ENTRIES_MAX = 50_000
"""Entries that may wait for their commit; beyond it, append waits before it accepts."""
SWITCH_S = 0.000_5
"""How long a thread computes while another waits. With the 5 ms of Python, commits would wait for whole seals."""
RETRY_S = 1.0
RELIEF_BYTES = 1_000_000
"""What leaves the log at once when the disk is full."""


class Batch(NamedTuple):
    """Consecutive entries of a stream; `first` is the number of the first one."""

    first: int
    entries: tuple[Reading, ...]

    @property
    def last(self) -> int:
        return self.first + len(self.entries) - 1


class Move(NamedTuple):
    """A cursor's step in the same transaction as an append; a state of None leaves the cursor's state as it is."""

    cursor: "Cursor"
    seq: int
    state: str | None = None


@dataclass(slots=True, eq=False)
class _Write:
    """One caller's wish: entries to append, cursors to move, and the promise to answer.

    The Keeper's wishes also seal loose entries and drop old ones.
    """

    stream: Stream
    entries: Sequence[Reading]
    moves: Sequence[Move]
    done: asyncio.Future[int]
    sealed: Sequence[NewBlock] = ()
    dropped: Sequence[Dropped] = ()


@dataclass(slots=True)
class _Tail:
    """The newest entries of one stream in memory."""

    last: int
    entries: deque[Reading] = field(default_factory=deque)

    @property
    def first(self) -> int:
        return self.last - len(self.entries) + 1

    def extend(self, entries: Sequence[Reading]) -> None:
        self.entries.extend(entries)
        self.last += len(entries)
        for _ in range(len(self.entries) - TAIL_ENTRIES_MAX):
            self.entries.popleft()

    def after(self, seq: int, limit: int) -> tuple[Reading, ...]:
        waiting, start = max(0, self.last - seq), seq + 1 - self.first
        if waiting > start + limit:
            return tuple(islice(self.entries, start, start + limit))
        newest = list(islice(reversed(self.entries), waiting))  # A deque is walked from its nearer end.
        newest.reverse()
        return tuple(newest[:limit])


class Buffer:
    """Appends are grouped, one transaction each; an append returns when its entries are on disk."""

    def __init__(self, store: Store, bounds: Bounds, root: str, lasts: dict[Stream, int], thinned: str) -> None:
        self.plant, self.epoch = store.plant, store.epoch
        self._store, self._bounds = store, bounds
        self._tails = {stream: _Tail(last) for stream, last in lasts.items()}
        self.admission = Admission(bounds.branches, thinned)
        self.keeper = Keeper(store, bounds, root, self.last, self._remembered, self.admission)
        self._gap_topic = gap_topic(root, store.plant)
        self._waiting: deque[_Write] = deque()
        self._waiting_entries = 0
        self._group_size_max = GROUP_WRITES_MAX
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()
        self.commits = 0

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
                parts.start("buffer", buffer._write_groups)
                parts.start("buffer keeper", buffer._keep)
                yield buffer

    async def append(
        self, entries: Sequence[Reading], stream: Stream = Stream.READINGS, moves: Sequence[Move] = ()
    ) -> int:
        """Make entries durable, and the cursors' moves with them; gives the number of the first.

        Waits while the disk is full or too much is waiting: whoever produces feels it, and nothing is dropped.
        Raises TypeError, ValueError or OverflowError when an entry cannot be kept; then none of these entries is.
        """
        while self._waiting_entries > WAITING_ENTRIES_MAX or (
            (self.keeper.is_full or self.keeper.is_behind or self.admission.must_wait(entries))
            and entries
            and stream is Stream.READINGS
        ):
            await self._settled.wait()
        if self.admission.is_tight and stream is Stream.READINGS:
            entries, moves = self._let_in(entries, moves)
        return await self._wish(_Write(stream, entries, moves, asyncio.get_running_loop().create_future()))

    def _let_in(self, entries: Sequence[Reading], moves: Sequence[Move]) -> tuple[Sequence[Reading], Sequence[Move]]:
        """What of these comes in while the log is tight; the count of the others is committed with it."""
        admitted = self.admission.let_in(entries)
        return admitted, moves if admitted is entries else [*moves, self._counted()]

    def _counted(self) -> Move:
        """The count of thinned readings as it stands, to be committed."""
        last = self.last(Stream.EVENTS)
        return Move(Cursor(self, CURSOR, Stream.EVENTS, last, ""), last, self.admission.state())

    @property
    def makes_wait(self) -> bool:
        """Whether producers have to wait for room, all of them or those of a branch."""
        return self.keeper.is_full or self.admission.is_holding

    async def cursor(self, name: str, stream: Stream = Stream.READINGS) -> "Cursor":
        """The named follower's cursor, where it stood when it last moved."""
        self.keeper.following.add((name, stream))
        with self._sound():
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
        with self._sound():
            run = await self._store.read(stream, after, limit)
        if not run.entries and tail.entries:  # It has left the file, and memory still has the newest of it.
            return Batch(tail.first, tail.after(tail.first - 1, limit))
        return Batch(run.first, tuple(run.entries))

    async def sealed(self, stream: Stream, after: int) -> Sealed | None:
        """The block that holds the entry after the number `after`, or the next one behind a gap.

        These are the bytes as they are stored, the same each time; None while that entry is loose.
        It may begin before `after` when the cursor stands inside it.
        """
        with self._sound():
            return await self._store.sealed(stream, after)

    async def sealed_run(self, stream: Stream, after: int, limit: int) -> list[Sealed]:
        """The block that `sealed` gives, and those behind it: up to `limit` of them, in order; gaps may lie between."""
        return await self._store.sealed_run(stream, after, limit)

    async def latest(self) -> dict[str, int]:
        """The newest source time of each topic in the log, so that a connector can tell old values from new ones."""
        with self._sound():
            return await self._store.latest()

    async def grown(self, stream: Stream, beyond: int) -> None:
        """Wait until the stream has an entry after the number `beyond`."""
        while self._tails[stream].last <= beyond:
            await self._settled.wait()

    async def _write_groups(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._waiting:
                group = self._group()
                try:
                    with self._sound():
                        await self._commit(group)
                except (TypeError, ValueError, OverflowError) as error:
                    # One of them cannot be written. Alone, each is either written or its caller told.
                    if len(group) == 1:
                        self._refuse(group[0], error)
                    self._group_size_max = max(1, len(group) // 2)
                else:
                    self._group_size_max = GROUP_WRITES_MAX

    def _group(self) -> list[_Write]:
        """The wishes of the next transaction. They stay in the queue until it is committed."""
        group: list[_Write] = []
        entries = 0
        for wish in self._waiting:
            entries += len(wish.entries)
            if group and (entries > GROUP_ENTRIES_MAX or len(group) == self._group_size_max):
                break
            group.append(wish)
        return group

    def _refuse(self, wish: _Write, error: Exception) -> None:
        """Give an error back to the caller whose entries caused it; the others' are not touched."""
        self._waiting.popleft()
        self._waiting_entries -= len(wish.entries)
        if not wish.done.done():
            wish.done.set_exception(error)

    def _remembered(self, stream: Stream, after: int, limit: int) -> Run | None:
        """Up to `limit` entries after the number `after`, if all of them are in memory."""
        tail = self._tails[stream]
        return Run(after + 1, list(tail.after(after, limit))) if after + 1 >= tail.first else None

    async def _wish(self, wish: _Write) -> int:
        self._waiting.append(wish)
        self._waiting_entries += len(wish.entries)
        self._wanted.set()
        return await wish.done

    async def _keep(self) -> None:
        """Seal and drop as the Keeper finds it due."""
        while True:
            try:
                async with asyncio.timeout(self.keeper.due_s()):
                    await self._settled.wait()
            except TimeoutError:
                with self._sound():
                    await self.keeper.work(self._kept)
                self._settle()  # Producers that wait for room look again.
                if gap := self.admission.due(monotonic()):
                    await self.append([gap.entry(self._gap_topic, now_us())], Stream.EVENTS, [self._counted()])

    async def _kept(self, sealed: Sequence[NewBlock], dropped: Sequence[Dropped], gaps: Sequence[Reading]) -> None:
        done = asyncio.get_running_loop().create_future()
        await self._wish(_Write(Stream.EVENTS, gaps, (), done, sealed, dropped))

    async def _commit(self, group: list[_Write]) -> None:
        firsts = await self._write_until_done(group)
        for wish in group:
            self._waiting.popleft()
            self._waiting_entries -= len(wish.entries)
            if not wish.done.done():  # Its caller may have been cancelled; the entries stand all the same.
                wish.done.set_result(firsts[wish.stream])
            firsts[wish.stream] += len(wish.entries)
        self._settle()

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """A page of the file that has turned bad ends the run: opening the log again salvages it."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                raise
            suspect(self._store.path, str(error))
            raise LogDamaged(f"the log's file has turned bad ({error}); it is opened anew and salvaged") from error

    def _settle(self) -> None:
        settled, self._settled = self._settled, asyncio.Event()
        settled.set()

    async def _write_until_done(self, group: list[_Write]) -> dict[Stream, int]:
        """Write the group for as long as it takes; gives the number of its first entry in each stream."""
        failures = 0
        while True:
            try:
                firsts = await self._write(group)
            except sqlite3.OperationalError as error:
                # The disk is full, or failing: nobody has been answered, so waiting loses nothing.
                failures += 1
                if failures == 1:
                    log.error("buffer: cannot write (%s); producers wait, trying again each %.0f s", error, RETRY_S)
                if not (self._is_relieved(error) or await self._has_shrunk(error)):
                    await asyncio.sleep(RETRY_S)
            else:
                if failures:
                    log.info("buffer: writing again after %d failures, nothing that was answered is lost", failures)
                return firsts

    async def _write(self, group: Sequence[_Write]) -> dict[Stream, int]:
        """One transaction; the tails grow when it stands."""
        firsts = {stream: tail.last + 1 for stream, tail in self._tails.items()}
        runs: dict[Stream, list[Reading]] = {stream: [] for stream in Stream}
        for wish in group:
            runs[wish.stream].extend(wish.entries)
        appended = [(stream, firsts[stream], entries) for stream, entries in runs.items() if entries]
        try:
            await self._store.write(
                appended,
                [(move.cursor.name, move.cursor.stream, move.seq, move.state) for wish in group for move in wish.moves],
                [block for wish in group for block in wish.sealed],
                [dropped for wish in group for dropped in wish.dropped],
            )
        except sqlite3.OperationalError:
            if not appended or await self._store.last(appended[0][0]) < appended[0][1]:
                raise
            # The failed commit had gone through after all.
        self.commits += 1
        for stream, entries in runs.items():
            self._tails[stream].extend(entries)
        return firsts

    def _is_relieved(self, error: sqlite3.OperationalError) -> bool:
        """Whether the disk was full and the reserve has been given up for it."""
        if "full" not in str(error) or not self.keeper.reserve.give_up():
            return False
        log.error("buffer: the disk is full, the reserve is given up so that what is at hand can be written")
        return True

    async def _has_shrunk(self, error: sqlite3.OperationalError) -> bool:
        """Whether the disk was full and the oldest blocks have left for it."""
        if "full" not in str(error) or self._bounds.policy is Policy.REJECT:
            return False
        try:
            return await self.keeper.shrink(RELIEF_BYTES, GapReason.DISK, self._kept_at_once)
        except sqlite3.OperationalError:
            return False  # Not even that can be written.

    async def _kept_at_once(
        self, sealed: Sequence[NewBlock], dropped: Sequence[Dropped], gaps: Sequence[Reading]
    ) -> None:
        """The Keeper's wish before all that wait, for the writer itself."""
        done = asyncio.get_running_loop().create_future()
        await self._write((_Write(Stream.EVENTS, gaps, (), done, sealed, dropped),))


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


class Cursor:
    """Where one named follower stands in one stream of the Buffer, with the small state it carries along."""

    def __init__(self, buffer: Buffer, name: str, stream: Stream, seq: int, state: str) -> None:
        self._buffer = buffer
        self.name, self.stream, self.seq, self.state = name, stream, seq, state

    @property
    def behind(self) -> int:
        """Entries that wait for this follower."""
        return self._buffer.last(self.stream) - self.seq

    async def batch(self, limit: int = 1000) -> Batch:
        """The entries after `seq`, or after the gap there, at least one; waits until there are some.

        The cursor does not move.
        """
        beyond = self.seq
        while True:
            await self._buffer.grown(self.stream, beyond)
            last = self._buffer.last(self.stream)
            batch = await self._buffer.read(self.stream, self.seq, limit)
            if batch.entries:
                return batch
            beyond = last  # All of it has left the log.

    async def advance(self, seq: int, state: str | None = None) -> None:
        """Move on to `seq`, durably, with the follower's state when it is given."""
        await self._buffer.append((), self.stream, (self.moved(seq, state),))

    def moved(self, seq: int, state: str | None = None) -> Move:
        """The cursor at its new place, as a Move to be committed with an append."""
        self.seq = seq
        if state is not None:
            self.state = state
        return Move(self, seq, state)
