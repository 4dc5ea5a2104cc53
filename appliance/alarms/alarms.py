"""The Alarms: follow readings and predictions, and append an Alarm whenever one is raised or cleared."""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

from appliance.alarms.limits import LimitLike, Limits
from appliance.alarms.predictions import Predictions
from appliance.buffer.buffer import Buffer
from appliance.buffer.cursor import Cursor
from appliance.contract.prediction import PREDICTION_ORIGIN, Alarm, AlarmState, Prediction
from appliance.contract.reading import Stream
from appliance.supervisor import now_us as wall_clock

log = logging.getLogger(__name__)

BATCH_ENTRIES = 2_000
NAME = "alarms"
_NO_LONGER_WATCHED = "No longer watched: the limit was taken out of the configuration"


class EquipmentLike(Protocol):
    """A machine as the configuration names it, with its limits."""

    @property
    def path(self) -> str: ...
    @property
    def limit(self) -> Sequence[LimitLike]: ...


class Alarms:
    """Two followers side by side: limits on the readings, the threshold on the predictions.

    Each alarm is one transaction with its cursor's step and state, so a restart neither repeats nor loses one.
    """

    def __init__(
        self,
        buffer: Buffer,
        readings: Cursor,
        events: Cursor,
        equipment: Sequence[EquipmentLike],
        threshold: float,
        now_us: Callable[[], int] = wall_clock,
    ) -> None:
        self._buffer, self._readings, self._events = buffer, readings, events
        self._limits = [(each.path, each.limit) for each in equipment]
        self._threshold, self._now_us = threshold, now_us
        self.raised = 0

    @classmethod
    async def following(
        cls,
        buffer: Buffer,
        equipment: Sequence[EquipmentLike],
        threshold: float,
        now_us: Callable[[], int] = wall_clock,
    ) -> Self:
        """The alarms of a plant, going on where they stood."""
        readings = await buffer.cursor(NAME, Stream.READINGS)
        events = await buffer.cursor(NAME, Stream.EVENTS)
        return cls(buffer, readings, events, equipment, threshold, now_us)

    async def run(self) -> None:
        """Follow both streams until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_readings(), name="alarms: limits")
            group.create_task(self._follow_predictions(), name="alarms: predictions")

    def status(self) -> dict[str, object]:
        """What the health page shows."""
        return {"raised": self.raised, "behind": self._readings.behind + self._events.behind}

    async def _follow_readings(self) -> None:
        limits = Limits(self._limits, _state_of(self._readings))
        forgotten = [
            Alarm(equipment, key, AlarmState.CLEARED, 3, _NO_LONGER_WATCHED, 0.0, 0.0, self._now_us(), raised_at_us)
            for equipment, key, raised_at_us in limits.forgotten
        ]
        if forgotten:
            await self._append(forgotten, self._readings, self._readings.seq, limits.state())
        while True:
            batch = await self._readings.batch(BATCH_ENTRIES)
            alarms = [alarm for reading in batch.entries for alarm in limits.see(reading)]
            await self._append(alarms, self._readings, batch.last, limits.state())

    async def _follow_predictions(self) -> None:
        predictions = Predictions(self._threshold, _state_of(self._events))
        while True:
            batch = await self._events.batch(BATCH_ENTRIES)
            seen = [
                predictions.see(Prediction.from_entry(entry))
                for entry in batch.entries
                if entry.origin == PREDICTION_ORIGIN
            ]
            alarms = [alarm for alarm in seen if alarm is not None]
            await self._append(alarms, self._events, batch.last, predictions.state())

    async def _append(self, alarms: list[Alarm], cursor: Cursor, seq: int, state: dict[str, Any]) -> None:
        for alarm in alarms:
            self.raised += alarm.state is AlarmState.RAISED
            log.info("alarms: %s %s: %s", alarm.equipment, alarm.state, alarm.message)
        arrival_us = self._now_us()
        move = cursor.moved(seq, json.dumps(state, separators=(",", ":"), ensure_ascii=False))
        await self._buffer.append([alarm.entry(arrival_us) for alarm in alarms], Stream.EVENTS, [move])


def _state_of(cursor: Cursor) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(cursor.state or "{}")
    return state
