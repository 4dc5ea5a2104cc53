"""How well a model does, counted in alarms: an alarm that comes true is worth more than a thousand right rows."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud_sync.training.histories import Histories

Array = NDArray[np.float64]

_CONSECUTIVE, _QUIET_ROWS, _QUIET = 2, 6, 0.8
_YEAR_MINUTES = 365.25 * 1440
_THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.01), 2)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Alarms at one threshold on machines that the model has not seen."""

    machines: int
    machine_years: float
    alarms: int
    true_alarms: int
    failures: int
    found: int
    lead_h_median: float

    @property
    def precision(self) -> float:
        return self.true_alarms / self.alarms if self.alarms else 0.0

    @property
    def precision_low(self) -> float:
        """One-sided 95 % lower bound of the precision (Clopper-Pearson)."""
        return clopper_pearson_low(self.true_alarms, self.alarms)

    @property
    def recall(self) -> float:
        return self.found / self.failures if self.failures else 0.0

    @property
    def false_per_machine_year(self) -> float:
        return (self.alarms - self.true_alarms) / self.machine_years if self.machine_years else 0.0


def clopper_pearson_low(good: int, count: int, confidence: float = 0.95) -> float:
    """The lowest share that still gives `good` or more of `count` with the chance 1 - confidence."""
    if good == 0:
        return 0.0
    low, high = 0.0, good / count
    for _ in range(60):
        share = (low + high) / 2
        tail = math.fsum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(good, count + 1))
        low, high = (share, high) if tail < 1 - confidence else (low, share)
    return low


def evaluate(histories: Histories, probability: Array, threshold: float, horizon_s: float) -> Metrics:
    """Count alarms: true ones are followed by the failure within twice the horizon."""
    alarms = true = failures = found = 0
    leads: list[float] = []
    for rows in _lives(histories):
        left_s = histories.left_s[rows]
        raised = _raised(probability[rows], threshold)
        hits = left_s[raised][left_s[raised] <= 2 * horizon_s]
        alarms, true = alarms + len(raised), true + len(hits)
        if left_s[-1] < horizon_s / 2 < left_s[0]:
            failures += 1
            if len(hits):
                found += 1
                leads.append(float(hits[0]) / 3600.0)
    machines = len(np.unique(histories.machine))
    years = float(histories.weight.sum()) / _YEAR_MINUTES
    return Metrics(machines, years, alarms, true, failures, found, float(np.median(leads)) if leads else 0.0)


def choose_threshold(histories: Histories, probability: Array, horizon_s: float) -> float:
    """The middle of the thresholds that do best by event precision and, with it, recall.

    The lowest good threshold would lie at the very edge of the gap between healthy and failing machines.
    """
    scores = []
    for threshold in _THRESHOLDS:
        metrics = evaluate(histories, probability, float(threshold), horizon_s)
        scores.append(0.7 * metrics.precision + 0.3 * metrics.recall)
    best = np.flatnonzero(np.array(scores) >= max(scores) - 1e-9)
    return float(_THRESHOLDS[best[len(best) // 2]])


def _lives(histories: Histories) -> list[NDArray[np.int64]]:
    order = np.lexsort((histories.minute, histories.life, histories.machine))
    life = histories.machine[order] * 1_000_000 + histories.life[order]
    return [np.asarray(part) for part in np.split(order, np.flatnonzero(np.diff(life)) + 1)]


def _raised(probability: Array, threshold: float) -> NDArray[np.int64]:
    """At which rows of one life an alarm is raised, by the rules of the appliance (half an hour of calm clears it)."""
    raised, above, quiet, standing = [], 0, 0, False
    for row, value in enumerate(probability):
        above = above + 1 if value >= threshold else 0
        quiet = quiet + 1 if value < _QUIET * threshold else 0
        if not standing and above >= _CONSECUTIVE:
            raised.append(row)
            standing = True
        elif standing and quiet >= _QUIET_ROWS:
            standing = False
    return np.array(raised, dtype=np.int64)
