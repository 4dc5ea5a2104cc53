"""What the tests of the Ledger share: a plant whose clock is set by hand, and a Bridge and a lake that do as told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.buffer.buffer import Buffer
from appliance.buffer.retention import Bounds
from appliance.contract.ledger import LEDGER_ORIGIN, WINDOW_US, WindowTally
from appliance.contract.ranges import Range, minus, union
from appliance.contract.reading import Reading, Stream, Value
from appliance.contract.receipt import Receipt
from appliance.contract.sent import Sent
from appliance.ledger.ledger import Ledger
from appliance.ledger.store import LedgerStore
from appliance.supervisor import supervise

NOON_US = 1_790_000_000_000_000 // WINDOW_US * WINDOW_US
AREA = "acme/northfield/utilities/boiler-house/feed"
PUMPS = [f"{AREA}/pmp-{number}" for number in range(3)]


def reading(at_us: int, pump: str = PUMPS[0], value: Value = 1.0) -> Reading:
    return Reading(f"{pump}/vibration", value, 192, at_us, at_us, at_us, "opcua:plant")


@dataclass(slots=True)
class Clock:
    """A wall clock that is set by hand."""

    us: int = NOON_US

    def __call__(self) -> int:
        return self.us


@dataclass(slots=True)
class ToldSender:
    """A Sender whose answers the test decides."""

    acknowledged: dict[Stream, tuple[Range, ...]] = field(default_factory=lambda: dict.fromkeys(Stream, ()))
    under_way: dict[Stream, tuple[Range, ...]] = field(default_factory=lambda: dict.fromkeys(Stream, ()))
    asked: list[tuple[Stream, tuple[Range, ...]]] = field(default_factory=list)

    def sent(self, stream: Stream) -> Sent:
        return Sent(self.acknowledged[stream], self.under_way[stream])

    def resend(self, stream: Stream, ranges: Sequence[tuple[int, int]]) -> None:
        self.asked.append((stream, tuple(ranges)))

    def acknowledge(self, stream: Stream, first: int, last: int) -> None:
        self.acknowledged[stream] = union(self.acknowledged[stream], [(first, last)])


@dataclass(slots=True)
class Plant:
    """A log, its Ledger at work, and what surrounds them."""

    buffer: Buffer
    ledger: Ledger
    sender: ToldSender
    clock: Clock
    cloud_us: int = 1_000

    def receipt(
        self,
        held: Iterable[Range],
        stream: Stream = Stream.READINGS,
        *,
        complete_to_us: int = 0,
        differing: tuple[int, ...] = (),
        epoch: int = 0,
    ) -> Receipt:
        """The cloud looks once more, and this is what it finds."""
        self.cloud_us += 1_000
        said = Receipt(
            self.buffer.plant,
            epoch or self.buffer.epoch,
            stream,
            self.cloud_us,
            complete_to_us,
            max(self.buffer.last(stream), 10_000_000),
            union(held),
            differing,
        )
        self.ledger.received(said)
        return said

    def lake_has_all(self, but: Iterable[Range] = ()) -> None:
        """Everything so far is acknowledged and stands in the lake, but for some readings."""
        for stream in (Stream.EVENTS, Stream.READINGS):
            self.sender.acknowledge(stream, 1, self.buffer.last(stream))
            self.receipt(
                minus([(1, self.buffer.last(stream))], union(but if stream is Stream.READINGS else ())), stream
            )

    async def counted(self) -> None:
        """Wait until the Ledger has gone round at least twice with nothing left to do."""
        await self.until(lambda: self.ledger.status().behind == 0)
        turns = self.ledger.turns
        await self.until(lambda: self.ledger.turns > turns + 2)

    async def until(self, is_so: Callable[[], bool]) -> None:
        for _ in range(4_000):
            if is_so():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"not within 20 s: {self.ledger.status()}")

    async def told(self) -> list[WindowTally]:
        """The windows that stand in the log as events."""
        found: list[WindowTally] = []
        after = 0
        while (batch := await self.buffer.read(Stream.EVENTS, after, 5_000)).entries:
            found += [WindowTally.from_entry(entry) for entry in batch.entries if entry.origin == LEDGER_ORIGIN]
            after = batch.last
        return found


@asynccontextmanager
async def plant(
    folder: Path,
    sender: ToldSender | None = None,
    clock: Clock | None = None,
    bounds: Bounds | None = None,
    size_max: int = 500_000_000,
) -> AsyncIterator[Plant]:
    """A plant at work, in files that stay."""
    sender, clock = sender or ToldSender(), clock or Clock()
    async with (
        Buffer.open(folder / "buffer.db", "northfield", bounds) as buffer,
        LedgerStore.open(folder / "ledger.db") as store,
    ):
        ledger = Ledger(buffer, store, "acme", clock, sender, size_max)
        async with supervise() as parts:
            parts.start("ledger", ledger.run)
            yield Plant(buffer, ledger, sender, clock)
