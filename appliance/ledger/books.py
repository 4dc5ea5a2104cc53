"""The Ledger's books: what is known, in memory and in the file, and the windows that are made of it."""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

from appliance.buffer.buffer import Buffer
from appliance.contract.gap import Gap
from appliance.contract.ranges import Ranges, union
from appliance.contract.reading import Stream
from appliance.contract.receipt import Receipt
from appliance.contract.sent import Sent
from appliance.ledger import closing
from appliance.ledger.accounts import Fates, Window, WindowState, split, state_of
from appliance.ledger.facts import ACKNOWLEDGED, GAP, LOST, Facts, Key, Said
from appliance.ledger.pieces import Equipment, Owners, Piece, Stretch, packed
from appliance.ledger.store import Learned, LedgerStore, Settled

WINDOWS_MAX: Final = 2_016
"""Windows in one answer: a week of them."""
LOOKED_AT_MAX: Final = 300
"""Open windows that are looked at in one go, whether they have come to rest."""
CLOSED_DAYS_US: Final = 2 * 86_400_000_000
MAX_US: Final = 2**62


class WindowKey(NamedTuple):
    epoch: int
    start_us: int


class Closed(NamedTuple):
    """What memory keeps of a settled window."""

    state: WindowState
    in_lake: Ranges


class Books:
    """Everything the Ledger has learned; `flush` writes down what is new of it."""

    def __init__(self, store: LedgerStore) -> None:
        self.store, self.facts, self.equipment = store, Facts(), Equipment({})
        self.places: dict[Stream, tuple[int, int]] = {}
        self.told = (0, 0)
        """Epoch and number up to which windows were said."""
        self._learned = Learned()
        self._spans: dict[WindowKey, Ranges] = {}
        self._closed: dict[WindowKey, Closed] = {}
        self._known_fates: dict[int, tuple[int, Fates]] = {}
        self._looked_at = 0
        self._closing = asyncio.Lock()

    async def open(self, buffer: Buffer, now_us: int) -> None:
        """Read what the file has; what was received before is not forgotten."""
        received = list(self.facts.receipts.values())
        places = await self.store.places()
        if any(epoch == buffer.epoch and seq > buffer.last(stream) for stream, (epoch, seq) in places.items()):
            await self.store.clear()  # The log was set back.
            places = {}
        self.places = {stream: places.get(stream, (0, 0)) for stream in Stream}
        for stream, (epoch, _) in self.places.items():
            if epoch != buffer.epoch:
                self.places[stream] = (buffer.epoch, 0)
        self.equipment, self.facts = await self.store.equipment(), await self.store.facts()
        self._learned, self._spans, self._closed = Learned(), {}, {}
        self._known_fates.clear()
        for piece in await self.store.spans():
            self._span(piece)
        for row in await self.store.settled(now_us - CLOSED_DAYS_US, MAX_US, WINDOWS_MAX):
            self._close(row)
        for receipt in received:
            self.received(receipt)

    def count(self, piece: Piece, owners: Owners | None) -> None:
        """Take in a piece, or one that has grown, with the owners of its newest entries."""
        self._learned.pieces[piece.epoch, piece.first] = piece
        if owners is not None:
            first = piece.last - len(owners) + 1
            self._learned.stretches.append((piece.epoch, Stretch(first, piece.last, packed(owners))))
        self._span(piece)

    def gap(self, gap: Gap) -> None:
        key = Key(gap.epoch, gap.stream)
        self.facts.gap(gap)
        if gap.reason in self.facts.gaps.get(key, {}):
            self._learned.numbers[key, f"{GAP}{gap.reason}"] = self.facts.gaps[key][gap.reason]

    def say(self, said: Said) -> None:
        self.facts.say(said)
        self._learned.said.append(said)

    def sent(self, key: Key, sent: Sent) -> None:
        if self.facts.sent(key, sent):
            self._learned.numbers[key, ACKNOWLEDGED] = self.facts.acknowledged[key]

    def received(self, receipt: Receipt) -> bool:
        """Take in a receipt; gives whether it is news."""
        key = Key(receipt.epoch, receipt.stream)
        if not self.facts.receipt(receipt):
            return False
        self._learned.receipts[key] = receipt
        self._learned.numbers[key, LOST] = self.facts.lost[key]
        return True

    def lose(self, key: Key, lost: Ranges) -> Ranges:
        """Take in what is proven to be lost; gives what of it is new."""
        if new := self.facts.lose(key, lost):
            self._learned.numbers[key, LOST] = self.facts.lost[key]
        return new

    async def flush(self) -> None:
        """Write down what is new, with the places it brings the Ledger to."""
        learned, self._learned = self._learned, Learned()
        equipment, self.equipment.new = self.equipment.new, {}
        await self.store.write(learned, equipment, self.places)

    async def windows(self, from_us: int, to_us: int) -> list[Window]:
        """The windows that begin in this range of time, newest first."""
        async with self._closing:
            found: dict[WindowKey, Window] = {}
            for row in await self.store.settled(from_us, to_us, WINDOWS_MAX):
                fates = self._fates(row.epoch)
                found[WindowKey(*row[:2])] = closing.recalled(*row[:2], row.known, self.equipment.names, fates)
            spans = (key for key in self._spans if from_us <= key.start_us <= to_us)
            for key in sorted(spans, key=_age, reverse=True)[:WINDOWS_MAX]:
                if made := await self._made(key):
                    found[key] = found[key].plus(made[0]) if key in found else made[0]
        return [found[key] for key in sorted(found, key=_age, reverse=True)[:WINDOWS_MAX]]

    def states(self, from_us: int, to_us: int) -> Mapping[WindowState, int]:
        """How many windows that begin in this range of time are in each state."""
        closed = {key: self._closed_state(key) for key in self._closed if from_us <= key.start_us <= to_us}
        spans = [key for key in self._spans if from_us <= key.start_us <= to_us and key not in closed]
        states = [*closed.values(), *map(self._state, spans)]
        return {state: states.count(state) for state in WindowState}

    async def settle(self, now_us: int) -> None:
        """Close the accounts of windows that have come to rest, so that one row each is left of them.

        Looks at some of the open windows each time, in turn: after a long outage there are thousands.
        """
        keys = list(self._spans)[:-1]  # The newest may still grow.
        start = self._looked_at if self._looked_at < len(keys) else 0
        self._looked_at = start + LOOKED_AT_MAX
        resting = [key for key in keys[start : self._looked_at] if self._state(key) in _AT_REST]
        async with self._closing:
            for key in resting:
                await self._settle(key)
        self._looked_at -= len(resting)
        self._closed = {key: its for key, its in self._closed.items() if key.start_us > now_us - CLOSED_DAYS_US}

    async def trim(self, size_max: int) -> int:
        """Let the oldest windows go while the bound is near; gives how many."""
        async with self._closing:
            deleted, epoch, first = await self.store.trim(size_max)
            if deleted:
                gone = [key for key, numbers in self._spans.items() if (key.epoch, numbers[-1][0]) < (epoch, first)]
                for key in gone:
                    del self._spans[key]
                    self.facts.forget_said(*key)
        return deleted

    async def _settle(self, key: WindowKey) -> None:
        made = await self._made(key)
        if made is None:
            return
        window, numbers, in_lake = made
        names = self.equipment.names
        known = closing.known(window, numbers, in_lake, names)
        if before := await self.store.settled_window(*key):
            known = closing.joined(before.known, known, names)
        await self.store.settle(Settled(*key, window.first, known), numbers)
        self._close(Settled(*key, window.first, known))
        del self._spans[key]
        self.facts.forget_said(*key)

    async def _made(self, key: WindowKey) -> tuple[Window, Ranges, Ranges] | None:
        """A window that is not settled, its numbers, and those in the lake; None when none of it is in the file yet."""
        kept = await self.store.opened(*key)
        if not kept.pieces:
            return None
        names, fates, is_said = dict(self.equipment.names), self._fates(key.epoch), self._is_said(key)
        window, parts = await asyncio.to_thread(closing.window, *kept, names, fates, is_said=is_said)
        return window, closing.numbers_of(kept.pieces), parts.in_lake

    def _state(self, key: WindowKey) -> WindowState:
        fates = self._fates(key.epoch)
        is_differing = key.start_us in fates.differing
        return state_of(split(self._spans[key], fates), is_differing=is_differing, is_said=self._is_said(key))

    def _closed_state(self, key: WindowKey) -> WindowState:
        closed, fates = self._closed[key], self.facts.fates(key.epoch)
        if key.start_us in fates.differing or closing.gone(closed.in_lake, fates):
            return WindowState.MISSING
        return closed.state if key not in self._spans else self._state(key)

    def _is_said(self, key: WindowKey) -> bool:
        epoch, told = self.told
        is_told = key.epoch != epoch or self._spans[key][-1][1] <= told
        return is_told and self.facts.is_said(*key)

    def _close(self, row: Settled) -> None:
        in_lake = tuple((first, last) for first, last in row.known["in_lake"])
        self._closed[WindowKey(*row[:2])] = Closed(WindowState(row.known["state"]), in_lake)

    def _fates(self, epoch: int) -> Fates:
        """What is known of an epoch, made up once for each change."""
        changes, fates = self._known_fates.get(epoch, (-1, None))
        if fates is None or changes != self.facts.changes:
            fates = self.facts.fates(epoch)
            self._known_fates[epoch] = (self.facts.changes, fates)
        return fates

    def _span(self, piece: Piece) -> None:
        key = WindowKey(piece.epoch, piece.start_us)
        self._spans[key] = union(self._spans.pop(key, ()), [(piece.first, piece.last)])


_AT_REST: Final = frozenset((WindowState.GREEN, WindowState.EXPLAINED))


def _age(key: WindowKey) -> tuple[int, int]:
    return key.start_us, key.epoch
