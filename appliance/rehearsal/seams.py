"""What the Rehearsal needs of others, and what it says of itself."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from appliance.bridge.status import BridgeStatus
from appliance.contract.reading import Stream
from appliance.contract.sent import Sent
from appliance.ledger.accounts import Window


class Phase(StrEnum):
    IDLE = "idle"
    CUT = "cut"
    DRAINING = "draining"
    CONFIRMING = "confirming"
    """Everything is acknowledged; the cloud has yet to say that it stands in the lake."""
    DONE = "done"
    BROKEN_OFF = "broken off"


class Refused(Exception):
    """What was asked for cannot be done now; the text says why."""


class BridgeLink(Protocol):
    """The Bridge: a link that can be cut."""

    def hold(self, reason: str) -> None:
        """Cut the link in software until `release`."""

    def release(self) -> None: ...
    def status(self) -> BridgeStatus: ...
    def sent(self, stream: Stream) -> Sent: ...


class Log(Protocol):
    """The Buffer: whose log it is, and how far it has come."""

    @property
    def plant(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    def last(self, stream: Stream = Stream.READINGS) -> int: ...


class LedgerSays(Protocol):
    """Of what the Ledger says of itself, what matters here."""

    @property
    def receipt_age_s(self) -> float | None: ...


class Ledger(Protocol):
    """The accounts of the windows."""

    async def windows(self, from_us: int, to_us: int) -> list[Window]: ...
    def status(self) -> LedgerSays: ...


@dataclass(frozen=True, slots=True)
class Room:
    """How much room the log has."""

    size_max_bytes: int
    days_to_full: float | None
    """As the Buffer foresees it; 0 and None say nothing of what would be lost."""
    is_full: bool
    """Producers wait already."""


@dataclass(frozen=True, slots=True)
class RehearsalStatus:
    """What the Rehearsal says of itself; of the last one when none runs."""

    phase: Phase
    started_us: int
    minutes: float
    left_s: float
    """Until the link is restored; 0 once it is."""
    readings: int
    """Came in since the cut, up to the restore."""
    waiting: int
    """Entries that are not acknowledged, now."""
    peak_waiting: int
    readings_per_s: float
    full_s: float | None
    """When the log would be full if the link stayed cut."""
    drain_s: float | None
    """How long what will wait at the restore takes to drain; while it drains, when it will be done."""
    settled: int
    """Windows of the rehearsal on which the cloud's word is final, of how many."""
    windows: int
    sentence: str
    verdict: str
    report: str
    """The name of the newest report; empty when there is none."""
