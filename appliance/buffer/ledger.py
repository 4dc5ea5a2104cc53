"""The Ledger: what has become of every reading, by equipment and window, on the plant's side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.buffer.accounts import Window
from appliance.buffer.buffer import Buffer
from appliance.buffer.ledger_store import LedgerStore
from appliance.contract.reading import Stream
from appliance.contract.receipt import Receipt
from appliance.contract.sent import Sent


class Sender(Protocol):
    """Who sends the log to the cloud."""

    def sent(self, stream: Stream) -> Sent:
        """What of the present epoch is sent, now."""

    def resend(self, stream: Stream, ranges: Sequence[tuple[int, int]]) -> None:
        """Send these numbers again, as far as the log still has them; what the lake has already is not doubled."""


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """What the Ledger says of itself, of the last 24 hours where nothing else is said."""

    windows: Mapping[str, int]
    """How many windows are in each state."""
    missing_readings: int
    """Of the whole present epoch."""
    missing: tuple[tuple[int, int], ...]
    """The first few ranges of these."""
    receipt_age_s: float | None
    """Seconds since the last receipt came; none since the start when it is None."""
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
    ) -> None: ...

    async def run(self) -> None:
        """Follow the log, say windows that are over, and have sent again what got lost, until cancelled."""

    def received(self, receipt: Receipt) -> None:
        """Take what the cloud says; older receipts and those of other plants are passed over."""

    async def windows(self, from_us: int, to_us: int) -> list[Window]:
        """The windows that begin in this range of time, newest first; at most `WINDOWS_MAX` of them."""

    def status(self) -> LedgerStatus: ...
