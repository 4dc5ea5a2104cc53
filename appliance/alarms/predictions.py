"""When a Prediction becomes an alarm: a pure state machine for each equipment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.contract.prediction import Alarm, AlarmState, Prediction

CONSECUTIVE = 2
"""So many predictions in a row at the threshold or above raise the alarm."""
QUIET, QUIET_CONSECUTIVE = 0.8, 30
"""So many predictions in a row below this share of the threshold clear it; with fewer it would come and go while a
machine is close to the threshold."""
KEY = "prediction"
EQUIPMENT_MAX = 10_000
_HOUR_S, _DAY_S = 3600, 86_400
_SHIFT_S = 8 * _HOUR_S


@dataclass(slots=True)
class _Watch:
    above: int = 0
    quiet: int = 0
    raised_at_us: int = 0
    priority: int = 0
    message: str = ""


class Predictions:
    """The prediction alarms of the plant. While a machine is silent its alarm stays as it is."""

    def __init__(self, threshold: float, state: Mapping[str, Any]) -> None:
        self.threshold = threshold
        self._watches = {equipment: _Watch(*kept) for equipment, kept in state.items()}

    def see(self, prediction: Prediction) -> Alarm | None:
        """The change that this prediction brings about, if any."""
        watch = self._watches.get(prediction.equipment)
        if watch is None:
            if len(self._watches) >= EQUIPMENT_MAX:
                return None
            watch = self._watches[prediction.equipment] = _Watch()
        probability = prediction.probability
        watch.above = watch.above + 1 if probability >= self.threshold else 0
        watch.quiet = watch.quiet + 1 if probability < QUIET * self.threshold else 0
        if not watch.raised_at_us and watch.above >= CONSECUTIVE:
            watch.raised_at_us = prediction.at_us
            watch.priority, watch.message = priority_of(prediction), message_of(prediction)
            return self._alarm(prediction, watch, AlarmState.RAISED, watch.raised_at_us)
        if watch.raised_at_us and watch.quiet >= QUIET_CONSECUTIVE:
            raised_at_us, watch.raised_at_us = watch.raised_at_us, 0
            return self._alarm(prediction, watch, AlarmState.CLEARED, raised_at_us)
        return None

    def _alarm(self, prediction: Prediction, watch: _Watch, state: AlarmState, raised_at_us: int) -> Alarm:
        return Alarm(
            equipment=prediction.equipment,
            key=KEY,
            state=state,
            priority=watch.priority,
            message=watch.message,
            value=prediction.probability,
            limit=self.threshold,
            at_us=prediction.at_us,
            raised_at_us=raised_at_us,
        )

    def state(self) -> dict[str, Any]:
        """What must survive a restart, ready for JSON."""
        return {
            equipment: [w.above, w.quiet, w.raised_at_us, w.priority, w.message]
            if w.raised_at_us
            else [w.above, 0, 0, 0, ""]
            for equipment, w in self._watches.items()
            if w.raised_at_us or w.above
        }


def priority_of(prediction: Prediction) -> int:
    """1 when the machine may not see the end of a shift, else 2."""
    return 1 if prediction.life_low_s < _SHIFT_S else 2


def message_of(prediction: Prediction) -> str:
    """What to tell an operator: what is about to fail, and how soon."""
    mode = prediction.mode[:1].upper() + prediction.mode[1:] or "Wear"
    return f"{mode}: likely failure {span(prediction.life_low_s, prediction.life_high_s)}"


def span(low_s: int, high_s: int | None) -> str:
    """A range of time in words: hours up to two days, then days."""
    if high_s is None:
        return f"not before {_words(low_s)}"
    low, high = _words(low_s), _words(high_s, up=True)
    if low_s < _HOUR_S:
        return f"within {high}"
    same_unit = low.split()[1] == high.split()[1]
    return f"in {low.split()[0] if same_unit else low} – {high}"


def _words(life_s: int, up: bool = False) -> str:
    unit_s, unit = (_HOUR_S, "h") if life_s <= 2 * _DAY_S else (_DAY_S, "days")
    return f"{max(1, -(-life_s // unit_s)) if up else life_s // unit_s} {unit}"
