"""Trains the demonstration model on simulated machines: the same seed gives the same file, byte for byte."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import lightgbm
import numpy as np
from numpy.typing import NDArray

from appliance.contract.features import FEATURES, RECIPE, RECIPE_HASH, TAGS, canonical, tag_of
from cloud_sync.simulation.physics import TYPES, modes_of, tags_of
from cloud_sync.simulation.plant import UNITS
from cloud_sync.training.evaluation import Metrics, choose_threshold, evaluate
from cloud_sync.training.export import to_onnx
from cloud_sync.training.histories import CHOOSING_FOLD, FOLDS, JUDGING_FOLD, Histories, concatenate, simulate

log = logging.getLogger(__name__)

SCHEMA = "plantward.model/1"
HORIZON_S = 24 * 3600
EDGES_S = tuple(hours * 3600 for hours in (2, 4, 8, 16, 24, 48, 96, 168))
"""Between the classes of remaining life; the last class is everything beyond."""
HEALTH = (2, 5, 10, 18, 28, 45, 65, 85, 100)
"""Health by class, 0 failing to 100 as new."""
MACHINES_PER_TYPE, DAYS, ROUNDS = 90, 20.0, 40
_HEALTHY_S = EDGES_S[-1]
_PARAMETERS = {
    "objective": "multiclass",
    "num_class": len(EDGES_S) + 1,
    "num_leaves": 12,
    "learning_rate": 0.12,
    "min_data_in_leaf": 30,
    "lambda_l2": 1.0,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
# Which tags speak for which failure; the appliance names the mode whose tags weigh most.
SPEAK_FOR = {
    "bearing wear": ("vibration_de", "vibration", "bearing_temperature"),
    "cavitation": ("suction_pressure", "discharge_pressure", "flow"),
    "filter clogging": ("filter_pressure_drop", "discharge_temperature"),
    "winding over-temperature": ("winding_temperature", "motor_current", "vibration", "speed"),
    "drift": ("ram_pressure", "cycle_time", "position_error", "oil_temperature"),
}


@dataclass(frozen=True, slots=True)
class Card:
    """What there is to know about a trained model."""

    name: str
    seed: int
    scale: float
    threshold: float
    horizon_s: int
    size_bytes: int
    rows: int
    metrics: Metrics

    def markdown(self) -> str:
        """The card as it lies beside the file."""
        its, hours = self.metrics, self.horizon_s // 3600
        return f"""# Model {self.name}

Predicts how long pumps, compressors, motors, fans and presses still run: the probability of a failure within
{hours} h, a range for the remaining life, and what most likely fails.

**All its data are simulated.** It knows the machines of `plantward demo` and no real ones; nothing below says how it
would do in a plant. Train on your own history before you rely on it.

## How it was made

- `cloud_sync.training.train`, seed {self.seed}, scale {self.scale:g}: {self.rows:,} rows from run-to-failure histories.
- Features by recipe `{RECIPE["recipe"]}` (`{RECIPE_HASH[:12]}`), {len(FEATURES)} in number, over the last 60 minutes
  in which the machine ran. The plant computes them with the same code.
- LightGBM, {_PARAMETERS["num_class"]} classes of remaining life, converted to ONNX with floored thresholds:
  the same answers for float32 features. {self.size_bytes:,} bytes.
- Of every five machines three were used for training, one to choose the threshold, one for the figures below.

## How well it does, on {its.machines} simulated machines ({its.machine_years:.1f} machine-years) it has not seen

| | |
|---|---|
| alarm threshold (two predictions in a row) | {self.threshold:.2f} |
| alarms that came true within {2 * hours} h | {its.true_alarms} of {its.alarms} |
| event precision | {its.precision:.3f}, at least {its.precision_low:.3f} (one-sided 95 %, Clopper-Pearson) |
| failures announced | {its.found} of {its.failures} ({its.recall:.3f}) |
| false alarms per machine-year | {its.false_per_machine_year:.2f} |
| median warning | {its.lead_h_median:.1f} h |

Evaluated at one row per 5 minutes in the last day, per 10 minutes in the last four, else per 30; the appliance
scores every minute, so it has more chances to raise an alarm that comes and goes near the threshold.

## Limits

- Simulated wear is cleaner than real wear: one failure mode ends each life, sensors do not drift, repairs are perfect.
- No score with fewer than 20 of the last 60 minutes, nor while a machine stands still.
- One reading a minute of plant time is enough; with fewer, there is no score.
- Signs are found by setting a tag to its normal values (occlusion), which misjudges tags that move together.
"""


def train(out: Path, seed: int = 0, scale: float = 1.0, days: float = DAYS) -> Card:
    """Simulate, train, choose the threshold, and write `out` and its card beside it; a smaller scale is a trial."""
    parts = []
    for number, type in enumerate(TYPES):
        part = simulate(type, seed * 100 + number, max(10, round(MACHINES_PER_TYPE * scale)), days)
        part.machine[:] += number * 10_000
        log.info("train: %d rows of %s histories", len(part.rows), type)
        parts.append(part)
    histories = concatenate(parts)
    fold = histories.machine % FOLDS
    masks = ((fold != CHOOSING_FOLD) & (fold != JUDGING_FOLD), fold == CHOOSING_FOLD, fold == JUDGING_FOLD)
    fit, choose, judge = (_part(histories, mask) for mask in masks)
    booster = _fitted(fit, seed)
    threshold = choose_threshold(choose, _within_horizon(booster, choose), HORIZON_S)
    metrics = evaluate(judge, _within_horizon(booster, judge), threshold, HORIZON_S)
    model = to_onnx(booster, len(FEATURES), _metadata(out.stem, fit, seed, threshold, metrics))
    card = Card(out.stem, seed, scale, threshold, HORIZON_S, len(model), len(fit.rows), metrics)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(model)
    out.with_suffix(".md").write_text(card.markdown(), encoding="utf-8")
    log.info("train: wrote %s, %d bytes, %d of %d alarms true", out, len(model), metrics.true_alarms, metrics.alarms)
    return card


def labels(left_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """The class of each remaining life."""
    return np.searchsorted(EDGES_S, left_s, side="right")


def _part(histories: Histories, mask: NDArray[np.bool_]) -> Histories:
    return Histories(*(getattr(histories, name)[mask] for name in Histories.__slots__))


def _fitted(fit: Histories, seed: int) -> lightgbm.Booster:
    data = lightgbm.Dataset(fit.rows, label=labels(fit.left_s), weight=np.sqrt(fit.weight), free_raw_data=False)
    return lightgbm.train({**_PARAMETERS, "seed": seed}, data, num_boost_round=ROUNDS)


def _within_horizon(booster: lightgbm.Booster, histories: Histories) -> NDArray[np.float64]:
    probabilities = np.asarray(booster.predict(histories.rows, num_threads=1))
    return np.asarray(probabilities[:, : EDGES_S.index(HORIZON_S) + 1].sum(axis=1))


def _metadata(name: str, fit: Histories, seed: int, threshold: float, metrics: Metrics) -> dict[str, str]:
    return {
        "schema": SCHEMA,
        "name": name,
        "recipe": canonical(RECIPE),
        "recipe_hash": RECIPE_HASH,
        "features": json.dumps(FEATURES),
        "edges_s": json.dumps(EDGES_S),
        "health": json.dumps(HEALTH),
        "horizon_s": str(HORIZON_S),
        "threshold": str(threshold),
        "types": json.dumps({type: _normal(fit, type) for type in TYPES}),
        "units": json.dumps(UNITS, ensure_ascii=False),
        "seed": str(seed),
        "metrics": json.dumps({**asdict(metrics), "precision_low": round(metrics.precision_low, 4)}),
    }


def _normal(fit: Histories, type: str) -> dict[str, object]:
    """What is normal for a type, 5 %, 50 % and 95 % by feature, and which tags speak for its failures."""
    healthy = fit.rows[(fit.type == type) & (fit.left_s > _HEALTHY_S)]
    normal = {}
    for position, feature in enumerate(FEATURES):
        if tag_of(feature) in tags_of(type) or tag_of(feature) not in TAGS:
            low, middle, high = np.nanpercentile(healthy[:, position], [5, 50, 95])
            normal[feature] = [float(f"{value:.6g}") for value in (low, middle, high)]
    modes = {mode: [tag for tag in SPEAK_FOR[mode] if tag in tags_of(type)] for mode in modes_of(type)}
    return {"normal": normal, "modes": modes}
