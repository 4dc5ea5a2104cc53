"""The Ledger: what has become of every reading, by equipment and window, on the plant's side.

It follows the log at its own pace, says each window once as an event, and turns what the cloud and the Bridge say
into accounts. A window is green on the cloud's word alone.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol

from appliance.buffer.buffer import Buffer
from appliance.buffer.damage import sound
from appliance.contract.ranges import Range, Ranges, minus, size, union
from appliance.contract.reading import Stream
from appliance.contract.receipt import Receipt
from appliance.contract.sent import Sent
from appliance.ledger.accounts import Window, WindowState
from appliance.ledger.books import Books
from appliance.ledger.counting import Counting
from appliance.ledger.facts import Key
from appliance.ledger.losses import Losses, Snapshot
from appliance.ledger.store import LedgerStore

log = logging.getLogger(__name__)

TURN_S: Final = 1.0
LOOK_S: Final = 5.0
"""How often the states of windows are made up, losses looked for and accounts closed."""
DAY_US: Final = 86_400_000_000
MISSING_SHOWN_MAX: Final = 5


class Sender(Protocol):
    """Who sends the log to the cloud."""

    def sent(self, stream: Stream) -> Sent:
        """What of the present epoch is sent, now."""

    def resend(self, stream: Stream, ranges: Sequence[tuple[int, int]]) -> None:
        """Send these numbers again, as far as the log still has them; what the lake has already is not doubled."""


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """What the Ledger says of itself."""

    windows: Mapping[str, int]
    """How many windows of the last 24 hours are in each state."""
    missing_readings: int
    """Of the present epoch."""
    missing: tuple[tuple[int, int], ...]
    """The first few ranges of these."""
    receipt_age_s: float | None
    """Seconds since the last receipt came; None when none has come since the start."""
    behind: int
    """Readings of the log that are not counted yet."""
    resends: int
    """How often the Bridge was asked to send something again since the start."""
    size_bytes: int
    size_max_bytes: int
    windows_dropped: int
    """Windows that left the ledger since the start because of its bound."""


class Ledger:
    """Follows the log. Its place is in its own file, so the file may be deleted and is made again from the log."""

    def __init__(
        self,
        buffer: Buffer,
        store: LedgerStore,
        root: str,
        now_us: Callable[[], int],
        sender: Sender | None = None,
        size_max: int = 500_000_000,
    ) -> None:
        self._buffer, self._sender, self._now_us, self._size_max = buffer, sender, now_us, size_max
        self._books = Books(store)
        self._counting = Counting(buffer, self._books, root, now_us)
        self._losses = Losses()
        self._receipt_s: float | None = None
        self._strangers: set[str] = set()
        self._states: Mapping[WindowState, int] = {}
        self._looked: tuple[int, int] = (-1, 0)
        self._size_bytes = self._resends = self._windows_dropped = 0
        self.turns = 0
        """Rounds so far."""

    async def run(self) -> None:
        """Follow the log, say windows that are over, and have sent again what got lost, until cancelled.

        Raises `FileDamaged` when the ledger's file turns bad.
        """
        with sound("the ledger's file"):
            await self._follow()

    async def _follow(self) -> None:
        self._losses = Losses()
        await self._books.open(self._buffer, self._now_us())
        await self._counting.start()
        due_s = 0.0
        while True:
            is_behind = await self._counting.turn()
            if monotonic() >= due_s and not is_behind:
                self._ask_sender()
                await self._look()
                due_s = monotonic() + LOOK_S
            self.turns += 1
            await asyncio.sleep(0 if is_behind else TURN_S)

    def received(self, receipt: Receipt) -> None:
        """Take what the cloud says; older receipts and those of other plants are passed over."""
        if receipt.plant != self._buffer.plant:
            if receipt.plant not in self._strangers and len(self._strangers) < 100:
                log.warning("ledger: receipts of plant %s come here too, and are passed over", receipt.plant)
                self._strangers.add(receipt.plant)
            return
        self._receipt_s = monotonic()
        if self._books.received(receipt) and receipt.epoch == self._buffer.epoch:
            self._losses.received(receipt)

    async def windows(self, from_us: int, to_us: int) -> list[Window]:
        """The windows that begin in this range of time, newest first; at most `WINDOWS_MAX` of them."""
        return await self._books.windows(from_us, to_us)

    def status(self) -> LedgerStatus:
        lost = self._books.facts.lost.get(Key(self._buffer.epoch, Stream.READINGS), ())
        return LedgerStatus(
            windows={state.value: self._states.get(state, 0) for state in WindowState},
            missing_readings=size(lost),
            missing=lost[:MISSING_SHOWN_MAX],
            receipt_age_s=None if self._receipt_s is None else round(monotonic() - self._receipt_s, 1),
            behind=self._buffer.last(Stream.READINGS) - self._counting.counted_to,
            resends=self._resends,
            size_bytes=self._size_bytes,
            size_max_bytes=self._size_max,
            windows_dropped=self._windows_dropped,
        )

    def _ask_sender(self) -> None:
        """See what is sent; only when every gap is known, because what has left the log counts as sent there."""
        if self._sender is None or not self._counting.knows_all_gaps:
            return
        facts, keys = self._books.facts, {stream: Key(self._buffer.epoch, stream) for stream in Stream}
        said = {stream: self._sender.sent(stream) for stream in Stream}
        for stream, key in keys.items():
            self._books.sent(key, said[stream])
        sure = {stream: minus(union(its.acknowledged), union(its.under_way)) for stream, its in said.items()}
        self._losses.take(
            Snapshot(
                monotonic(),
                {stream: minus(sure[stream], facts.unsent(key)) for stream, key in keys.items()},
                {
                    stream: union(facts.acknowledged[key], facts.under_way[key], facts.gone(key))
                    for stream, key in keys.items()
                },
            )
        )

    async def _look(self) -> None:
        """Make up the states, have sent again what is lost, close accounts, keep to the bound."""
        self._find_losses()
        day_us = self._now_us() - DAY_US
        looked = (self._books.facts.changes, self._counting.counted_to)
        if looked != self._looked:
            self._looked = looked
            self._states = self._books.states(day_us, self._now_us())
            await self._books.settle(self._now_us())
        dropped = await self._books.trim(self._size_max)
        if dropped and not self._windows_dropped:
            log.warning("ledger: the bound of %d bytes is reached, the oldest windows go first", self._size_max)
        self._windows_dropped += dropped
        self._size_bytes = await self._books.store.used_bytes()

    def _find_losses(self) -> None:
        if self._sender is None:
            return
        receipts = self._books.facts.receipts
        newest = [its for stream in Stream if (its := receipts.get(Key(self._buffer.epoch, stream)))]
        for receipt in newest:
            key = Key(receipt.epoch, receipt.stream)
            if new := self._books.lose(key, self._losses.lost(receipt)):
                log.error("ledger: %s %s were acknowledged and are not in the lake", receipt.stream, _text(new))
            lost = minus(self._books.facts.lost.get(key, ()), self._books.facts.gone(key))
            if wanted := self._losses.wanted(receipt, lost, monotonic()):
                log.warning("ledger: %s %s are asked for to be sent again", receipt.stream, _text(wanted))
                self._resends += 1
                self._sender.resend(receipt.stream, wanted)
        if len(newest) == len(Stream):
            self._losses.forget(newest)


def _text(ranges: Ranges) -> str:
    """The first few ranges in words."""
    shown = ", ".join(map(_one, ranges[:MISSING_SHOWN_MAX]))
    return shown if len(ranges) <= MISSING_SHOWN_MAX else f"{shown} and {len(ranges) - MISSING_SHOWN_MAX} more ranges"


def _one(part: Range) -> str:
    return str(part[0]) if part[0] == part[1] else f"{part[0]}-{part[1]}"
