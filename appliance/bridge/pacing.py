"""The Bridge's pace: which lane is next, how much the far side may be given, and how long it will take."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from appliance.bridge.link import PAUSE_S_MAX, PAUSE_S_MIN
from appliance.contract.envelope import BODY_BYTES_MAX, Lane
from appliance.supervisor import now_us as wall_clock_us

FLUSH_S: Final = 1.0
"""The age limit of an envelope that is not full, and how often the Bridge looks when it has sent everything."""
IN_FLIGHT: Final = 4
STALL_S: Final = 150.0
"""No acknowledgement for this long while something is under way: the link is built anew."""
BACKLOG_SHARE: Final = 0.5
UNIT_BYTES_PER_S: Final = 1_000_000
UNIT_EVENTS_PER_S: Final = 1_000
EVENT_OVERHEAD_BYTES: Final = 512
"""What an event's properties and framing add to its body."""
SAVED_UP_S: Final = 0.5
"""How much unused throughput may leave at once later; the far side saves up a second's worth, so it never runs dry."""
WAIT_S_MIN: Final = 0.0005
"""A shorter wait is not worth it; what is owed for it stays owed."""
FORECAST_S: Final = 60.0
"""How far back the forecast looks."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look at the log, how much at once, and how to pause after failures."""

    flush_s: float = FLUSH_S
    pause_s_min: float = PAUSE_S_MIN
    pause_s_max: float = PAUSE_S_MAX
    stall_s: float = STALL_S
    in_flight: int = IN_FLIGHT
    backlog_share: float = BACKLOG_SHARE
    throughput_units: float = 0.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the Bridge takes its time from: the wall, a clock that only rises, and a way to let time pass."""

    now_us: Callable[[], int] = wall_clock_us
    now_s: Callable[[], float] = monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Shares:
    """The order of the lanes: events first, then live; but a backlog that waits gets its share of the bytes."""

    def __init__(self, backlog_share: float) -> None:
        self._share = backlog_share
        self._owed_bytes = 0.0

    def order(self) -> tuple[Lane, ...]:
        if self._owed_bytes > 0:
            return Lane.EVENTS, Lane.BACKLOG, Lane.LIVE
        return Lane.EVENTS, Lane.LIVE, Lane.BACKLOG

    def sent(self, lane: Lane, size_bytes: int, *, is_contended: bool) -> None:
        """Count an envelope; only what was sent while both lanes waited is anybody's debt."""
        if not is_contended or lane is Lane.EVENTS:
            return
        owed = self._share if lane is Lane.LIVE else self._share - 1.0
        debt = self._owed_bytes + owed * size_bytes
        self._owed_bytes = min(max(debt, -BODY_BYTES_MAX), BODY_BYTES_MAX)


class Throughput:
    """The token bucket of the throughput units that were bought: bytes and events each second; 0 units: no limit.

    An envelope may leave as long as nothing is owed, and is then taken off.
    """

    def __init__(self, units: float, now_s: float) -> None:
        self._units, self._at_s = units, now_s
        self._bytes = units * UNIT_BYTES_PER_S * SAVED_UP_S
        self._events = units * UNIT_EVENTS_PER_S * SAVED_UP_S

    def wait_s(self, now_s: float) -> float:
        """How long until the next envelope may leave."""
        if not self._units:
            return 0.0
        passed_s, self._at_s = max(0.0, now_s - self._at_s), now_s
        per_s = (self._units * UNIT_BYTES_PER_S, self._units * UNIT_EVENTS_PER_S)
        self._bytes = min(per_s[0] * SAVED_UP_S, self._bytes + passed_s * per_s[0])
        self._events = min(per_s[1] * SAVED_UP_S, self._events + passed_s * per_s[1])
        wait_s = max(-self._bytes / per_s[0], (1.0 - self._events) / per_s[1])
        return wait_s if wait_s >= WAIT_S_MIN else 0.0

    def take(self, body_bytes: int) -> None:
        """An envelope leaves."""
        if self._units:
            self._bytes -= body_bytes + EVENT_OVERHEAD_BYTES
            self._events -= 1


@dataclass(slots=True)
class Forecast:
    """When the backlog will be gone, from how it went in the last minute."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def saw(self, now_s: float, waiting: int) -> None:
        """This many entries wait now; at most one look a second is kept."""
        if not self._seen or now_s - self._seen[-1][0] >= 1.0:
            self._seen.append((now_s, waiting))
        while now_s - self._seen[0][0] > FORECAST_S:
            self._seen.popleft()

    def drain_s(self, now_s: float, waiting: int) -> float | None:
        """Seconds until nothing waits; None while it does not get less, or nothing is known yet."""
        if not waiting:
            return 0.0
        recent = [(at_s, before) for at_s, before in self._seen if now_s - at_s <= FORECAST_S]
        if not recent or now_s <= recent[0][0] or waiting >= recent[0][1]:
            return None
        return round(waiting * (now_s - recent[0][0]) / (recent[0][1] - waiting), 1)
