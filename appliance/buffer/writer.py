"""The Writer: groups what callers wish, one transaction each, and answers when it is on disk."""

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from appliance.buffer.blocks import NewBlock
from appliance.buffer.cursor import Move
from appliance.buffer.keeper import Commit
from appliance.buffer.store import Dropped, Store
from appliance.buffer.tail import Tail
from appliance.contract.reading import Reading, Stream

log = logging.getLogger(__name__)

GROUP_ENTRIES_MAX = 5_000
"""Entries that one transaction takes, as long as single appends are not larger."""
GROUP_WRITES_MAX = 5_000
"""Appends that share one transaction."""
RETRY_S = 1.0


@dataclass(slots=True, eq=False)
class Write:
    """One caller's wish: entries to append, cursors to move, and the promise to answer.

    The Keeper's wishes also seal loose entries and drop old ones.
    """

    stream: Stream
    entries: Sequence[Reading]
    moves: Sequence[Move]
    done: asyncio.Future[int]
    sealed: Sequence[NewBlock] = ()
    dropped: Sequence[Dropped] = ()


class Writer:
    """The one who writes. What waits for it stays in its queue until it is committed."""

    def __init__(self, store: Store, lasts: dict[Stream, int], relieve: Callable[[Commit], Awaitable[bool]]) -> None:
        """`relieve` makes room on a disk that is full, with commits of its own; False when it cannot."""
        self._store, self._relieve = store, relieve
        self.tails = {stream: Tail(last) for stream, last in lasts.items()}
        self._waiting: deque[Write] = deque()
        self.waiting_entries = 0
        self._group_size_max = GROUP_WRITES_MAX
        self._wanted = asyncio.Event()
        self.settled = asyncio.Event()
        """Set with the next commit, and when producers should look again; then another one takes its place."""
        self.commits = 0

    async def append(self, stream: Stream, entries: Sequence[Reading], moves: Sequence[Move]) -> int:
        """The number of the first entry, once all is on disk; raises what is wrong with these entries."""
        return await self._wish(Write(stream, entries, moves, asyncio.get_running_loop().create_future()))

    async def keep(self, sealed: Sequence[NewBlock], dropped: Sequence[Dropped], gaps: Sequence[Reading]) -> None:
        """What the Keeper wishes, in its turn."""
        done = asyncio.get_running_loop().create_future()
        await self._wish(Write(Stream.EVENTS, gaps, (), done, sealed, dropped))

    async def _wish(self, wish: Write) -> int:
        self._waiting.append(wish)
        self.waiting_entries += len(wish.entries)
        self._wanted.set()
        return await wish.done

    async def run(self) -> None:
        """Write what waits, until cancelled; raises `LogDamaged` when the file has turned bad."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._waiting:
                group = self._group()
                try:
                    with self._store.sound():
                        await self._commit(group)
                except (TypeError, ValueError, OverflowError) as error:
                    # One of them cannot be written. Alone, each is either written or its caller told.
                    if len(group) == 1:
                        self._refuse(group[0], error)
                    self._group_size_max = max(1, len(group) // 2)
                else:
                    self._group_size_max = GROUP_WRITES_MAX

    def _group(self) -> list[Write]:
        """The wishes of the next transaction. They stay in the queue until it is committed."""
        group: list[Write] = []
        entries = 0
        for wish in self._waiting:
            entries += len(wish.entries)
            if group and (entries > GROUP_ENTRIES_MAX or len(group) == self._group_size_max):
                break
            group.append(wish)
        return group

    def _refuse(self, wish: Write, error: Exception) -> None:
        """Give an error back to the caller whose entries caused it; the others' are not touched."""
        self._waiting.popleft()
        self.waiting_entries -= len(wish.entries)
        if not wish.done.done():
            wish.done.set_exception(error)

    async def _commit(self, group: list[Write]) -> None:
        firsts = await self._write_until_done(group)
        for wish in group:
            self._waiting.popleft()
            self.waiting_entries -= len(wish.entries)
            if not wish.done.done():  # Its caller may have been cancelled; the entries stand all the same.
                wish.done.set_result(firsts[wish.stream])
            firsts[wish.stream] += len(wish.entries)
        self.settle()

    def settle(self) -> None:
        """Wake up all who wait for a change."""
        settled, self.settled = self.settled, asyncio.Event()
        settled.set()

    async def _write_until_done(self, group: list[Write]) -> dict[Stream, int]:
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
                if "full" not in str(error) or not await self._relieve(self._keep_at_once):
                    await asyncio.sleep(RETRY_S)
            else:
                if failures:
                    log.info("buffer: writing again after %d failures, nothing that was answered is lost", failures)
                return firsts

    async def _write(self, group: Sequence[Write]) -> dict[Stream, int]:
        """One transaction; the tails grow when it stands."""
        firsts = {stream: tail.last + 1 for stream, tail in self.tails.items()}
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
            self.tails[stream].extend(entries)
        return firsts

    async def _keep_at_once(
        self, sealed: Sequence[NewBlock], dropped: Sequence[Dropped], gaps: Sequence[Reading]
    ) -> None:
        """The Keeper's wish before all that wait, for the writer itself."""
        done = asyncio.get_running_loop().create_future()
        await self._write((Write(Stream.EVENTS, gaps, (), done, sealed, dropped),))
