"""The log's own alarms: a damaged file, readings that left unsent, and producers that wait are told to people."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from appliance.alarms import watchman
from appliance.alarms.own import DAMAGED_US, FREE_AFTER_S, FULL, FULL_AFTER_S, UNSENT, UNSENT_US, OwnAlarms
from appliance.alarms.watchman import NAME, Watchman
from appliance.buffer.buffer import Buffer
from appliance.buffer.damage import DAMAGED
from appliance.contract.gap import Gap, GapReason, gap_topic, own_equipment
from appliance.contract.prediction import ALARM_ORIGIN, Alarm, AlarmState
from appliance.contract.reading import Reading, Stream

NOW_US = 1_790_000_000_000_000
RAISED, CLEARED = AlarmState.RAISED, AlarmState.CLEARED


def gap(unread: int, reason: GapReason = GapReason.SIZE, stream: Stream = Stream.READINGS) -> Reading:
    said = Gap(1, stream, 1, 5_000, 5_000, unread, reason, (), 0, 0, 0)
    return said.entry(gap_topic("acme", "northfield"), NOW_US)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchman, "TICK_S", 0.01)


@asynccontextmanager
async def watched(
    buffer: Buffer, is_full: Callable[[], bool] = lambda: False, now_us: Callable[[], int] = lambda: NOW_US
) -> AsyncIterator[None]:
    """A Watchman at work until it has durably seen all that is there."""
    man = await Watchman.following(buffer, "acme", is_full, now_us)
    task = asyncio.create_task(man.run())
    yield
    async with asyncio.timeout(20):
        while (await buffer.cursor(NAME, Stream.EVENTS)).seq < buffer.last(Stream.EVENTS):
            assert not task.done()
            await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def alarms_of(buffer: Buffer) -> list[Alarm]:
    batch = await buffer.read(Stream.EVENTS, 0, 10_000)
    return [Alarm.from_entry(entry) for entry in batch.entries if entry.origin == ALARM_ORIGIN]


async def test_a_damaged_file_is_an_alarm_for_a_day(tmp_path: Path) -> None:
    """The start on a broken file raises priority 1 with its new name; a day later, after a restart, it is cleared."""
    path, clock = tmp_path / "buffer.db", [0]
    path.write_bytes(random.Random(1).randbytes(50_000))
    async with Buffer.open(path, "northfield") as buffer, watched(buffer, now_us=lambda: clock[0]):
        (raised,) = await alarms_of(buffer)
        clock[0] = raised.at_us
        assert (raised.equipment, raised.key) == (own_equipment("acme", "northfield"), DAMAGED)
        assert (raised.state, raised.priority) == (RAISED, 1)
        assert next(tmp_path.glob("buffer.damaged-*.db")).name in raised.message
    async with Buffer.open(path, "northfield") as buffer:
        async with watched(buffer, now_us=lambda: clock[0]):
            await asyncio.sleep(0.05)
            assert len(await alarms_of(buffer)) == 1
            clock[0] += DAMAGED_US
            await asyncio.wait_for(buffer.grown(Stream.EVENTS, buffer.last(Stream.EVENTS)), 10)
        assert [(alarm.key, alarm.state) for alarm in await alarms_of(buffer)] == [
            (DAMAGED, RAISED),
            (DAMAGED, CLEARED),
        ]


async def test_readings_that_left_unsent_are_one_alarm(tmp_path: Path) -> None:
    """A stretch of drops is raised once and not again by a restart; gaps that lose nothing raise nothing."""
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        async with watched(buffer):
            await buffer.append([gap(0), gap(9, GapReason.CARRIED), gap(9, stream=Stream.EVENTS)], Stream.EVENTS)
        assert await alarms_of(buffer) == []
        async with watched(buffer):
            await buffer.append([gap(300), gap(200)], Stream.EVENTS)
        async with watched(buffer):
            await buffer.append([gap(500)], Stream.EVENTS)
        (alarm,) = await alarms_of(buffer)
        assert (alarm.key, alarm.state, alarm.value) == (UNSENT, RAISED, 300.0)


def test_the_alarm_of_lost_readings_ends_an_hour_after_the_last_of_them() -> None:
    """What it says when it ends is the whole loss; what was long ago is no news."""
    own = OwnAlarms("acme", "northfield", {})
    assert own.see(gap(300), NOW_US + UNSENT_US) is None
    assert own.see(gap(300), NOW_US) is not None
    own = OwnAlarms("acme", "northfield", own.state())
    assert own.see(gap(200), NOW_US) is None
    assert own.tick(NOW_US + UNSENT_US - 1, 0.0, False) == []
    (cleared,) = own.tick(NOW_US + UNSENT_US, 0.0, False)
    assert (cleared.state, cleared.value, cleared.message[:3]) == (CLEARED, 500.0, "500")
    assert own.state() == {}


def test_waiting_producers_are_an_alarm_with_hysteresis() -> None:
    """A moment of either says nothing; the alarm comes and goes once."""
    own, said = OwnAlarms("acme", "northfield", {}), list[tuple[float, AlarmState]]()
    full = [*[True] * 4, False, *[True] * 10, *[False] * 30, True, *[False] * 70]
    for second, is_full in enumerate(full):
        said += [(second, alarm.state) for alarm in own.tick(NOW_US, float(second), is_full) if alarm.key == FULL]
    assert said == [(5 + FULL_AFTER_S, RAISED), (46 + FREE_AFTER_S, CLEARED)]
