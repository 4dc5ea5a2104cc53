"""Rates: how fast readings come in and leave, as the outage rehearsal measured them, and what follows from that."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

SEEN_S: Final = 60.0
"""How far back a rate looks."""
DRAIN_S_MIN: Final = 5.0
"""A rate of leaving is taken over at least this long."""


@dataclass(slots=True)
class Rates:
    """Looks at the log's last number and at the last acknowledged one; the best rate of leaving is remembered."""

    best_out_per_s: float = 0.0
    _seen: deque[tuple[float, int, int]] = field(default_factory=deque)

    def saw(self, now_s: float, last: int, acknowledged: int) -> None:
        """Take one look; call it every second or so."""
        self._seen.append((now_s, last, acknowledged))
        while now_s - self._seen[0][0] > SEEN_S:
            self._seen.popleft()
        for at_s, _, before in reversed(self._seen):
            if now_s - at_s >= DRAIN_S_MIN:
                self.best_out_per_s = max(self.best_out_per_s, (acknowledged - before) / (now_s - at_s))
                return

    @property
    def in_per_s(self) -> float:
        """Readings that came in each second of the last minute; 0 as long as nothing is known."""
        if len(self._seen) < 2 or self._seen[-1][0] <= self._seen[0][0]:
            return 0.0
        return (self._seen[-1][1] - self._seen[0][1]) / (self._seen[-1][0] - self._seen[0][0])


def drain_s(waiting: float, in_per_s: float, out_per_s: float) -> float | None:
    """Seconds until nothing waits while more comes in; None when it would never end, or no rate is known."""
    if waiting <= 0:
        return 0.0
    return waiting / (out_per_s - in_per_s) if out_per_s > in_per_s else None


def full_s(waiting: float, in_per_s: float, entry_bytes: float, size_max_bytes: int) -> float | None:
    """Seconds until what waits is all that the log may hold; None when nothing comes in, or its size is not known."""
    per_s = in_per_s * entry_bytes
    return max(0.0, size_max_bytes - waiting * entry_bytes) / per_s if per_s > 0 else None
