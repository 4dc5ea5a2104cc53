"""A Model: an ONNX file with its feature recipe, its threshold and what is normal for each type of machine."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from appliance.contract.features import FEATURES, RECIPE_HASH, Rows

# Its wheel carries an uploader of usage data, which this switches off; it counts at the first import only.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

DEFAULT = Path(__file__).parent / "models" / "plantward-demo.onnx"
SCHEMA = "plantward.model/1"
SIZE_BYTES_MAX = 50_000_000
_INTERVAL = (0.1, 0.9)
_FATAL_ONLY = 4
# onnxruntime's own errors; they have no base class but Exception.
_ORT_ERRORS = (
    ort.capi.onnxruntime_pybind11_state.Fail,
    ort.capi.onnxruntime_pybind11_state.InvalidArgument,
    ort.capi.onnxruntime_pybind11_state.InvalidGraph,
    ort.capi.onnxruntime_pybind11_state.InvalidProtobuf,
    ort.capi.onnxruntime_pybind11_state.NoSuchFile,
    ort.capi.onnxruntime_pybind11_state.NotImplemented,
)


class ModelError(ValueError):
    """A model file that cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Normal:
    """Where a feature of healthy machines lies: 5 %, 50 % and 95 %."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Type:
    """What the model knows about one type of machine."""

    normal: Mapping[str, Normal]
    modes: Mapping[str, Sequence[str]]
    """The tags that speak for each failure mode."""


@dataclass(frozen=True, slots=True)
class Score:
    """What the model says of one row."""

    probability: float
    """Of a failure within the horizon."""
    life_low_s: int
    life_high_s: int | None
    health: int


class Model:
    """Scores rows of features; knows its recipe, threshold, horizon and what is normal."""

    def __init__(self, session: ort.InferenceSession, about: Mapping[str, Any]) -> None:
        self._session = session
        self.name: str = about["name"]
        self.threshold = float(about["threshold"])
        self.horizon_s = int(about["horizon_s"])
        self.units: dict[str, str] = about["units"]
        self.types = {name: _type(body) for name, body in about["types"].items()}
        self._edges_s = [int(edge) for edge in about["edges_s"]]
        self._health = np.array(about["health"], dtype=np.float64)
        self._classes_within = self._edges_s.index(self.horizon_s) + 1

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Open a model file, by default the one that comes with Plantward; raises `ModelError`."""
        path = path or DEFAULT
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _FATAL_ONLY
        try:
            if path.stat().st_size > SIZE_BYTES_MAX:
                raise ModelError(f"model {path} is larger than {SIZE_BYTES_MAX} bytes; is it the right file?")
            session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise ModelError(f"model {path} cannot be read: {error.strerror}; check [inference] model") from error
        except _ORT_ERRORS as error:
            raise ModelError(f"model {path} is not an ONNX file that can be run; install it again") from error
        return cls(session, _about(path, session))

    def probabilities(self, rows: Rows) -> NDArray[np.float32]:
        """The class probabilities of each row."""
        (answer,) = self._session.run(["probabilities"], {"features": rows})
        return np.asarray(answer, dtype=np.float32)

    def within_horizon(self, rows: Rows) -> NDArray[np.float64]:
        """The probability of a failure within the horizon, for each row."""
        return np.asarray(self.probabilities(rows)[:, : self._classes_within].sum(axis=1, dtype=np.float64))

    def score(self, rows: Rows) -> list[Score]:
        """Probability, remaining life and health for each row."""
        return [self._score(row) for row in self.probabilities(rows).astype(np.float64)]

    def _score(self, classes: NDArray[np.float64]) -> Score:
        classes = classes / classes.sum()
        low, high = (quantile(classes.tolist(), self._edges_s, share) for share in _INTERVAL)
        return Score(
            probability=round(min(1.0, float(classes[: self._classes_within].sum())), 4),
            life_low_s=round(self._edges_s[-1] if low is None else low),
            life_high_s=None if high is None else round(high),
            health=round(float(classes @ self._health)),
        )


def quantile(classes: Sequence[float], edges_s: Sequence[int], share: float) -> float | None:
    """The remaining life that this share of the probability lies below; None beyond the last edge."""
    below = [0.0, *accumulate(classes)]
    starts = [0, *edges_s]
    for number, end_s in enumerate(edges_s):
        if share <= below[number + 1] and classes[number] > 0.0:
            return starts[number] + (end_s - starts[number]) * (share - below[number]) / classes[number]
    return None


def _about(path: Path, session: ort.InferenceSession) -> dict[str, Any]:
    properties = session.get_modelmeta().custom_metadata_map
    if properties.get("schema") != SCHEMA:
        raise ModelError(f"model {path} is not a Plantward model; train one with `plantward-cloud train`")
    if properties.get("recipe_hash") != RECIPE_HASH:
        raise ModelError(
            f"model {path} was made for another feature recipe ({str(properties.get('recipe_hash'))[:12]}, "
            f"this appliance computes {RECIPE_HASH[:12]}); train it again or update the appliance"
        )
    try:
        texts = ("name", "threshold", "horizon_s")
        documents = ("features", "edges_s", "health", "types", "units")
        about: dict[str, Any] = {key: properties[key] for key in texts}
        about.update({key: json.loads(properties[key]) for key in documents})
        is_ours = about["features"] == list(FEATURES) and session.get_inputs()[0].shape[1] == len(FEATURES)
        is_complete = len(about["health"]) == len(about["edges_s"]) + 1 and int(about["horizon_s"]) in about["edges_s"]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"model {path} does not say all it must ({error!r}); train it again") from error
    if not is_ours or not is_complete:
        raise ModelError(f"model {path} does not fit its own description; train it again")
    return about


def _type(body: Mapping[str, Any]) -> Type:
    return Type({feature: Normal(*bounds) for feature, bounds in body["normal"].items()}, body["modes"])
