"""When a tag's limit becomes an alarm: a pure state machine for each bound."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from appliance.contract.prediction import Alarm, AlarmState
from appliance.contract.reading import Quality, Reading

CONSECUTIVE = 3
"""So many good readings in a row beyond the bound raise the alarm, and as many back inside clear it."""
DEADBAND = 0.02
"""Back inside means by this share of the bound."""
RUNNING = "running"
KEY = "limit/"


class LimitLike(Protocol):
    """A bound of one tag, as the configuration gives it: `high`, `low` or both."""

    @property
    def tag(self) -> str: ...
    @property
    def high(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def priority(self) -> int: ...
    @property
    def message(self) -> str: ...


@dataclass(slots=True)
class _Watch:
    """One bound of one tag: whether its alarm stands, and how many readings in a row speak for a change."""

    equipment: str
    key: str
    bound: float
    is_high: bool
    priority: int
    message: str
    raised_at_us: int = 0
    in_a_row: int = 0
    newest_us: int = 0

    def see(self, value: float, at_us: int) -> Alarm | None:
        """The alarm's change that this value brings about, if any; a value older than the newest says nothing."""
        if at_us <= self.newest_us:
            return None
        self.newest_us = at_us
        self.in_a_row = self.in_a_row + 1 if self._speaks_for_change(value) else 0
        if self.in_a_row < CONSECUTIVE:
            return None
        return self.cleared(value, at_us) if self.raised_at_us else self._raised(value, at_us)

    def _speaks_for_change(self, value: float) -> bool:
        if not self.raised_at_us:
            return value > self.bound if self.is_high else value < self.bound
        band = DEADBAND * abs(self.bound)
        return value <= self.bound - band if self.is_high else value >= self.bound + band

    def _raised(self, value: float, at_us: int) -> Alarm:
        self.raised_at_us, self.in_a_row = at_us, 0
        return self._alarm(AlarmState.RAISED, value, at_us, at_us)

    def cleared(self, value: float, at_us: int) -> Alarm:
        """End the standing alarm."""
        raised_at_us, self.raised_at_us, self.in_a_row = self.raised_at_us, 0, 0
        return self._alarm(AlarmState.CLEARED, value, at_us, raised_at_us)

    def _alarm(self, state: AlarmState, value: float, at_us: int, raised_at_us: int) -> Alarm:
        return Alarm(
            self.equipment, self.key, state, self.priority, self.message, value, self.bound, at_us, raised_at_us
        )


class Limits:
    """All bounds of the plant. Low bounds are not watched while their machine says that it stands still."""

    def __init__(self, limits: Iterable[tuple[str, Sequence[LimitLike]]], state: Mapping[str, Any]) -> None:
        self._by_topic: dict[str, list[_Watch]] = {}
        self._by_running: dict[str, list[_Watch]] = {}
        self._stopped: set[str] = set(state.get("stopped", ()))
        for equipment, of_equipment in limits:
            for tag, watch in _watches(equipment, of_equipment):
                self._by_topic.setdefault(f"{equipment}/{tag}", []).append(watch)
                self._by_running.setdefault(f"{equipment}/{RUNNING}", []).append(watch)
        self._watches = {(w.equipment, w.key): w for all_ in self._by_topic.values() for w in all_}
        self.forgotten: list[tuple[str, str, int]] = []
        """Alarms that stood at the last stop and whose limits are gone from the configuration."""
        for equipment, key, raised_at_us, in_a_row in state.get("watches", ()):
            known = self._watches.get((equipment, key))
            if known is not None:
                known.raised_at_us, known.in_a_row = raised_at_us, in_a_row
            elif raised_at_us:
                self.forgotten.append((equipment, key, raised_at_us))

    def see(self, reading: Reading) -> list[Alarm]:
        """The changes that this reading brings about."""
        if reading.topic in self._by_running and isinstance(reading.value, bool):
            return self._see_running(reading, self._by_running[reading.topic])
        watches = self._by_topic.get(reading.topic)
        value = reading.value
        if watches is None or reading.quality < Quality.GOOD or isinstance(value, bool | str | None):
            return []
        if not math.isfinite(value):
            return []
        alarms = [
            watch.see(float(value), reading.source_us)
            for watch in watches
            if watch.is_high or watch.equipment not in self._stopped
        ]
        return [alarm for alarm in alarms if alarm is not None]

    def _see_running(self, reading: Reading, watches: list[_Watch]) -> list[Alarm]:
        equipment = watches[0].equipment
        if reading.value:
            self._stopped.discard(equipment)
            return []
        self._stopped.add(equipment)
        lows = [watch for watch in watches if not watch.is_high]
        for watch in lows:
            watch.in_a_row = 0
        return [watch.cleared(watch.bound, reading.source_us) for watch in lows if watch.raised_at_us]

    def state(self) -> dict[str, Any]:
        """What must survive a restart, ready for JSON."""
        kept = [w for w in self._watches.values() if w.raised_at_us or w.in_a_row]
        return {
            "watches": [[w.equipment, w.key, w.raised_at_us, w.in_a_row] for w in kept],
            "stopped": sorted(self._stopped),
        }


def _watches(equipment: str, limits: Sequence[LimitLike]) -> list[tuple[str, _Watch]]:
    bounds = [
        (limit, bound, is_high)
        for limit in limits
        for bound, is_high in ((limit.high, True), (limit.low, False))
        if bound is not None
    ]
    tags = [limit.tag for limit, _, _ in bounds]
    watches = []
    for limit, bound, is_high in bounds:
        side = f"/{'high' if is_high else 'low'}-{bound:g}" if tags.count(limit.tag) > 1 else ""
        key = f"{KEY}{limit.tag}{side}"
        watches.append((limit.tag, _Watch(equipment, key, bound, is_high, limit.priority, limit.message)))
    return watches
