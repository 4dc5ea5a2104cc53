"""The feature recipe: what it promises to training and to the plant, to the last bit."""

import hashlib

import numpy as np
import pytest

from appliance.contract.features import (
    COVERAGE,
    FEATURES,
    READY_MINUTES,
    RECIPE,
    RECIPE_HASH,
    TAGS,
    WINDOW_MINUTES,
    features,
    is_ready,
    tag_of,
    windows_of,
)


def _windows(count: int = 40) -> np.ndarray:
    """Windows of awkward decimals, made with multiplications only, so that they are the same on any machine."""
    numbers = np.arange(count * WINDOW_MINUTES * len(TAGS), dtype=np.int64)
    values = ((numbers * 2_654_435_761) % 1_000_003) / 977.0
    values[(numbers * 40_503) % 11 == 0] = np.nan
    return values.reshape(count, WINDOW_MINUTES, len(TAGS))


def _column(rows: np.ndarray, name: str) -> np.ndarray:
    return rows[:, FEATURES.index(name)]


def test_golden_vectors() -> None:
    """The float32 bytes of known windows are known. If this fails, the recipe has changed: give it a new number,
    because models in the field were trained on the old one."""
    assert RECIPE["recipe"] == "plantward.features/1"
    assert RECIPE_HASH[:16] == "9b6084d265441d2e"
    assert hashlib.sha256(features(_windows()).tobytes()).hexdigest()[:16] == "1177100092eecc65"


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    """Training computes thousands of rows at once, the plant a few: the bits are the same."""
    windows = _windows(200)
    together = features(windows)
    alone = np.vstack([features(windows[each : each + 1]) for each in range(len(windows))])
    assert together.tobytes() == alone.tobytes()


def test_statistics_are_what_their_names_say() -> None:
    windows = _windows()
    rows = features(windows)
    minutes = np.arange(WINDOW_MINUTES)
    for position, tag in enumerate(TAGS):
        of_tag = windows[:, :, position]
        np.testing.assert_allclose(_column(rows, f"{tag}.mean_10m"), np.nanmean(of_tag[:, -10:], axis=1), rtol=1e-6)
        np.testing.assert_allclose(_column(rows, f"{tag}.mean_60m"), np.nanmean(of_tag, axis=1), rtol=1e-6)
        np.testing.assert_allclose(_column(rows, f"{tag}.std_60m"), np.nanstd(of_tag, axis=1), rtol=1e-6)
        for row, values in enumerate(of_tag):
            there = np.isfinite(values)
            slope = np.polyfit(minutes[there], values[there], 1)[0] * 60
            assert _column(rows, f"{tag}.slope_60m")[row] == pytest.approx(slope, rel=1e-4)


def test_what_is_missing_stays_missing() -> None:
    """A tag that a type does not have is NaN in all its features; coverage says how many minutes there are."""
    windows = _windows(1)
    windows[:, :, 3] = np.nan
    windows[:, :30] = np.nan
    row = features(windows)
    assert all(np.isnan(_column(row, name)[0]) == (tag_of(name) == TAGS[3]) for name in FEATURES)
    assert _column(row, COVERAGE)[0] == 0.5


@pytest.mark.parametrize(
    ("present", "ready"),
    [
        (range(60), True),
        (range(60 - READY_MINUTES, 60), True),
        (range(61 - READY_MINUTES, 60), False),
        (range(59), False),
        ([*range(40), 59], False),
        ([*range(40), 51, 53, 55, 57, 59], True),
    ],
)
def test_a_score_needs_enough_and_fresh_minutes(present: list[int], ready: bool) -> None:
    windows = np.full((1, WINDOW_MINUTES, len(TAGS)), np.nan)
    windows[0, list(present), 0] = 1.0
    assert is_ready(windows)[0] == ready


def test_windows_of_a_table_reach_back_over_its_beginning() -> None:
    table = np.arange(100.0)[:, None]
    first, last = windows_of(table, np.array([2, 99]))
    assert np.isnan(first[:57]).all() and first[57:, 0].tolist() == [0, 1, 2]
    assert last[:, 0].tolist() == list(range(40, 100))
