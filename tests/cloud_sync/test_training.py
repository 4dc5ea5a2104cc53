"""Training: the same seed gives the same file, ONNX says what LightGBM says, and the figures are counted right."""

from pathlib import Path

import lightgbm
import numpy as np
import onnxruntime
import pytest

from appliance.contract.features import FEATURES, RECIPE_HASH
from cloud_sync.training.evaluation import choose_threshold, clopper_pearson_low, evaluate
from cloud_sync.training.export import floored, to_onnx
from cloud_sync.training.histories import Histories, concatenate, simulate
from cloud_sync.training.train import EDGES_S, HORIZON_S, Card, labels, train

SCALE, DAYS = 0.3, 10.0
HOUR_S = 3600.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Card]:
    out = tmp_path_factory.mktemp("model") / "small.onnx"
    return out, train(out, seed=5, scale=SCALE, days=DAYS)


def history(left_h: list[float], machine: int, life: int = 0) -> Histories:
    count = len(left_h)
    return Histories(
        rows=np.zeros((count, 1), dtype=np.float32),
        left_s=np.array(left_h) * HOUR_S,
        weight=np.full(count, 20.0),
        minute=np.arange(count),
        machine=np.full(count, machine),
        life=np.full(count, life),
        type=np.full(count, "pump"),
        mode=np.full(count, "bearing wear"),
    )


def test_the_same_seed_gives_the_same_bytes(trained: tuple[Path, Card], tmp_path: Path) -> None:
    out, card = trained
    again = train(tmp_path / out.name, seed=5, scale=SCALE, days=DAYS)
    assert (tmp_path / out.name).read_bytes() == out.read_bytes()
    assert (tmp_path / "small.md").read_text() == out.with_suffix(".md").read_text()
    assert again == card


def test_a_trained_model_is_small_good_and_says_all_about_itself(trained: tuple[Path, Card]) -> None:
    out, card = trained
    assert out.stat().st_size == card.size_bytes < 1_000_000
    assert card.metrics.precision >= 0.9 and card.metrics.recall >= 0.9
    assert card.metrics.precision_low < card.metrics.precision
    assert 10 < card.metrics.lead_h_median < 48
    session = onnxruntime.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["probabilities"]
    about = session.get_modelmeta().custom_metadata_map
    assert about["recipe_hash"] == RECIPE_HASH and about["seed"] == "5"
    assert "simulated" in out.with_suffix(".md").read_text()


def test_onnx_and_lightgbm_agree_for_float32_features() -> None:
    """Also for values on the thresholds, one step beside them, and for missing ones: the float32 trap is closed."""
    rng = np.random.default_rng(3)
    rows = (rng.standard_normal((4000, len(FEATURES))) * 50).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    left = np.nan_to_num(rows[:, 0] + rows[:, 5] * rows[:, 9] / 50)
    data = lightgbm.Dataset(rows, label=np.digitize(left, [-40, 0, 40]))
    parameters = {"objective": "multiclass", "num_class": 4, "num_leaves": 15, "num_threads": 1, "verbose": -1}
    booster = lightgbm.train(parameters, data, num_boost_round=30)
    session = onnxruntime.InferenceSession(to_onnx(booster, len(FEATURES), {}), providers=["CPUExecutionProvider"])

    lines = [line for line in booster.model_to_string().split("\n") if line.startswith("threshold=")]
    thresholds = np.array([float(text) for line in lines for text in line.removeprefix("threshold=").split()])
    exact = rng.choice(thresholds, rows.shape).astype(np.float32)
    up, down = np.nextafter(exact, np.float32(np.inf)), np.nextafter(exact, np.float32(-np.inf))
    for asked in (rows, exact, up, down):
        asked[np.abs(asked) <= np.float32(1e-35)] = 0.0  # LightGBM itself takes such values for zero.
        native = booster.predict(asked, num_threads=1)
        assert np.array_equal(native, floored(booster).predict(asked, num_threads=1))
        (answer,) = session.run(["probabilities"], {"features": asked})
        np.testing.assert_allclose(answer, native, atol=2e-6)


def test_histories_end_with_their_failure() -> None:
    histories = simulate("fan", seed=1, machines=20, days=7)
    again = simulate("fan", seed=1, machines=20, days=7)
    assert histories.rows.tobytes() == again.rows.tobytes()
    assert histories.left_s.min() >= 60 and histories.left_s.max() > 5 * 86_400
    vibration = histories.rows[:, FEATURES.index("vibration.mean_10m")]
    assert vibration[histories.left_s < 4 * HOUR_S].min() > vibration[histories.left_s > 120 * HOUR_S].max()
    assert np.isnan(histories.rows[:, FEATURES.index("flow.mean_10m")]).all()


def test_labels_are_classes_of_remaining_life() -> None:
    assert labels(np.array([60.0, 2 * HOUR_S - 1, 2 * HOUR_S, 23 * HOUR_S, 24 * HOUR_S, 999 * HOUR_S])).tolist() == [
        0,
        0,
        1,
        4,
        5,
        len(EDGES_S),
    ]


def test_alarms_are_counted_as_events() -> None:
    """One alarm that comes true, one failure missed, one false alarm far from any failure."""
    found, missed = history([60, 40, 20, 10, 5], 1), history([60, 40, 20, 10, 5], 2)
    false = history([400, 399, 398, 397, 396], 3)
    probability = np.array([0, 0, 0.9, 0.9, 0.9, 0, 0, 0, 0.9, 0, 0, 0.9, 0.9, 0.9, 0.9])
    metrics = evaluate(concatenate([found, missed, false]), probability, 0.5, HORIZON_S)
    assert (metrics.alarms, metrics.true_alarms, metrics.failures, metrics.found) == (2, 1, 2, 1)
    assert metrics.precision == metrics.recall == 0.5
    assert metrics.lead_h_median == 10.0
    assert metrics.machines == 3


def test_the_threshold_lies_in_the_middle_of_the_gap() -> None:
    histories = concatenate([history([60, 40, 20, 10, 5], 1), history([400, 399, 398, 397, 396], 2)])
    probability = np.array([0.1, 0.1, 0.8, 0.8, 0.8] + [0.2] * 5)
    assert choose_threshold(histories, probability, HORIZON_S) == pytest.approx(0.5, abs=0.02)


def test_the_lower_bound_of_a_share() -> None:
    """59 of 59 are needed to show 95 %; 11 of 11 show no more than 76 %."""
    assert clopper_pearson_low(59, 59) == pytest.approx(0.95, abs=0.001)
    assert clopper_pearson_low(11, 11) == pytest.approx(0.762, abs=0.001)
    assert clopper_pearson_low(0, 10) == 0.0
