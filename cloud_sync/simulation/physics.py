"""Machines that wear out: pumps, compressors, motors, fans and presses, as equations with noise.

Each failure mode has a life measured in hours at mean load. Load uses it up faster or slower (the cube for
bearings, Arrhenius for insulation), and its severity grows as exp(-life left / tau): for weeks nothing is to be
seen, then everything within a few tau. What a machine says depends on time only through exact steps of first-order
processes, so a step of 1 s and sixty of them tell the same story as one of 60 s.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cloud_sync.simulation.kinds import KINDS, LOAD_MEAN, Array, Condition, Mode

REPAIR_S = 4 * 3600.0
_DAY_S = 86_400.0
_LOAD_SWING = 0.07
_LOAD_WANDER, _LOAD_WANDER_TAU_S = 0.02, 1200.0
_HEAT_TAU_S = 1200.0
_SLOW_TAU_S = 300.0
_RIPPLE_TAU_S = 180.0
_LIFE_SPREAD, _LIFE_MIN_H = 0.35, 96.0
TYPES = tuple(KINDS)
RUNNING = "running"


def tags_of(type: str) -> tuple[str, ...]:
    """What a machine of this type measures, without `running`."""
    return tuple(tag.name for tag in KINDS[type][1])


def modes_of(type: str) -> tuple[str, ...]:
    """The ways in which a machine of this type fails."""
    return tuple(mode.name for mode in KINDS[type][0])


def life_used_h(type: str, mode: str, start_s: float, hours: float) -> float:
    """How many hours at mean load the daily cycle uses up in these hours from `start_s` (seconds of UTC)."""
    power = next(each.load_power for each in KINDS[type][0] if each.name == mode)
    steps = np.arange(0.0, hours * 3600.0, 60.0)
    return float(np.sum((_daily_load(start_s + steps) / LOAD_MEAN) ** power)) / 60.0


def _daily_load(at_s: Array | float) -> Array:
    """The load of the plant by the time of day: highest in the early afternoon."""
    return np.asarray(LOAD_MEAN + _LOAD_SWING * np.sin(2 * np.pi * (np.asarray(at_s) / _DAY_S - 9 / 24)))


class Fleet:
    """Machines of one type side by side, each with its own small differences; the same seed tells the same story."""

    def __init__(self, type: str, seed: int, size: int, start_s: float = 0.0) -> None:
        self.type, self.size, self.at_s = type, size, start_s
        self.modes, self._tags, self._says = KINDS[type]
        self._rng = np.random.default_rng([seed, TYPES.index(type)])
        normal = self._rng.standard_normal
        self._scale = 1.0 + 0.025 * normal((len(self._tags), size))
        self._gain = 1.0 + 0.06 * normal((len(self.modes), size))
        self._tau_h = np.array([[mode.tau_h] for mode in self.modes]) * (1.0 + 0.06 * normal((len(self.modes), size)))
        self._power = np.array([[mode.load_power] for mode in self.modes])
        self.left_h = np.stack([self._new_life(mode, size) for mode in self.modes])
        self.repair_s = np.zeros(size)
        self._white = np.array([[tag.white] for tag in self._tags])
        self._unrest = np.array([[tag.slow] for tag in self._tags])
        self._wander = normal(size)
        self._slow = normal((len(self._tags), size))
        self._ripple = normal(size)
        self._heat = np.full(size, float(_daily_load(start_s)) ** 2)

    @property
    def running(self) -> NDArray[np.bool_]:
        return self.repair_s <= 0.0

    def step(self, dt_s: float, samples: int | Array = 1) -> Array:
        """The values (tags x machines) after `dt_s`; each is the mean of so many samples as far as white noise goes."""
        self.at_s += dt_s
        self._wander = self._follow(self._wander, dt_s, _LOAD_WANDER_TAU_S)
        self._slow = self._follow(self._slow, dt_s, _SLOW_TAU_S)
        self._ripple = self._follow(self._ripple, dt_s, _RIPPLE_TAU_S)
        load = _daily_load(self.at_s) + _LOAD_WANDER * self._wander
        self._age(load, dt_s)
        spin = self.running.astype(np.float64)
        load = load * spin
        self._heat += (load**2 - self._heat) * -np.expm1(-dt_s / _HEAT_TAU_S)
        ambient = np.full(self.size, 24.0 + 3.0 * np.sin(2 * np.pi * (self.at_s / _DAY_S - 10 / 24)))
        wear = tuple(self._gain * np.exp(-np.maximum(self.left_h, 0.0) / self._tau_h))
        values = np.stack(self._says(Condition(load, spin, self._heat, ambient, self._ripple, wear))) * self._scale
        noise = self._white / np.sqrt(samples) * self._rng.standard_normal(values.shape) + self._unrest * self._slow
        return np.asarray(np.maximum(values + noise * np.where(spin > 0, 1.0, 0.2), 0.0))

    def _follow(self, state: Array, dt_s: float, tau_s: float) -> Array:
        """One exact step of noise with unit variance and memory `tau_s`, whatever the step."""
        keep = np.exp(-dt_s / tau_s)
        return np.asarray(state * keep + np.sqrt(1.0 - keep**2) * self._rng.standard_normal(state.shape))

    def _age(self, load: Array, dt_s: float) -> None:
        was_stopped = ~self.running
        self.repair_s = np.maximum(self.repair_s - dt_s, 0.0)
        stress = (load / LOAD_MEAN) ** self._power
        self.left_h = self.left_h - np.where(was_stopped, 0.0, stress * dt_s / 3600.0)
        failing = (self.left_h.min(axis=0) <= 0.0) & ~was_stopped
        self.repair_s[failing] = REPAIR_S
        for machine in np.flatnonzero(was_stopped & self.running):
            self.left_h[:, machine] = [self._new_life(mode, 1)[0] for mode in self.modes]

    def _new_life(self, mode: Mode, size: int) -> Array:
        life = mode.life_h * np.exp(_LIFE_SPREAD * self._rng.standard_normal(size))
        return np.asarray(np.maximum(life, _LIFE_MIN_H))


class Machine:
    """One machine: says its values step by step, fails, is repaired for four hours, and starts a new life."""

    def __init__(
        self, type: str, seed: int, life_left_h: Mapping[str, float] | None = None, start_s: float = 0.0
    ) -> None:
        self.type, self.seed = type, seed
        self._fleet = Fleet(type, seed, 1, start_s)
        self._tags = tags_of(type)
        for position, mode in enumerate(modes_of(type)):
            if life_left_h and mode in life_left_h:
                self._fleet.left_h[position, 0] = life_left_h[mode]

    def step(self, dt_s: float) -> dict[str, float | bool]:
        """Let plant time pass and say every tag, `running` among them."""
        values = self._fleet.step(dt_s)[:, 0]
        said: dict[str, float | bool] = dict(zip(self._tags, map(float, values), strict=True))
        said[RUNNING] = not self.failed
        return said

    @property
    def at_s(self) -> float:
        """The plant time of the last step, in seconds of UTC if it was started so."""
        return self._fleet.at_s

    @property
    def failed(self) -> bool:
        """Whether it stands still for repair."""
        return not bool(self._fleet.running[0])

    @property
    def mode(self) -> str:
        """The failure mode that is to end this life (or has ended it); for labels and tests only."""
        return self._fleet.modes[int(np.argmin(self._fleet.left_h[:, 0]))].name

    @property
    def remaining_life_s(self) -> float:
        """How long it still runs at mean load; for labels and tests only."""
        return max(0.0, float(self._fleet.left_h[:, 0].min()) * 3600.0)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly here, ready for JSON."""
        fleet = self._fleet
        arrays = {name: getattr(fleet, name).tolist() for name in _STATE}
        rng = fleet._rng.bit_generator.state
        return {"type": self.type, "seed": self.seed, "at_s": fleet.at_s, "rng": rng, "arrays": arrays}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The machine that `state` was taken from, at the same moment."""
        machine = cls(state["type"], state["seed"], start_s=state["at_s"])
        for name in _STATE:
            setattr(machine._fleet, name, np.array(state["arrays"][name], dtype=np.float64))
        machine._fleet._rng.bit_generator.state = state["rng"]
        return machine


_STATE = ("left_h", "repair_s", "_wander", "_slow", "_ripple", "_heat")
