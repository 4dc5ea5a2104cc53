"""Curves: what is drawn has the extremes of the data, and the memory behind them is bounded."""

import math

from hypothesis import given
from hypothesis import strategies as st

from appliance.ui.trend import MINUTE_US, RAW_MAX, History, curve, spark

HOUR_US = 60 * MINUTE_US


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(50, 400))
def test_no_peak_is_lost_on_the_way_to_the_screen(values: list[float], points: int) -> None:
    """However few points are drawn, the highest and the lowest value are among them, in order of time."""
    history = History.new(with_raw=False)
    for at, value in enumerate(values):
        history.add(value, at * 7_000_000, True)
    drawn = curve(history, 0, len(values) * 7_000_000, points)
    shown = [value for value in drawn.values if value is not None]
    assert (min(shown), max(shown)) == (min(values), max(values))
    assert list(drawn.times_us) == sorted(drawn.times_us)
    assert drawn.samples == len(values)
    assert len(drawn.values) <= points + 4


def test_missing_data_is_a_gap_not_a_line() -> None:
    """A source that was away for an hour leaves a hole in the curve, and the hole is named."""
    history = History.new(with_raw=True)
    for minute in [*range(60), *range(120, 180)]:
        history.add(float(minute), minute * MINUTE_US, True)
    drawn = curve(history, 0, 180 * MINUTE_US, 500)
    assert drawn.gaps_us == ((59 * MINUTE_US, 120 * MINUTE_US),)
    assert drawn.values.count(None) == 1


def test_a_topic_that_speaks_for_weeks_keeps_a_day_of_minutes_and_a_week_of_ten() -> None:
    """The past of one topic is bounded, and a long range is answered from the coarser level."""
    history = History.new(with_raw=True)
    for minute in range(0, 9 * 24 * 60, 2):
        history.add(math.sin(minute), minute * MINUTE_US, True)
    history.settle()
    assert history.raw is not None
    assert (len(history.raw), len(history.minutes.spans), len(history.tens.spans)) == (RAW_MAX, 1_440, 1_008)
    end_us = 9 * 24 * HOUR_US
    assert history.between(end_us - HOUR_US, end_us)[1] == 0
    assert history.between(end_us - 24 * HOUR_US, end_us)[1] == MINUTE_US
    assert history.between(end_us - 7 * 24 * HOUR_US, end_us)[1] == 10 * MINUTE_US


def test_a_tile_draws_within_its_field() -> None:
    """The small curve never leaves its field of 100 by 24, and a flat line is drawn too."""
    history = History.new(with_raw=True)
    for minute in range(30):
        history.add(5.0, minute * MINUTE_US, True)
    drawn = spark(history, 0, HOUR_US)
    assert drawn is not None
    points = [tuple(map(float, point.split(","))) for line in drawn.lines for point in line.split()]
    assert all(0 <= x <= 100 and 0 <= y <= 24 for x, y in points)
    assert spark(history, 5 * HOUR_US, 6 * HOUR_US) is None
