"""Seldom: keeps a fault that a client can repeat at will from filling the log."""

from time import monotonic


class Seldom:
    """Says when a line may be logged again, and how many were left out since."""

    def __init__(self, burst: int = 10, pause_s: float = 10.0) -> None:
        self._burst, self._pause_s = burst, pause_s
        self._began_at = -pause_s
        self._logged = self._left_out = 0

    def due(self) -> int | None:
        """How many lines were left out before this one; None when it is left out too."""
        now = monotonic()
        if now - self._began_at >= self._pause_s:
            self._began_at, self._logged = now, 0
        if self._logged >= self._burst:
            self._left_out += 1
            return None
        self._logged += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
