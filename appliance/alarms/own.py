"""What the appliance says of its own log: a pure state machine over gaps, alarms and whether producers wait."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from appliance.buffer.damage import DAMAGED
from appliance.contract.gap import GAP_ORIGIN, Gap, GapReason, own_equipment
from appliance.contract.prediction import ALARM_ORIGIN, Alarm, AlarmState
from appliance.contract.reading import Reading, Stream

FULL: Final = "buffer/full"
UNSENT: Final = "buffer/dropped-unsent"
DAY_US: Final = 24 * 3_600_000_000
DAMAGED_US: Final = DAY_US
"""Nobody can mend what is lost, so an alarm of damage stands for a day and a shift of each crew has seen it."""
UNSENT_US: Final = 3_600_000_000
"""An hour without another loss clears the alarm."""
FULL_AFTER_S: Final = 5.0
FREE_AFTER_S: Final = 60.0
"""Producers wait so long before the alarm is raised, and go on so long before it is cleared."""
_DROPS: Final = (GapReason.SIZE, GapReason.AGE, GapReason.DISK)
_FULL_TEXT: Final = (
    "The log has no room for readings whose policy is to reject: machines wait, and what they do not keep is lost. "
    "Bring the cloud link back, or give the log more room ([buffer] size_max)"
)


@dataclass(slots=True)
class _Standing:
    """An alarm that stands, and since when nothing has spoken for it."""

    raised_at_us: int
    newest_us: int
    message: str
    value: float
    priority: int = 1


class OwnAlarms:
    """The alarms of the log itself. Times of the wall clock are microseconds, those of the steady one seconds."""

    def __init__(self, root: str, plant: str, state: Mapping[str, Any]) -> None:
        self._equipment = own_equipment(root, plant)
        self._standing = {key: _Standing(**kept) for key, kept in state.items()}
        self._changed_s: float | None = None
        """Since when `is_full` has been other than what the alarm says."""

    def see(self, entry: Reading, now_us: int) -> Alarm | None:
        """The change that an entry of the stream `events` brings about, if any."""
        if entry.origin == ALARM_ORIGIN and entry.topic.startswith(f"{self._equipment}/"):
            alarm = Alarm.from_entry(entry)
            if alarm.key == DAMAGED and alarm.state is AlarmState.RAISED:
                self._standing[DAMAGED] = _Standing(alarm.raised_at_us, alarm.at_us, alarm.message, alarm.value)
        if entry.origin != GAP_ORIGIN:
            return None
        gap = Gap.from_entry(entry)
        is_loss = gap.unread > 0 and gap.stream is Stream.READINGS and gap.reason in _DROPS
        return self._unsent(gap, entry.arrival_us) if is_loss and now_us - entry.arrival_us < UNSENT_US else None

    def tick(self, now_us: int, now_s: float, is_full: bool) -> list[Alarm]:
        """The changes that time brings about."""
        ended = [
            self._cleared(key, now_us)
            for key, after_us in ((DAMAGED, DAMAGED_US), (UNSENT, UNSENT_US))
            if (its := self._standing.get(key)) and now_us - its.newest_us >= after_us
        ]
        if is_full == (FULL in self._standing):
            self._changed_s = None
            return ended
        self._changed_s = now_s if self._changed_s is None else self._changed_s
        if now_s - self._changed_s < (FULL_AFTER_S if is_full else FREE_AFTER_S):
            return ended
        self._changed_s = None
        return [*ended, self._raised(FULL, now_us, _FULL_TEXT, 0.0) if is_full else self._cleared(FULL, now_us)]

    def state(self) -> dict[str, Any]:
        """What must survive a restart, ready for JSON."""
        return {key: asdict(its) for key, its in self._standing.items()}

    def _unsent(self, gap: Gap, at_us: int) -> Alarm | None:
        its = self._standing.get(UNSENT)
        total = gap.unread + int(its.value if its else 0)
        text = f"{total:,} readings left the log before everyone had taken them ({gap.reason}); the gaps name them"
        if its is None:
            return self._raised(UNSENT, at_us, text, float(total))
        its.newest_us, its.value, its.message = at_us, float(total), text
        return None

    def _raised(self, key: str, at_us: int, message: str, value: float) -> Alarm:
        self._standing[key] = _Standing(at_us, at_us, message, value)
        return self._alarm(key, AlarmState.RAISED, at_us)

    def _cleared(self, key: str, at_us: int) -> Alarm:
        alarm = self._alarm(key, AlarmState.CLEARED, at_us)
        del self._standing[key]
        return alarm

    def _alarm(self, key: str, state: AlarmState, at_us: int) -> Alarm:
        its = self._standing[key]
        return Alarm(self._equipment, key, state, its.priority, its.message, its.value, 0.0, at_us, its.raised_at_us)
