"""Throughput units: how much a namespace takes and gives in a second."""

import time
from collections.abc import Callable
from typing import Final

IN_BYTES_S: Final = 1_000_000
IN_EVENTS_S: Final = 1_000
OUT_BYTES_S: Final = 2_000_000
"""Of one unit, as Azure's quotas say."""
BUSY: Final = "com.microsoft:server-busy"
BUSY_TEXT: Final = (
    "The request was terminated because the namespace is being throttled. Error code: 50002. "
    "Please wait 4 seconds and try again."
)


class Bucket:
    """A bucket that fills with a second's worth; what is larger than it goes in when it holds anything, on credit."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._level, self._at_s = per_s, clock()

    def has_any(self) -> bool:
        now_s = self._clock()
        self._level = min(self._per_s, self._level + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._level > 0

    def take(self, amount: float) -> float:
        """Take out, on credit too; gives how many seconds it needs to hold something again."""
        self.has_any()
        self._level -= amount
        return max(0.0, -self._level / self._per_s)


class Throughput:
    """What all connections of a namespace share; 0 units are no bound."""

    def __init__(self, units: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_bound = units > 0
        self._in_bytes, self._in_events, self._out_bytes = (
            Bucket(max(1, units) * per_s, clock) for per_s in (IN_BYTES_S, IN_EVENTS_S, OUT_BYTES_S)
        )

    def admits(self, events: int, size_bytes: int) -> bool:
        """Whether a delivery fits; it is then counted."""
        if not self._is_bound:
            return True
        if not (self._in_bytes.has_any() and self._in_events.has_any()):
            return False
        self._in_bytes.take(size_bytes)
        self._in_events.take(events)
        return True

    def pause_s(self, size_bytes: int) -> float:
        """How long a receiver must wait after so many bytes went out."""
        return self._out_bytes.take(size_bytes) if self._is_bound else 0.0
