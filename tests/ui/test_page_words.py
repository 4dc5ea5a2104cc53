"""The page's words: numbers, spans, intervals and sentences as an operator reads them."""

import math

import pytest

from appliance.contract.prediction import Sign
from appliance.ui import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6.8412, "6.84"),
        (81.24, "81.2"),
        (212.4, "212"),
        (-0.2, "\u22120.20"),
        (0.0, "0.00"),
        (1_240_000, "1\u202f240\u202f000"),
        (True, "yes"),
        (None, words.NOTHING),
        (math.nan, words.NOTHING),
        (-math.inf, words.NOTHING),
        ("running", "running"),
    ],
)
def test_a_value_is_shown_with_about_three_digits_and_never_as_nan(value: object, text: str) -> None:
    """Values keep the digits that mean something."""
    assert words.number(value) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low_s", "high_s", "text"),
    [
        (4 * 3_600, 7 * 3_600, "4 – 7 h"),
        (4 * 86_400, 9 * 86_400, "4 – 9 days"),
        (20 * 60, 50 * 60, "20 – 50 min"),
        (600, 5 * 3_600, "< 5 h"),
        (20 * 3_600, None, "> 20 h"),
        (5 * 86_400, None, "> 5 days"),
    ],
)
def test_the_remaining_life_has_one_unit(low_s: int, high_s: int | None, text: str) -> None:
    """Both ends of the interval stand in the unit that suits the later one."""
    assert " ".join(words.life(low_s, high_s)) == text


def test_times_read_back_as_they_were_written() -> None:
    """What the page shows as a source time can be pasted into the search."""
    for at_us in (0, 1_420_092_000_000_000, 1_795_300_920_123_456, -1):
        assert words.from_iso(words.iso(at_us)) == at_us
    assert words.from_iso("yesterday") is None
    assert words.from_iso("2015-01-01 06:00:00") == 1_420_092_000_000_000


def test_the_finding_names_what_is_out_and_what_is_normal() -> None:
    """An operator reads signals and ranges, not features."""
    signs = (
        Sign("vibration_de.mean_10m", "vibration_de", 7.0, "mm/s", 2.0, 3.5, 0.46),
        Sign("flow.mean_10m", "flow", 118, "m3/h", 110, 125, -0.03),
    )
    assert words.finding(signs) == "Drive-end vibration is 2.0 times the top of its normal range. Flow is normal."


def test_every_failure_mode_of_the_plant_has_its_own_advice() -> None:
    """No known failure mode leaves the operator with the general advice."""
    known = [
        ("pump", "bearing wear"),
        ("pump", "cavitation"),
        ("compressor", "filter clogging"),
        ("motor", "winding over-temperature"),
        ("fan", "bearing wear"),
        ("press", "drift"),
        ("press", "drift (hydraulic leakage)"),
    ]
    general = words.advice("pump", "something else")
    assert all(words.advice(*each) != general for each in known)
