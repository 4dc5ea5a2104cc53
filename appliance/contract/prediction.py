"""Events of the log: Prediction and Alarm, each an entry whose value is its JSON and whose origin is its kind."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from appliance.contract.reading import Quality, Reading

PREDICTION_TAG = "_prediction"
ALARM_TAG = "_alarm"
PREDICTION_ORIGIN = "prediction"
ALARM_ORIGIN = "alarm"


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that speaks for a prediction: a feature, its value, and where it normally lies."""

    feature: str
    tag: str
    value: float
    unit: str
    normal_low: float
    normal_high: float
    share: float
    """How far the probability falls when this feature alone is normal, 0 to 1; negative speaks against."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a Model says of one equipment at the end of one minute of plant time."""

    equipment: str
    """The six levels that name the equipment."""
    at_us: int
    probability: float
    """That the equipment fails within `horizon_s`, 0 to 1."""
    horizon_s: int
    life_low_s: int
    """80 % interval of the remaining life, low end."""
    life_high_s: int | None
    """High end; None when it lies beyond what the model can see."""
    health: int
    """0 (failing) to 100 (as new)."""
    model: str
    mode: str
    """What most likely fails, such as `bearing wear`; empty when nothing stands out."""
    signs: tuple[Sign, ...]

    def entry(self, arrival_us: int) -> Reading:
        """The prediction as an entry of the stream `events`."""
        return _entry(self.equipment, PREDICTION_TAG, asdict(self), self.at_us, arrival_us, PREDICTION_ORIGIN)

    @classmethod
    def from_entry(cls, entry: Reading) -> Self:
        body = json.loads(str(entry.value))
        return cls(**{**body, "signs": tuple(Sign(**sign) for sign in body["signs"])})


class AlarmState(StrEnum):
    """The states of ISA-18.2 that an alarm enters by itself; a person's acts come on top."""

    RAISED = "raised"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A prediction or limit that wants a person; `(equipment, key)` names it while it stands."""

    equipment: str
    key: str
    """`prediction`, or `limit/` and the tag."""
    state: AlarmState
    priority: int
    """1 critical, 2 high, 3 medium (ISA-18.2)."""
    message: str
    value: float
    limit: float
    at_us: int
    raised_at_us: int

    def entry(self, arrival_us: int) -> Reading:
        """The alarm as an entry of the stream `events`."""
        return _entry(self.equipment, ALARM_TAG, asdict(self), self.at_us, arrival_us, ALARM_ORIGIN)

    @classmethod
    def from_entry(cls, entry: Reading) -> Self:
        body = json.loads(str(entry.value))
        return cls(**{**body, "state": AlarmState(body["state"])})


def _entry(equipment: str, tag: str, body: dict[str, Any], at_us: int, arrival_us: int, origin: str) -> Reading:
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return Reading(f"{equipment}/{tag}", text, Quality.GOOD, at_us, at_us, arrival_us, origin)
