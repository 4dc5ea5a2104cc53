"""Minutes out of readings: any order within the lateness gives what training computes from a table."""

import math
import random

import numpy as np
import pytest

from appliance.contract.features import FEATURES, TAGS, features, is_ready, windows_of
from appliance.contract.reading import Quality, Reading
from appliance.inference.minutes import JUMP_READINGS, FeatureStream, Window
from cloud_sync.simulation.physics import Machine

PUMP = "acme/northfield/utilities/boiler-house/feed/pmp-204"
START_US = 1_790_000_040_000_000
MINUTE_US = 60_000_000


def reading(tag: str, value: float | bool | None, at_us: int, quality: int = Quality.GOOD) -> Reading:
    return Reading(f"{PUMP}/{tag}", value, quality, at_us, at_us, at_us, "test")


def pushed(stream: FeatureStream, readings: list[Reading], first: int = 1) -> list[Window]:
    return [window for seq, each in enumerate(readings, first) for window in stream.push(each, seq)]


def life(minutes: int, step_s: int, life_left_h: float = 30.0) -> list[Reading]:
    """What a pump says; it fails on the way if its life is short."""
    pump = Machine("pump", 5, {"bearing wear": life_left_h}, START_US / 1e6)
    readings = []
    for number in range(minutes * 60 // step_s):
        at_us = START_US + number * step_s * 1_000_000
        readings += [reading(tag, value, at_us) for tag, value in pump.step(step_s).items()]
    return readings


def table_of(readings: list[Reading]) -> np.ndarray:
    """The minutes as a table, made the plain way: of each tag and source time the first reading counts, and a
    minute counts if the machine ran when it began and said nothing else in it."""
    cells: dict[tuple[int, str], dict[int, float]] = {}
    running: dict[int, bool] = {}
    for each in readings:
        minute, tag = (each.source_us - START_US) // MINUTE_US, each.topic.rsplit("/", 1)[1]
        if tag == "running":
            running[each.source_us] = bool(each.value)
        else:
            cells.setdefault((minute, tag), {}).setdefault(each.source_us, float(each.value))
    stopped, before = set(), True
    for at_us in sorted(running):
        if not before or not running[at_us]:
            stopped.add((at_us - START_US) // MINUTE_US)
        before = running[at_us]
    table = np.full((max(minute for minute, _ in cells) + 1, len(TAGS)), np.nan)
    for (minute, tag), values in cells.items():
        if minute not in stopped:
            table[minute, TAGS.index(tag)] = math.fsum(values.values()) / len(values)
    return table


@pytest.mark.parametrize("step_s", [5, 20, 60])
def test_stream_and_batch_agree_to_the_last_bit(step_s: int) -> None:
    """Readings that arrive shuffled within half a minute, twice, or not at all; the pump fails and is repaired."""
    rng = random.Random(step_s)
    readings = [each for each in life(600, step_s, life_left_h=3.0) if rng.random() > 0.05 or "running" in each.topic]
    readings += [each for each in rng.sample(readings, len(readings) // 20)]
    readings.sort(key=lambda each: (each.source_us + rng.randrange(30_000_000), each.topic))
    stream = FeatureStream([PUMP])
    windows = pushed(stream, readings)
    rows = features(np.stack([window.minutes for window in windows]))

    ends = np.array([(window.at_us - START_US) // MINUTE_US - 1 for window in windows])
    batch = windows_of(table_of(readings), ends)
    assert stream.late == 0
    assert 330 < len(windows) < 420  # Ten hours, four of which it stood still for repair; two minutes are open.
    assert is_ready(batch).sum() > 250
    assert rows.tobytes() == features(batch).tobytes()


def test_a_late_reading_is_counted_and_not_used() -> None:
    stream = FeatureStream([PUMP])
    pushed(stream, [reading("flow", 60.0, START_US + n * MINUTE_US) for n in range(5)])
    assert stream.push(reading("flow", 99.0, START_US + 1)) == []
    (window,) = pushed(stream, [reading("flow", 60.0, START_US + 5 * MINUTE_US)])
    assert stream.late == 1
    assert np.nanmax(window.minutes) == 60.0


def test_what_cannot_be_a_measurement_is_left_out() -> None:
    """Bad quality, no value, NaN and text leave no trace; an unknown topic does not either."""
    stream = FeatureStream([PUMP])
    pushed(
        stream,
        [
            reading("flow", 99.0, START_US, Quality.BAD),
            reading("flow", 99.0, START_US + 1, Quality.UNCERTAIN),
            reading("flow", None, START_US + 2),
            reading("flow", math.nan, START_US + 3),
            reading("flow", True, START_US + 4),
            reading("flow", 60.0, START_US + 5)._replace(topic="acme/x/y/z/a/b/flow"),
            reading("flow", 60.0, START_US + 6),
        ],
    )
    (window,) = pushed(stream, [reading("flow", 60.0, START_US + 2 * MINUTE_US)])
    assert np.nansum(window.minutes) == 60.0


def test_running_is_remembered_when_it_is_only_said_at_its_change() -> None:
    """A server reports `running` when it changes: minutes after a stop are no minutes until it starts again."""
    stream = FeatureStream([PUMP])
    readings = [reading("flow", 60.0, START_US + n * MINUTE_US) for n in range(12)]
    readings.insert(4, reading("running", False, START_US + 3 * MINUTE_US + 5))
    readings.insert(9, reading("running", True, START_US + 7 * MINUTE_US + 5))
    minutes = [(window.at_us - START_US) // MINUTE_US - 1 for window in pushed(stream, readings)]
    assert minutes == [0, 1, 2, 8, 9]


def test_one_wild_time_changes_nothing_but_a_set_clock_does() -> None:
    """A single reading a year ahead is not believed; a machine that keeps saying so has had its clock set."""
    stream = FeatureStream([PUMP])
    pushed(stream, [reading("flow", 60.0, START_US + n * MINUTE_US) for n in range(5)])
    year_us = 365 * 86_400 * 1_000_000
    assert stream.push(reading("flow", 1.0, START_US + year_us)) == []
    assert len(pushed(stream, [reading("flow", 60.0, START_US + n * MINUTE_US) for n in range(5, 8)])) == 3
    ahead = [reading("flow", 1.0, START_US + year_us + n * MINUTE_US) for n in range(JUMP_READINGS + 5)]
    windows = pushed(stream, ahead)
    assert windows and np.nanmax(windows[-1].minutes) == 1.0


@pytest.mark.parametrize("cut", [100, 777, 2500, 3333])
def test_a_stream_goes_on_from_where_resume_says(cut: int) -> None:
    """Reading the log again from `resume` on makes the same windows as never having stopped."""
    readings = life(600, 60, life_left_h=3.0)
    whole, before, after = FeatureStream([PUMP]), FeatureStream([PUMP]), None
    pushed(whole, readings[:cut])
    pushed(before, readings[:cut])
    first, stopped = before.resume(cut)
    assert cut - first < 75 * 7
    after = FeatureStream([PUMP], stopped)
    pushed(after, readings[first - 1 : cut], first)
    expected, got = pushed(whole, readings[cut:]), pushed(after, readings[cut:])
    assert [each.at_us for each in got] == [each.at_us for each in expected]
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours.minutes, theirs.minutes)


def test_the_features_are_many_but_known() -> None:
    assert len(FEATURES) == len(set(FEATURES)) == 4 * len(TAGS) + 1
