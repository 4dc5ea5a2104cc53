"""Alarms on a real log: raised once, cleared once, whatever restarts come between; and the rules behind them."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import pytest

from appliance.alarms.alarms import NAME, Alarms
from appliance.alarms.limits import CONSECUTIVE, Limits
from appliance.alarms.predictions import QUIET_CONSECUTIVE, Predictions, span
from appliance.buffer.buffer import Buffer
from appliance.contract.prediction import ALARM_ORIGIN, Alarm, AlarmState, Prediction
from appliance.contract.reading import Quality, Reading, Stream

PUMP = "acme/northfield/utilities/boiler-house/feed/pmp-204"
MINUTE_US = 60_000_000
HOUR_S = 3600


@dataclass(frozen=True)
class Limit:
    tag: str
    message: str = "Too much"
    high: float | None = None
    low: float | None = None
    priority: int = 2


@dataclass(frozen=True)
class Machine:
    path: str
    limit: Sequence[Limit]


VIBRATION = Limit("vibration_de", high=7.0)
PRESSURE = Limit("suction_pressure", low=1.0)


def readings(values: Sequence[float | bool | None], tag: str = "vibration_de", start: int = 1) -> list[Reading]:
    times = [minute * MINUTE_US for minute in range(start, start + len(values))]
    return [
        Reading(f"{PUMP}/{tag}", value, Quality.GOOD, at_us, at_us, at_us, "test")
        for at_us, value in zip(times, values, strict=True)
    ]


def prediction(minute: int, probability: float, low_s: int = 4 * HOUR_S, high_s: int | None = 7 * HOUR_S) -> Prediction:
    return Prediction(PUMP, minute * MINUTE_US, probability, 24 * HOUR_S, low_s, high_s, 12, "demo", "bearing wear", ())


def states(limits: Limits, said: list[Reading]) -> list[tuple[AlarmState, float]]:
    return [(alarm.state, alarm.value) for each in said for alarm in limits.see(each)]


async def follow(buffer: Buffer, machines: Sequence[Machine], threshold: float = 0.5) -> list[Alarm]:
    """Run the alarms until both cursors have durably reached the end; gives all alarms of the log."""
    alarms = await Alarms.following(buffer, machines, threshold, lambda: 0)
    task = asyncio.create_task(alarms.run())
    deadline = monotonic() + 20
    while any([(await buffer.cursor(NAME, stream)).seq < buffer.last(stream) for stream in Stream]):
        assert monotonic() < deadline and not task.done()
        await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    batch = await buffer.read(Stream.EVENTS, 0, 10_000)
    return [Alarm.from_entry(entry) for entry in batch.entries if entry.origin == ALARM_ORIGIN]


def test_a_limit_needs_readings_in_a_row_both_ways() -> None:
    """Three beyond raise it, three back inside the deadband clear it; hovering at the bound does neither."""
    limits = Limits([(PUMP, [VIBRATION])], {})
    values = [7.1, 7.1, 6.9, 7.1, 7.1, 7.2, 9.0, 6.9, 6.95, 6.9, 6.8, 6.8, 6.9, 6.8, 6.7, 6.6, 6.5]
    assert states(limits, readings(values)) == [(AlarmState.RAISED, 7.2), (AlarmState.CLEARED, 6.6)]


def test_a_low_limit_is_not_watched_while_the_machine_stands_still() -> None:
    """No pressure is no news in a stopped pump; its standing alarm ends with the stop."""
    limits = Limits([(PUMP, [PRESSURE])], {})
    low = "suction_pressure"
    assert states(limits, readings([0.9] * 3, low)) == [(AlarmState.RAISED, 0.9)]
    assert states(limits, readings([False], "running", 4)) == [(AlarmState.CLEARED, 1.0)]
    assert states(limits, readings([0.0] * 9, low, 5)) == []
    assert states(limits, readings([True], "running", 20)) == []
    assert states(limits, readings([0.5] * 3, low, 21)) == [(AlarmState.RAISED, 0.5)]


def test_only_good_new_numbers_speak() -> None:
    """Bad quality, nothing, text and values older than the newest neither raise nor interrupt."""
    limits = Limits([(PUMP, [VIBRATION])], {})
    said = readings([8.0, 8.0, 8.0, 8.0])
    said[1] = said[1]._replace(quality=Quality.BAD)
    old = said[0]._replace(value=1.0)
    odd = [said[2]._replace(value=None, source_us=9), said[2]._replace(value="n/a", source_us=9)]
    assert states(limits, [*said[:3], old, *odd]) == []
    assert states(limits, said[3:]) == [(AlarmState.RAISED, 8.0)]


def test_two_bounds_of_one_tag_are_two_alarms() -> None:
    limits = Limits([(PUMP, [Limit("vibration_de", high=7.0), Limit("vibration_de", high=9.0, priority=1)])], {})
    alarms = [alarm for each in readings([9.5] * CONSECUTIVE) for alarm in limits.see(each)]
    assert [(alarm.key, alarm.priority) for alarm in alarms] == [
        ("limit/vibration_de/high-7", 2),
        ("limit/vibration_de/high-9", 1),
    ]


def test_a_prediction_alarm_is_debounced() -> None:
    """Two in a row raise it; it stays through dips and silence, and ends after a lasting calm."""
    watch = Predictions(0.5, {})
    rises = [0.6, 0.1, 0.6, 0.6, 0.9]
    alarms = [watch.see(prediction(minute, p)) for minute, p in enumerate(rises)]
    assert [alarm is not None for alarm in alarms] == [False, False, False, True, False]
    raised = alarms[3]
    assert raised is not None
    assert raised.message == "Bearing wear: likely failure in 4 – 7 h"
    assert (raised.priority, raised.value, raised.limit) == (1, 0.6, 0.5)
    dips = [0.1, 0.1, 0.45] * QUIET_CONSECUTIVE
    assert [watch.see(prediction(9 + n, p)) for n, p in enumerate(dips)] == [None] * len(dips)
    calm = [watch.see(prediction(500 + n, 0.1)) for n in range(QUIET_CONSECUTIVE)]
    assert [alarm is not None for alarm in calm] == [False] * (QUIET_CONSECUTIVE - 1) + [True]
    cleared = calm[-1]
    assert cleared is not None and cleared.state is AlarmState.CLEARED
    assert cleared.raised_at_us == raised.at_us


@pytest.mark.parametrize(
    ("low_s", "high_s", "text"),
    [
        (4 * HOUR_S, 7 * HOUR_S, "in 4 – 7 h"),
        (600, 2 * HOUR_S, "within 2 h"),
        (0, 60, "within 1 h"),
        (16 * HOUR_S, 47 * HOUR_S + 1, "in 16 – 48 h"),
        (30 * HOUR_S, 96 * HOUR_S, "in 30 h – 4 days"),
        (60 * HOUR_S, 96 * HOUR_S, "in 2 – 4 days"),
        (168 * HOUR_S, None, "not before 7 days"),
    ],
)
def test_a_range_of_time_in_words(low_s: int, high_s: int | None, text: str) -> None:
    assert span(low_s, high_s) == text


async def test_every_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    """Restarted after every single entry: one alarm each is raised and cleared, with the same times as in one run."""
    machines = [Machine(PUMP, [VIBRATION])]
    said = readings([6.0, 7.5, 7.6, 7.7, 7.8, 6.0, 6.1, 6.2, 6.0])
    made = [prediction(n, p) for n, p in enumerate([0.1, 0.7, 0.8, 0.9, 0.9, *[0.1] * (QUIET_CONSECUTIVE + 1)])]
    async with Buffer.open(tmp_path / "whole.db", "northfield") as buffer:
        await buffer.append(said)
        await buffer.append([each.entry(0) for each in made], Stream.EVENTS)
        expected = await follow(buffer, machines)
    async with Buffer.open(tmp_path / "cut.db", "northfield") as buffer:
        for each in said:
            await buffer.append([each])
            await follow(buffer, machines)
        for each in made:
            await buffer.append([each.entry(0)], Stream.EVENTS)
            got = await follow(buffer, machines)
    assert len(expected) == 4
    assert sorted(got, key=lambda alarm: (alarm.key, alarm.at_us)) == sorted(
        expected, key=lambda alarm: (alarm.key, alarm.at_us)
    )


async def test_an_alarm_whose_limit_is_gone_is_cleared(tmp_path: Path) -> None:
    """A limit taken out of the configuration leaves no alarm behind that nothing could ever clear."""
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await buffer.append(readings([8.0] * 4))
        (raised,) = await follow(buffer, [Machine(PUMP, [VIBRATION])])
        await buffer.append(readings([8.0], start=9))
        both = await follow(buffer, [Machine(PUMP, [])])
    assert [alarm.state for alarm in both] == [AlarmState.RAISED, AlarmState.CLEARED]
    assert both[1].key == raised.key and both[1].raised_at_us == raised.raised_at_us


def test_a_limit_alarm_says_what_the_configuration_says() -> None:
    limits = Limits([(PUMP, [replace(VIBRATION, message="Slow it down", priority=1)])], {})
    (alarm,) = [alarm for each in readings([8.0] * 3) for alarm in limits.see(each)]
    assert (alarm.key, alarm.message, alarm.priority, alarm.limit) == ("limit/vibration_de", "Slow it down", 1, 7.0)
    assert alarm.raised_at_us == alarm.at_us == 3 * MINUTE_US
