"""What speaks for a prediction: each tag is set to what is normal, and the probability is asked again (occlusion)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from appliance.contract.features import FEATURES, RECENT_MINUTES, Rows, tag_of
from appliance.contract.prediction import Sign
from appliance.inference.model import Type

SIGNS_MAX = 3
_SHARE_MIN, _DEVIATION_MIN = 0.01, 2.0
_SHOWN = f"mean_{RECENT_MINUTES}m"
_POSITION = {feature: position for position, feature in enumerate(FEATURES)}

Ask = Callable[[Rows], NDArray[np.float64]]


def explain(row: Rows, type: Type, units: Mapping[str, str], ask: Ask) -> tuple[str, tuple[Sign, ...]]:
    """The failure mode whose tags weigh most, and up to three tags that speak for it, the weightiest first.

    Occlusion is not fair to tags that move together: each may weigh little because the other remains. Therefore
    a mode's tags are set to normal all at once, and among equal weights the tag further from normal comes first.
    """
    tags = [tag for tag in dict.fromkeys(map(tag_of, type.normal)) if tag]
    modes = list(type.modes)
    groups = [[tag] for tag in tags] + [list(type.modes[mode]) for mode in modes]
    asked = np.vstack([row, *(_normalised(row, group, type) for group in groups)])
    answers = ask(asked)
    shares = answers[0] - answers[1:]
    signs = [_sign(row, tag, type, units, float(share)) for tag, share in zip(tags, shares, strict=False)]
    found = [(sign, _deviation(sign)) for sign in signs if sign is not None]
    telling = [(sign, away) for sign, away in found if sign.share >= _SHARE_MIN or away >= _DEVIATION_MIN]
    telling.sort(key=lambda pair: (-round(pair[0].share, 2), -pair[1]))
    mode = modes[int(np.argmax(shares[len(tags) :]))] if modes else ""
    return mode, tuple(sign for sign, _ in telling[:SIGNS_MAX])


def _normalised(row: Rows, tags: Sequence[str], type: Type) -> Rows:
    changed = row.copy()
    for feature, normal in type.normal.items():
        if tag_of(feature) in tags:
            changed[_POSITION[feature]] = normal.middle
    return changed


def _sign(row: Rows, tag: str, type: Type, units: Mapping[str, str], share: float) -> Sign | None:
    feature = f"{tag}.{_SHOWN}"
    normal, value = type.normal.get(feature), float(row[_POSITION[feature]])
    if normal is None or not np.isfinite(value):
        return None
    unit = units.get(tag, "")
    return Sign(feature, tag, float(f"{value:.5g}"), unit, normal.low, normal.high, round(share, 4))


def _deviation(sign: Sign) -> float:
    """How far from the middle of the normal range, in half ranges; 1 is its edge."""
    half = max((sign.normal_high - sign.normal_low) / 2, 1e-9)
    return abs(sign.value - (sign.normal_high + sign.normal_low) / 2) / half
