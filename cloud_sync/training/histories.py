"""Run-to-failure histories of simulated machines, as rows of features with the life that was left."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.contract.features import READY_MINUTES, TAGS, Minutes, Rows, features, is_ready, windows_of
from cloud_sync.simulation.physics import Fleet, modes_of, tags_of

MINUTE_S = 60.0
FOLDS, CHOOSING_FOLD, JUDGING_FOLD = 5, 3, 4
"""Machines are dealt out to folds: most are for training, one fold chooses the threshold, one gives the figures."""
_SPACING_MINUTES, _JUDGING_SPACING_MINUTES = (20, 60, 240), (5, 10, 30)
"""Between two rows of a machine that has up to a day, up to four days, or longer to run."""
_SAMPLES = (1, 1, 2, 6, 12, 60)
"""Samples behind a minute's mean: the speed of the plant and the server's interval decide it."""
_WINDOWS_AT_ONCE = 4_000
_SHORT_SHARE, _GAPS_SHARE, _GAP = 0.2, 0.1, 0.25
"""Shares of windows that lose their oldest minutes (as after a start) or a quarter of all (as on a bad link)."""


@dataclass(frozen=True, slots=True)
class Histories:
    """Rows of machines of all types; the arrays have one element per row."""

    rows: Rows
    left_s: NDArray[np.float64]
    """Running time to the failure that ended the life."""
    weight: NDArray[np.float64]
    """How many minutes a row stands for."""
    minute: NDArray[np.int64]
    machine: NDArray[np.int64]
    life: NDArray[np.int64]
    type: NDArray[np.str_]
    mode: NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class _Lives:
    """What a fleet did, minute by machine: its values, what was left and what ended it."""

    values: NDArray[np.float32]
    running: NDArray[np.bool_]
    ended: NDArray[np.int64]
    """The failure mode that struck in this minute, else -1."""


def simulate(type: str, seed: int, machines: int, days: float) -> Histories:
    """Let a fleet run for some days from random ages, and keep the minutes whose failure was still seen."""
    fleet = Fleet(type, seed, machines)
    rng = np.random.default_rng([seed, 7])
    fleet.left_h *= rng.uniform(0.02, 1.0, (1, machines))
    samples = rng.choice(_SAMPLES, machines).astype(np.float64)
    lives = _run(fleet, samples, int(days * 1440))
    parts = [_machine(type, lives, machine, list(modes_of(type)), rng) for machine in range(machines)]
    return concatenate(parts)


def concatenate(parts: list[Histories]) -> Histories:
    """All rows of all parts; machines and lives must already be told apart by their numbers."""
    return Histories(*(np.concatenate([getattr(part, name) for part in parts]) for name in Histories.__slots__))


def _run(fleet: Fleet, samples: NDArray[np.float64], minutes: int) -> _Lives:
    values = np.empty((minutes, len(tags_of(fleet.type)), fleet.size), dtype=np.float32)
    running = np.empty((minutes, fleet.size), dtype=np.bool_)
    ended = np.full((minutes, fleet.size), -1, dtype=np.int64)
    before = fleet.running
    for minute in range(minutes):
        values[minute] = fleet.step(MINUTE_S, samples)
        running[minute] = fleet.running
        failed = before & ~running[minute]
        ended[minute, failed] = np.argmin(fleet.left_h, axis=0)[failed]
        before = running[minute]
    return _Lives(values, running, ended)


def _machine(type: str, lives: _Lives, machine: int, modes: list[str], rng: np.random.Generator) -> Histories:
    running, ended = lives.running[:, machine], lives.ended[:, machine]
    failures = np.flatnonzero(ended >= 0)
    minutes = np.arange(len(running))
    following = np.searchsorted(failures, minutes)
    seen = running & (following < len(failures))
    left = (
        np.where(seen, failures[np.minimum(following, len(failures) - 1)] - minutes, 0)
        if len(failures)
        else 0 * minutes
    )
    soon, later, last = _JUDGING_SPACING_MINUTES if machine % FOLDS == JUDGING_FOLD else _SPACING_MINUTES
    every = np.where(left <= 24 * 60, soon, np.where(left <= 96 * 60, later, last))
    chosen = np.flatnonzero(seen & (left % every == machine % every))
    table = np.full((len(running), len(TAGS)), np.nan)
    table[:, [TAGS.index(tag) for tag in tags_of(type)]] = lives.values[:, :, machine]
    table[~running] = np.nan
    rows, ready = _rows(table, chosen, rng)
    chosen = chosen[ready]
    life = following[chosen]
    names = np.array([modes[int(ended[failures[each]])] for each in life], dtype=np.str_)
    return Histories(
        rows=rows,
        left_s=np.asarray(left[chosen] * MINUTE_S, dtype=np.float64),
        weight=every[chosen].astype(np.float64),
        minute=chosen,
        machine=np.full(len(chosen), machine),
        life=life,
        type=np.full(len(chosen), type),
        mode=names,
    )


def _rows(table: Minutes, ends: NDArray[np.int64], rng: np.random.Generator) -> tuple[Rows, NDArray[np.bool_]]:
    rows, ready = [], []
    for start in range(0, max(1, len(ends)), _WINDOWS_AT_ONCE):
        windows = windows_of(table, ends[start : start + _WINDOWS_AT_ONCE])
        _spoil(windows, rng)
        mask = is_ready(windows)
        rows.append(features(windows[mask]))
        ready.append(mask)
    return np.concatenate(rows), np.concatenate(ready)


def _spoil(windows: Minutes, rng: np.random.Generator) -> None:
    count, minutes, _ = windows.shape
    short = np.where(rng.random(count) < _SHORT_SHARE, rng.integers(0, minutes - READY_MINUTES + 1, count), 0)
    windows[np.arange(minutes) < short[:, None]] = np.nan
    is_gappy = rng.random((count, 1)) < _GAPS_SHARE
    gaps = np.logical_and(is_gappy, rng.random((count, minutes)) < _GAP)
    gaps[:, -1] = False
    windows[gaps] = np.nan
