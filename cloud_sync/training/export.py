"""Turns a LightGBM classifier into an ONNX file that gives the very same answers for float32 features.

LightGBM's thresholds are float64 and ONNX rounds them to the nearest float32, so a value close to a threshold can
take the other branch. For a float32 value x, `x <= t` is the same as `x <= the largest float32 not above t`: with
thresholds floored in this way before the conversion, nothing is left to round.
"""

from collections.abc import Mapping
from typing import Any

import lightgbm
import numpy as np
import onnx
from onnxmltools.convert import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

_OPSET = 15
_THRESHOLDS = "threshold="


def floored(booster: lightgbm.Booster) -> lightgbm.Booster:
    """The same trees with every threshold at the largest float32 that is not above it."""
    lines = []
    for line in booster.model_to_string().split("\n"):
        if line.startswith("tree_sizes="):
            continue  # The lengths in bytes, which change here; LightGBM does without them.
        if line.startswith(_THRESHOLDS):
            exact = np.array([float(text) for text in line[len(_THRESHOLDS) :].split()])
            line = _THRESHOLDS + " ".join(repr(float(value)) for value in _floor32(exact))
        lines.append(line)
    return lightgbm.Booster(model_str="\n".join(lines))


def _floor32(exact: "np.ndarray[Any, np.dtype[np.float64]]") -> "np.ndarray[Any, np.dtype[np.float32]]":
    nearest = exact.astype(np.float32)
    return np.where(nearest.astype(np.float64) > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def to_onnx(booster: lightgbm.Booster, features: int, metadata: Mapping[str, str]) -> bytes:
    """The file: input `features` (n x features, float32), output `probabilities` (n x classes)."""
    model = convert_lightgbm(
        floored(booster),
        name="plantward",
        initial_types=[("features", FloatTensorType([None, features]))],
        zipmap=False,
        target_opset=_OPSET,
    )
    for output in [output for output in model.graph.output if output.name != "probabilities"]:
        model.graph.output.remove(output)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    model.producer_name, model.producer_version, model.doc_string = "plantward", "", ""
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
