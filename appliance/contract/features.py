"""The features a model sees, computed here for the edge and for training alike.

Readings become means per minute of source time and equipment (float64, exact sums, so their order does not matter);
features are statistics over the last minutes in which the machine ran. A missing minute stays missing: nothing is
filled in. The recipe says it all in JSON, and its hash is in every model: an edge refuses a model made for another.
"""

import hashlib
import json
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Minutes = NDArray[np.float64]

MINUTE_US: Final = 60_000_000
LATENESS_US: Final = 60_000_000
"""A minute is complete when a reading of its equipment lies this far beyond its end."""
WINDOW_MINUTES: Final = 60
RECENT_MINUTES: Final = 10
READY_MINUTES: Final = 20
"""Minutes of the window with data, without which there is no score."""
READY_RECENT_MINUTES: Final = 5
RUNNING: Final = "running"

TAGS: Final = (
    "vibration_de",
    "vibration",
    "bearing_temperature",
    "suction_pressure",
    "discharge_pressure",
    "flow",
    "motor_current",
    "discharge_temperature",
    "filter_pressure_drop",
    "oil_pressure",
    "winding_temperature",
    "speed",
    "airflow",
    "ram_pressure",
    "oil_temperature",
    "cycle_time",
    "position_error",
)
_STATISTICS: Final = (
    ("mean_10m", "mean", RECENT_MINUTES),
    ("mean_60m", "mean", WINDOW_MINUTES),
    ("std_60m", "standard deviation of minute means", WINDOW_MINUTES),
    ("slope_60m", "least-squares slope of minute means, per hour", WINDOW_MINUTES),
)
COVERAGE: Final = "coverage"
FEATURES: Final = (*(f"{tag}.{name}" for name, _, _ in _STATISTICS for tag in TAGS), COVERAGE)

RECIPE: Final[dict[str, Any]] = {
    "recipe": "plantward.features/1",
    "bucket_s": MINUTE_US // 1_000_000,
    "lateness_s": LATENESS_US // 1_000_000,
    "ready": {
        "minutes": READY_MINUTES,
        "of": WINDOW_MINUTES,
        "recent": READY_RECENT_MINUTES,
        "of_last": RECENT_MINUTES,
    },
    "tags": list(TAGS),
    "only_while": RUNNING,
    "features": [
        {"name": f"{tag}.{name}", "tag": tag, "statistic": statistic, "minutes": minutes}
        for name, statistic, minutes in _STATISTICS
        for tag in TAGS
    ]
    + [{"name": COVERAGE, "statistic": "share of minutes with data", "minutes": WINDOW_MINUTES}],
}


def canonical(document: Any) -> str:
    """The one JSON text of a document, the same on every machine."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


RECIPE_HASH: Final = hashlib.sha256(canonical(RECIPE).encode()).hexdigest()


def tag_of(feature: str) -> str:
    """The tag a feature is made from; empty for coverage."""
    return feature.rpartition(".")[0]


def is_ready(windows: Minutes) -> NDArray[np.bool_]:
    """Which windows (n x 60 x tags, the newest minute last) hold enough to be scored."""
    present: NDArray[np.bool_] = np.asarray(np.isfinite(windows).any(axis=2))
    enough = present.sum(axis=1) >= READY_MINUTES
    fresh = present[:, -RECENT_MINUTES:].sum(axis=1) >= READY_RECENT_MINUTES
    return np.asarray(enough & fresh & present[:, -1])


def features(windows: Minutes) -> Rows:
    """One row of `FEATURES` for each window (n x 60 x tags, the newest minute last); float32 at the very end.

    Sums run minute by minute, so that a row does not depend on how many others are computed with it.
    """
    count, _, tags = windows.shape
    present = np.isfinite(windows)
    values = np.where(present, windows, 0.0)
    number, total, recent_number, recent_total = np.zeros((4, count, tags))
    minutes_at, minutes_squared = np.zeros((2, count, tags))
    for minute in range(WINDOW_MINUTES):
        here, value = present[:, minute].astype(np.float64), values[:, minute]
        number, total = number + here, total + value
        minutes_at, minutes_squared = minutes_at + here * minute, minutes_squared + here * (minute * minute)
        if minute >= WINDOW_MINUTES - RECENT_MINUTES:
            recent_number, recent_total = recent_number + here, recent_total + value
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, recent_mean, mean_at = total / number, recent_total / recent_number, minutes_at / number
        square, product = np.zeros((2, count, tags))
        for minute in range(WINDOW_MINUTES):
            away = np.where(present[:, minute], values[:, minute] - mean, 0.0)
            square, product = square + away * away, product + away * (minute - mean_at)
        deviation = np.sqrt(square / number)
        slope = 60.0 * product / (minutes_squared - number * mean_at * mean_at)
    few = number < READY_MINUTES
    deviation, slope = np.where(few, np.nan, deviation), np.where(few, np.nan, slope)
    coverage = present.any(axis=2).sum(axis=1, keepdims=True) / WINDOW_MINUTES
    return np.hstack([recent_mean, mean, deviation, slope, coverage]).astype(np.float32)


def windows_of(minutes: Minutes, ends: NDArray[np.int64]) -> Minutes:
    """The windows that end with these rows of a table of minutes (n x tags); what lies before the table is missing."""
    before = np.full((WINDOW_MINUTES - 1, minutes.shape[1]), np.nan)
    padded = np.vstack([before, minutes])
    return np.asarray(padded[ends[:, None] + np.arange(WINDOW_MINUTES)])
