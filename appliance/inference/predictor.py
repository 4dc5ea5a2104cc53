"""The Predictor: follows the readings, and says of each machine and minute of plant time how long it will run."""

import json
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from appliance.buffer.buffer import Buffer
from appliance.buffer.cursor import Cursor
from appliance.contract.features import Rows, features, is_ready
from appliance.contract.prediction import Prediction
from appliance.contract.reading import Stream
from appliance.inference.minutes import FeatureStream, Window
from appliance.inference.model import Model, Score
from appliance.inference.signs import explain
from appliance.supervisor import now_us as wall_clock

log = logging.getLogger(__name__)

BATCH_ENTRIES = 2_000
EXPLAINED_FROM = 0.5
"""Signs are looked for from this share of the threshold on; below, nothing stands out."""


class EquipmentLike(Protocol):
    """A machine as the configuration names it."""

    @property
    def path(self) -> str:
        """The six levels of its topic."""
        ...

    @property
    def type(self) -> str:
        """Chooses what is normal for it."""
        ...


class Predictor:
    """Appends one Prediction for each equipment and minute in which it ran and enough was known.

    A machine that stands still gets none, nor one of a type that the model does not know. Predictions and the
    cursor's step are one transaction: a restart neither repeats nor skips a minute. The window is not kept on
    disk; it is read again from the log, starting at the number in the cursor's state.
    """

    def __init__(
        self,
        buffer: Buffer,
        cursor: Cursor,
        model: Model,
        equipment: Sequence[EquipmentLike],
        now_us: Callable[[], int] = wall_clock,
    ) -> None:
        self._buffer, self._cursor, self._model, self._now_us = buffer, cursor, model, now_us
        self._types = {each.path: each.type for each in equipment if each.type in model.types}
        self._stream = FeatureStream(tuple(self._types))
        self.predictions = 0
        unknown = sorted({each.type for each in equipment} - set(model.types))
        if unknown:
            log.warning(
                "predictor: model %s does not know %s; no predictions for these", model.name, ", ".join(unknown)
            )

    async def run(self) -> None:
        """Follow the readings until cancelled."""
        await self._refill()
        while True:
            batch = await self._cursor.batch(BATCH_ENTRIES)
            windows = [
                window
                for seq, reading in enumerate(batch.entries, batch.first)
                for window in self._stream.push(reading, seq)
            ]
            predictions = self.predict(windows)
            arrival_us = self._now_us()
            resume, stopped = self._stream.resume(batch.last)
            state = json.dumps({"resume": resume, "stopped": stopped}, separators=(",", ":"))
            move = self._cursor.moved(batch.last, state)
            await self._buffer.append([each.entry(arrival_us) for each in predictions], Stream.EVENTS, [move])
            self.predictions += len(predictions)

    def predict(self, windows: Sequence[Window]) -> list[Prediction]:
        """The predictions for those windows that hold enough."""
        if not windows:
            return []
        minutes = np.stack([window.minutes for window in windows])
        ready = is_ready(minutes)
        if not ready.any():
            return []
        rows = features(minutes[ready])
        known = [window for window, is_known in zip(windows, ready, strict=True) if is_known]
        scores = self._model.score(rows)
        return [self._prediction(window, row, score) for window, row, score in zip(known, rows, scores, strict=True)]

    def status(self) -> dict[str, object]:
        """What the health page shows."""
        return {
            "model": self._model.name,
            "predictions": self.predictions,
            "late_readings": self._stream.late,
            "behind": self._cursor.behind,
        }

    def _prediction(self, window: Window, row: Rows, score: Score) -> Prediction:
        model, type = self._model, self._model.types[self._types[window.equipment]]
        is_notable = score.probability >= EXPLAINED_FROM * model.threshold
        mode, signs = explain(row, type, model.units, model.within_horizon) if is_notable else ("", ())
        return Prediction(
            equipment=window.equipment,
            at_us=window.at_us,
            probability=score.probability,
            horizon_s=model.horizon_s,
            life_low_s=score.life_low_s,
            life_high_s=score.life_high_s,
            health=score.health,
            model=model.name,
            mode=mode,
            signs=signs,
        )

    async def _refill(self) -> None:
        """Read the window again after a start: what it completes has been predicted before."""
        state = json.loads(self._cursor.state or "{}")
        self._stream = FeatureStream(tuple(self._types), state.get("stopped", ()))
        seq = int(state.get("resume", self._cursor.seq + 1)) - 1
        while seq < self._cursor.seq:
            batch = await self._buffer.read(Stream.READINGS, seq, min(BATCH_ENTRIES, self._cursor.seq - seq))
            if not batch.entries:
                break
            for number, reading in enumerate(batch.entries, batch.first):
                if number <= self._cursor.seq:  # Behind a gap a batch begins later than asked.
                    self._stream.push(reading, number)
            seq = batch.last
