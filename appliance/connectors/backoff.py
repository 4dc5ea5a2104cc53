"""The pauses between attempts to get a link back."""

import random

JITTER = 0.1
"""Share of a pause by which it may differ, so that many appliances do not come at once."""


class Backoff:
    """Doubling pauses between a least and a cap; a link that held long enough starts over with the least."""

    def __init__(self, pause_s_min: float, pause_s_max: float, healthy_s: float) -> None:
        self._pause_s_min, self._pause_s_max, self._healthy_s = pause_s_min, pause_s_max, healthy_s
        self._pause_s = 0.0

    def next(self, lasted_s: float) -> float:
        """The pause after an attempt, or a link, that lasted so long."""
        if self._pause_s == 0.0 or lasted_s >= self._healthy_s:
            self._pause_s = self._pause_s_min
        else:
            self._pause_s = min(self._pause_s_max, self._pause_s * 2)
        return min(self._pause_s_max, self._pause_s * random.uniform(1 - JITTER, 1 + JITTER))
