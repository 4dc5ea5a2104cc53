"""Counting: the Ledger's way through the log, from entries to pieces, and from pieces to windows that are said."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from appliance.buffer.buffer import Buffer
from appliance.buffer.cursor import Cursor
from appliance.contract.gap import GAP_ORIGIN, Gap
from appliance.contract.ledger import (
    LEDGER_ORIGIN,
    TALLIES_MAX,
    WINDOW_US,
    WindowTally,
    ledger_topic,
    window_of,
)
from appliance.contract.reading import Reading, Stream
from appliance.ledger.books import Books
from appliance.ledger.facts import Said
from appliance.ledger.pieces import Owners, Piece, pieces

log = logging.getLogger(__name__)

CURSOR: Final = "ledger"
"""Its number says up to where windows were said, its state of which epoch."""
BATCH_MAX: Final = 5_000
"""Entries that one transaction of the Ledger takes."""
TOLD_MAX: Final = 100
"""Pieces that are said in one go."""
GRACE_US: Final = 30_000_000
"""So long after its end a window is over, by the clock."""


class Counting:
    """Follows both streams: readings are counted, and among the events are the gaps and what was said before."""

    def __init__(self, buffer: Buffer, books: Books, root: str, now_us: Callable[[], int]) -> None:
        self._buffer, self._books, self._now_us = buffer, books, now_us
        self._topic = ledger_topic(root, buffer.plant)
        self._cursor: Cursor | None = None
        self._untold: deque[Piece] = deque()
        self._open: Piece | None = None
        """The newest of the untold pieces, while its window lasts."""
        self._watched_us = 0
        """The window whose silence would be said next."""
        self._heard: set[int] = set()
        """Windows from the watched one on that have entries."""

    @property
    def counted_to(self) -> int:
        return self._books.places[Stream.READINGS][1] if self._books.places else 0

    @property
    def knows_all_gaps(self) -> bool:
        """Whether every event of the log has been read."""
        return self._books.places[Stream.EVENTS][1] == self._buffer.last(Stream.EVENTS)

    async def start(self) -> None:
        """Go on where the file and the cursor stand."""
        buffer, books = self._buffer, self._books
        await self._follow_events()
        self._cursor = await buffer.cursor(CURSOR)
        if self._cursor.state != str(buffer.epoch):
            told_to = books.facts.carried_to(buffer.epoch) if self._cursor.state else 0
            await self._cursor.advance(told_to, str(buffer.epoch))
        books.told = (buffer.epoch, self._cursor.seq)
        self._untold = deque(await books.store.pieces(buffer.epoch, self._cursor.seq))
        last = self._untold[-1] if self._untold else await books.store.last_piece(buffer.epoch)
        is_whole = last is None or last.is_hole or last.last == self._cursor.seq
        self._open = None if is_whole else last
        self._watched_us = window_of(self._now_us()) + WINDOW_US
        self._heard.clear()

    async def turn(self) -> bool:
        """Count and say what has come; gives whether more waits already."""
        is_behind = await self._follow_readings()
        await self._follow_events()
        await self._books.flush()
        if not is_behind:
            self._close_by_clock()
        if not is_behind or len(self._untold) > TOLD_MAX:  # Each time costs the log a commit.
            await self._tell()
        if not is_behind:
            await self._tell_silence()
        return is_behind

    async def _follow_readings(self) -> bool:
        """Count the next entries; gives whether there had been more of them."""
        buffer, stream = self._buffer, Stream.READINGS
        seq, last = self.counted_to, buffer.last(stream)
        if seq >= last:
            return False
        batch = await buffer.read(stream, seq, BATCH_MAX)
        begins = batch.first if batch.entries else last + 1
        if begins > seq + 1:
            at_us = batch.entries[0].arrival_us if batch.entries else self._now_us()
            hole = Piece(buffer.epoch, window_of(at_us), seq + 1, begins - 1, is_hole=True)
            self._take(hole, None)
        told = self._books.told[1]
        for piece, owners in pieces(buffer.epoch, batch.first, batch.entries, self._books.equipment, told):
            self._take(piece, owners)
        self._books.places[stream] = (buffer.epoch, batch.last if batch.entries else last)
        return self.counted_to < last

    def _take(self, piece: Piece, owners: Owners | None) -> None:
        known, told = self._open, self._books.told[1]
        if known and known.start_us == piece.start_us and not piece.is_hole and known.last != told:
            known.extend(piece)
            self._books.count(known, owners)
            return
        self._open = None if piece.is_hole else piece
        if piece.first > told:
            self._untold.append(piece)
        if piece.start_us >= self._watched_us:
            self._heard.add(piece.start_us)
        self._books.count(piece, owners)

    async def _follow_events(self) -> None:
        buffer, stream = self._buffer, Stream.EVENTS
        while (seq := self._books.places[stream][1]) < (last := buffer.last(stream)):
            batch = await buffer.read(stream, seq, BATCH_MAX)
            for number, entry in enumerate(batch.entries, batch.first):
                if entry.origin in (GAP_ORIGIN, LEDGER_ORIGIN):
                    self._read(number, entry)
            self._books.places[stream] = (buffer.epoch, batch.last if batch.entries else last)
            await asyncio.sleep(0)

    def _read(self, number: int, entry: Reading) -> None:
        """Take in a gap, or a window as it was said."""
        try:
            if entry.origin == GAP_ORIGIN:
                self._books.gap(Gap.from_entry(entry))
                return
            said = WindowTally.from_entry(entry)
        except (ValueError, TypeError, KeyError) as error:
            log.warning("ledger: event %d says nothing that this version understands: %r", number, error)
            return
        if said.last >= said.first:
            self._books.say(Said(self._buffer.epoch, number, said.epoch, said.start_us))

    def _close_by_clock(self) -> None:
        """A window is over some time after its end, and when the clock is set back behind its beginning."""
        if self._open:
            age_us = self._now_us() - self._open.start_us
            if not -GRACE_US <= age_us < WINDOW_US + GRACE_US:
                self._open = None

    async def _tell(self) -> None:
        """Say pieces whose window is over: the events, and up to where they say it, in one transaction."""
        assert self._cursor is not None, "started"
        is_last_open = self._open is not None and bool(self._untold) and self._untold[-1] is self._open
        while count := min(TOLD_MAX, len(self._untold) - is_last_open):
            told = list(islice(self._untold, count))
            events = [event for piece in told if not piece.is_hole for event in self._events(piece)]
            await self._buffer.append(events, Stream.EVENTS, (self._cursor.moved(told[-1].last),))
            self._books.told = (self._buffer.epoch, told[-1].last)
            for _ in told:
                self._untold.popleft()

    async def _tell_silence(self) -> None:
        """Say a window without entries. When the clock jumps, that is one window and not all in between."""
        over_us = window_of(self._now_us() - GRACE_US)
        if over_us > self._watched_us:
            if self._watched_us not in self._heard:
                seq = self.counted_to
                silence = WindowTally(self._buffer.epoch, self._watched_us, seq + 1, seq, {})
                await self._buffer.append([silence.entry(self._topic, self._now_us())], Stream.EVENTS)
            self._watched_us = over_us
        elif over_us < self._watched_us - 2 * WINDOW_US:  # The clock was set back.
            self._watched_us = window_of(self._now_us()) + WINDOW_US
        else:
            return
        self._heard = {start_us for start_us in self._heard if start_us >= self._watched_us}

    def _events(self, piece: Piece) -> list[Reading]:
        names = self._books.equipment.names
        tallies = [(names[number], tally) for number, tally in piece.tallies.items()]
        return [
            WindowTally(
                piece.epoch, piece.start_us, piece.first, piece.last, dict(tallies[at : at + TALLIES_MAX])
            ).entry(self._topic, self._now_us())
            for at in range(0, len(tallies), TALLIES_MAX)
        ]
