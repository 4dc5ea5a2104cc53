"""Losses: what the hub had acknowledged and the lake will not get, proven without comparing two clocks.

A snapshot T knows what was acknowledged at one moment. A receipt R0 that holds a number which had not even been sent
at T was made after T. So a later receipt R that is complete to R0 holds all that was acknowledged at T, or it is lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.contract.ranges import Ranges, clipped, common, minus, union
from appliance.contract.reading import Stream
from appliance.contract.receipt import Receipt

SNAPSHOTS_MAX: Final = 32
"""At the bound every second one goes; those that stay lie further apart."""
ASKS_MAX: Final = 3
"""How often the same numbers are asked for."""
ASKED_RANGES_MAX: Final = 2_000
"""Ranges of a stream that are asked for at a time; others have their turn when the lake has some of these."""
PAUSE_S: Final = 60.0
"""After the first time; it doubles."""


@dataclass(slots=True)
class Snapshot:
    """What was acknowledged at one moment, and what may have been sent until then, in the present epoch."""

    at_s: float
    acknowledged: Mapping[Stream, Ranges]
    sent: Mapping[Stream, Ranges]
    proven_us: int | None = None
    """The time of the first receipt that is known to be younger, by the cloud's clock."""


@dataclass(slots=True)
class Ask:
    """Numbers that were asked for."""

    stream: Stream
    ranges: Ranges
    at_s: float
    times: int = 1

    @property
    def due_s(self) -> float:
        return self.at_s + PAUSE_S * (1 << (self.times - 1))


@dataclass(slots=True)
class Losses:
    """The snapshots, and what was asked for; in memory, because both begin anew at no cost."""

    snapshots: list[Snapshot] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)

    def take(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, unless it could prove no more than the last one."""
        if self.snapshots and self.snapshots[-1].acknowledged == snapshot.acknowledged:
            return
        if len(self.snapshots) >= SNAPSHOTS_MAX:
            self.snapshots = self.snapshots[::2]
        self.snapshots.append(snapshot)

    def received(self, receipt: Receipt) -> None:
        """See which snapshots a receipt is younger than."""
        for snapshot in self.snapshots:
            if snapshot.proven_us is None and minus(receipt.held, snapshot.sent[receipt.stream]):
                snapshot.proven_us = receipt.at_us

    def lost(self, receipt: Receipt, since_s: float = 0.0) -> Ranges:
        """What of the receipt's stream was acknowledged and is lost, as snapshots after `since_s` prove."""
        for snapshot in reversed(self.snapshots):
            is_proven = snapshot.proven_us is not None and snapshot.proven_us <= receipt.complete_to_us
            if is_proven and snapshot.at_s >= since_s:
                acknowledged = clipped(snapshot.acknowledged[receipt.stream], 0, receipt.speaks_to)
                return minus(acknowledged, receipt.held)
        return ()

    def forget(self, receipts: Sequence[Receipt]) -> None:
        """Let go of snapshots older than one that serves for each of these newest receipts."""
        complete_us = min((receipt.complete_to_us for receipt in receipts), default=0)
        for place in range(len(self.snapshots) - 1, 0, -1):
            proven_us = self.snapshots[place].proven_us
            if proven_us is not None and proven_us <= complete_us:
                del self.snapshots[:place]
                return

    def wanted(self, receipt: Receipt, lost: Ranges, now_s: float) -> Ranges:
        """What of the lost numbers is to be asked for now; it counts as asked for."""
        stream = receipt.stream
        for ask in self.asks:
            if ask.stream is stream:
                ask.ranges = common(ask.ranges, lost)
        self.asks = [ask for ask in self.asks if ask.ranges]
        mine = [ask for ask in self.asks if ask.stream is stream]
        room = ASKED_RANGES_MAX - sum(len(ask.ranges) for ask in mine)
        wanted = minus(common(lost, self.lost(receipt)), union(*(ask.ranges for ask in mine)))[: max(0, room)]
        if wanted:
            self.asks.append(Ask(stream, wanted, now_s))
        for ask in mine:
            if (
                ask.times < ASKS_MAX
                and now_s >= ask.due_s
                and (again := common(ask.ranges, self.lost(receipt, ask.at_s)))
            ):
                ask.at_s, ask.times = now_s, ask.times + 1
                wanted = union(wanted, again)
        return wanted
