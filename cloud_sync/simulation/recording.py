"""The plant as it runs: machines, plant time, and the samples that no client has acknowledged yet."""

import json
import os
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple, Self

from cloud_sync.simulation.physics import Machine
from cloud_sync.simulation.plant import machines

SETS_MAX = 60
"""So many sample sets may wait for their acknowledgement; then plant time stands still."""
_FORMAT = 1


class SampleSet(NamedTuple):
    """The values of every tag at one moment of plant time."""

    at_us: int
    values: dict[str, float | bool]


class Recording:
    """Steps all machines, and continues exactly where an earlier run stopped.

    `step` saves before anybody sees the values, so that no moment of plant time is ever said twice with
    different values. Sample sets stay in the file until `release`, and can be said again after `rewind`.
    """

    def __init__(
        self, path: Path, seed: int, fleet: dict[str, Machine], sets: deque[SampleSet], released_us: int
    ) -> None:
        self._path, self._seed, self._machines = path, seed, fleet
        self._sets = sets
        self._released_us = released_us
        self._said = 0
        """How many of the sets are said; those after it wait to be said again."""

    @classmethod
    def open(cls, path: Path, seed: int, start_us: int) -> Self:
        """The recording in this file, or a new one; another seed than the file's is a ValueError."""
        if path.exists():
            return cls._restored(path, seed)
        fleet = machines(seed, start_us / 1e6)
        recording = cls(path, seed, fleet, deque(), start_us - 1)
        recording._sets.append(SampleSet(start_us, recording._stepped(0.0)))
        recording.save()
        return recording

    @classmethod
    def _restored(cls, path: Path, seed: int) -> Self:
        try:
            state: dict[str, Any] = json.loads(path.read_text("utf-8"))
            if state["format"] != _FORMAT or not state["sets"]:
                raise ValueError(f"format {state['format']}")
            fleet = {equipment: Machine.from_state(each) for equipment, each in state["machines"].items()}
            sets = deque(SampleSet(at_us, values) for at_us, values in state["sets"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is not the state of a simulated plant ({error}); delete it to start anew"
            ) from error
        if state["seed"] != seed:
            raise ValueError(f"{path} was made with seed {state['seed']}, not {seed}; delete it to start anew")
        return cls(path, seed, fleet, sets, state["released_us"])

    @property
    def now_us(self) -> int:
        """Plant time: that of the newest sample set."""
        return self._sets[-1].at_us

    @property
    def is_full(self) -> bool:
        """Whether nobody takes what was said: no step until then."""
        return len(self._sets) >= SETS_MAX

    def step(self, period_s: int, count: int) -> None:
        """Let plant time pass by `count` periods, as far as there is room, and save."""
        stepped = False
        while count > 0 and not self.is_full:
            count, stepped = count - 1, True
            at_us = self.now_us + period_s * 1_000_000
            self._sets.append(SampleSet(at_us, self._stepped(float(period_s))))
        if stepped:
            self.save()

    def unsaid(self) -> list[SampleSet]:
        """The sets that wait to be said, oldest first; they count as said now."""
        unsaid = list(self._sets)[self._said :]
        self._said = len(self._sets)
        return unsaid

    def rewind(self) -> SampleSet:
        """Start again from the oldest set that nobody acknowledged (or the newest one): that set, said now."""
        self._drop_released()
        self._said = 1
        return self._sets[0]

    def release(self, until_us: int) -> None:
        """Everything up to this plant time is acknowledged."""
        self._released_us = max(self._released_us, until_us)
        self._drop_released()

    def save(self) -> None:
        """Write the whole state, atomically."""
        state = {
            "format": _FORMAT,
            "seed": self._seed,
            "released_us": self._released_us,
            "machines": {path: machine.state() for path, machine in self._machines.items()},
            "sets": list(self._sets),
        }
        beside = self._path.with_suffix(".tmp")
        beside.write_text(json.dumps(state, separators=(",", ":")), "utf-8")
        os.replace(beside, self._path)

    def _stepped(self, period_s: float) -> dict[str, float | bool]:
        return {
            f"{path}/{tag}": value
            for path, machine in self._machines.items()
            for tag, value in machine.step(period_s).items()
        }

    def _drop_released(self) -> None:
        while len(self._sets) > 1 and self._sets[0].at_us <= self._released_us:
            self._sets.popleft()
            self._said = max(0, self._said - 1)
