"""The Model: what it says, what it refuses, and that it keeps quiet towards the internet."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from appliance.contract.features import FEATURES
from appliance.inference.model import DEFAULT, Model, ModelError, quantile


def row(model: Model, type: str, **values: float) -> np.ndarray:
    """A machine of this type with everything normal but these tags."""
    made = np.full((1, len(FEATURES)), np.nan, dtype=np.float32)
    for feature, normal in model.types[type].normal.items():
        made[0, FEATURES.index(feature)] = normal.middle
        tag, _, statistic = feature.rpartition(".")
        if tag in values and statistic.startswith("mean"):
            made[0, FEATURES.index(feature)] = values[tag]
    return made


def test_the_model_that_comes_with_plantward() -> None:
    """A healthy pump is healthy, a shaking hot one has hours left; both for every type it knows."""
    model = Model.load()
    assert set(model.types) == {"pump", "compressor", "motor", "fan", "press"}
    assert 0.1 < model.threshold < 0.9
    for type in model.types:
        (healthy,) = model.score(row(model, type))
        assert healthy.probability < 0.05 and healthy.life_high_s is None and healthy.health > 80, type
    (failing,) = model.score(row(model, "pump", vibration_de=6.5, bearing_temperature=65.0))
    assert failing.probability > 0.9 and failing.health < 25
    assert failing.life_low_s < failing.life_high_s <= 24 * 3600


def test_probabilities_sum_to_one_and_a_row_is_alone() -> None:
    model = Model.load()
    rows = np.vstack([row(model, type) for type in model.types] * 5)
    answers = model.probabilities(rows)
    np.testing.assert_allclose(answers.sum(axis=1), 1.0, atol=1e-5)
    assert answers[3].tobytes() == model.probabilities(rows[3:4])[0].tobytes()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("recipe_hash", "0" * 64, "another feature recipe"),
        ("schema", "something/2", "not a Plantward model"),
        ("types", "{", "does not say all it must"),
        ("features", "[]", "does not fit"),
        ("horizon_s", "7", "does not fit"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(tmp_path: Path, key: str, value: str, says: str) -> None:
    changed = onnx.load(DEFAULT)
    next(each for each in changed.metadata_props if each.key == key).value = value
    path = tmp_path / "other.onnx"
    path.write_bytes(changed.SerializeToString())
    with pytest.raises(ModelError, match=says):
        Model.load(path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    garbage, empty = tmp_path / "garbage.onnx", tmp_path / "empty.onnx"
    garbage.write_bytes(b"not a model at all" * 50)
    empty.write_bytes(b"")
    for path in (garbage, empty):
        with pytest.raises(ModelError, match="not an ONNX file"):
            Model.load(path)
    with pytest.raises(ModelError, match="cannot be read"):
        Model.load(tmp_path / "absent.onnx")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(DEFAULT.read_bytes()[:100_000])
    with pytest.raises(ModelError):
        Model.load(cut)


@pytest.mark.parametrize(
    ("classes", "share", "expected"),
    [
        ([1.0, 0.0, 0.0], 0.1, 1.0),
        ([0.0, 1.0, 0.0], 0.5, 20.0),
        ([0.5, 0.5, 0.0], 0.9, 26.0),
        ([0.0, 0.0, 1.0], 0.1, None),
        ([0.05, 0.0, 0.95], 0.1, None),
    ],
)
def test_quantile_of_the_remaining_life(classes: list[float], share: float, expected: float | None) -> None:
    got = quantile(classes, [10, 30], share)
    assert got == expected if expected is None else got == pytest.approx(expected)


def test_onnxruntime_sends_and_keeps_nothing(tmp_path: Path) -> None:
    """Its wheel has an uploader of usage data that keeps files in the home folder: with ours there are none."""
    script = (
        "from appliance.inference.model import Model; import numpy as np; m = Model.load();"
        "m.probabilities(np.zeros((1, m._session.get_inputs()[0].shape[1]), np.float32))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment |= {"XDG_DATA_HOME": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, cwd=root, timeout=60)
    left = [path for path in tmp_path.rglob("*") if "onnx" in path.name.lower() or "microsoft" in path.name.lower()]
    assert left == []
