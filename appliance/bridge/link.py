"""The link's story: up or down since when, how long to pause, and what the log says of it."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from appliance.bridge.uplink import UplinkError

log = logging.getLogger(__name__)

PAUSE_S_MIN: Final = 1.0
PAUSE_S_MAX: Final = 60.0
LOG_EVERY_S: Final = 60.0
"""A link that comes and goes is told at most this often."""


class LinkState(StrEnum):
    """What the last try to send an envelope showed. Connections say nothing: only acknowledgements count."""

    UNTRIED = "untried"
    UP = "up"
    DOWN = "down"


@dataclass(slots=True)
class Backoff:
    """Pauses that double from try to try up to a cap, each shortened at random by up to half."""

    rng: random.Random
    pause_s_min: float = PAUSE_S_MIN
    pause_s_max: float = PAUSE_S_MAX
    failures: int = 0

    def pause_s(self, least_s: float) -> float:
        """The pause after one more failure, never below what the far side wants."""
        full_s = min(self.pause_s_max, self.pause_s_min * 2.0 ** min(self.failures, 16))
        self.failures += 1
        return max(least_s, full_s * self.rng.uniform(0.5, 1.0))

    def reset(self) -> None:
        self.failures = 0


class Link:
    """Keeps the state of the link and tells its changes. Lengths are measured by the clock that only rises."""

    def __init__(self, name: str, now_us: Callable[[], int], now_s: Callable[[], float]) -> None:
        self._name, self._now_us, self._now_s = name, now_us, now_s
        self._told_s: float | None = None
        self._told_down = False
        self._untold = 0
        self._is_held = False
        self._since_s = now_s()
        self.state = LinkState.UNTRIED
        self.last_error = ""

    @property
    def since_us(self) -> int:
        """Since when it is in this state, as the wall clock stands now: after it was set, by the new time."""
        return self._now_us() - round((self._now_s() - self._since_s) * 1_000_000)

    def lost(self, error: UplinkError, pause_s: float) -> None:
        """A try has failed, and the next one follows after the pause."""
        if self._is_held:
            return
        self.last_error = f"{error}; {error.hint}"
        if self.state is LinkState.DOWN:
            log.debug("bridge: still no link (%s), next try in %.1f s", error, pause_s)
            return
        self._enter(LinkState.DOWN)
        if self._told_s is not None and self._since_s - self._told_s < LOG_EVERY_S:
            self._untold += 1
            return
        self._told_s, self._told_down = self._since_s, True
        again = f" ({self._untold} short breaks before)" if self._untold else ""
        self._untold = 0
        log.warning("bridge: link lost to %s: %s; next try in %.1f s%s", self._name, self.last_error, pause_s, again)

    def acknowledged(self, waiting: int) -> None:
        """An envelope was acknowledged, and this many readings still wait."""
        if self.state is LinkState.UP or self._is_held:
            return
        was, down_s = self.state, self._enter(LinkState.UP)
        if was is LinkState.UNTRIED:
            log.info("bridge: link to %s is up, %d readings to send", self._name, waiting)
        elif self._told_down:
            self._told_down = False
            log.info("bridge: link back after %.0f s, %d readings to send", down_s, waiting)

    def hold(self, reason: str) -> None:
        """The link is cut on purpose: it is down, and stays so until `release` and the acknowledgement after it."""
        self.last_error = f"held: {reason}"
        if self._is_held:
            return
        self._is_held = self._told_down = True
        if self.state is not LinkState.DOWN:
            self._enter(LinkState.DOWN)
        log.warning("bridge: link to %s is held: %s", self._name, reason)

    def release(self) -> None:
        self._is_held = False
        log.info("bridge: link to %s is released", self._name)

    def _enter(self, state: LinkState) -> float:
        """Gives how many seconds the state before has lasted."""
        before_s, self._since_s = self._since_s, self._now_s()
        self.state = state
        return self._since_s - before_s
