"""PlantView and the pages' data, fed through a real Buffer."""

import asyncio
from dataclasses import replace

from appliance.contract.prediction import Alarm, AlarmState
from appliance.contract.reading import Quality, Reading, Stream
from appliance.supervisor import now_us, supervise
from appliance.ui import view as view_module
from appliance.ui.detail import detail
from appliance.ui.overview import overview
from appliance.ui.search import find_at
from appliance.ui.view import PlantView


async def test_the_overview_says_what_needs_attention_and_what_to_do(plant, paths) -> None:
    """A failing pump heads the page with its interval and advice; the others are normal, stopped or silent."""
    await plant.feeder.past()
    await plant.feeder.alarm()
    await plant.caught_up()
    page = overview(plant.view)
    assert page.heading == "1 machine needs attention"
    (card,) = page.attention
    assert (card.id, card.priority, card.message, card.since) == ("PMP-204", 1, "Bearing wear", "25 min")
    assert card.outlook is not None
    assert (card.outlook.life, card.outlook.life_unit, card.outlook.horizon) == ("4 – 7", "h", "24 h")
    assert "standby" in card.advice
    tiles = {tile.id: tile for area in page.areas for tile in area.tiles}
    assert [area.name for area in page.areas] == ["Utilities", "Packaging"]
    assert (tiles["PMP-203"].badge, tiles["FAN-311"].badge, tiles["PMP-204"].signal) == (
        "Stopped",
        "No data",
        "DE vibration",
    )
    assert tiles["PMP-204"].spark is not None
    assert tiles["FAN-311"].is_stale


async def test_a_cleared_alarm_leaves_the_attention_and_stays_in_the_events(plant, paths) -> None:
    """Raised, then cleared: nothing needs attention, and the equipment's page tells both."""
    await plant.feeder.past(60)
    await plant.feeder.alarm()
    await plant.feeder.alarm(AlarmState.CLEARED)
    await plant.caught_up()
    assert overview(plant.view).heading == "No machine needs attention"
    machine = plant.view.find("pmp-204")
    assert machine is not None
    assert [event.is_raised for event in detail(plant.view, machine).events] == [False, True]


async def test_what_arrives_without_being_configured_is_shown_under_its_area(plant, paths) -> None:
    """Replayed data from 2015 gets a tile and a page whose trends end at its own newest source time."""
    at_us = 1_420_092_000_000_000
    await plant.feeder.say(f"{paths.REPLAYED}/voltage", 176.2, at_us)
    await plant.feeder.past(30)
    await plant.caught_up()
    assert [area.name for area in overview(plant.view).areas] == ["Utilities", "Packaging", "Pdm · Hall"]
    machine = plant.view.find("m1")
    assert machine is not None
    assert machine.newest_us == at_us
    assert plant.view.clock_us() == plant.feeder.end_us, "a replay does not move the plant's clock"


async def test_two_replays_of_one_moment_are_told_apart_by_arrival(plant, paths) -> None:
    """The same source time twice: both readings are found, each with its own message id."""
    at_us = 1_420_092_000_000_000
    first = await plant.feeder.say(f"{paths.REPLAYED}/voltage", 176.2, at_us)
    for minute in range(1, 60):
        await plant.feeder.say(f"{paths.REPLAYED}/voltage", 170.0, at_us + minute * 60_000_000)
    second = await plant.feeder.say(f"{paths.REPLAYED}/voltage", 176.2, at_us)
    found = await find_at(plant.buffer, paths.REPLAYED, at_us)
    assert [seq for seq, _ in found.readings] == [second, first]
    assert found.is_whole
    await plant.caught_up()
    rows = detail(plant.view, plant.view.machines[paths.REPLAYED], found).readings
    assert len({row.message_id for row in rows}) == 2


async def test_topics_of_any_shape_are_survived(plant, paths) -> None:
    """With enforcement off anything can be a topic, and its value anything."""
    for topic in ("x", "a//b", "<script>/y", "a/b/c/d/e/f/g/h", "/lead"):
        await plant.feeder.say(topic, "<script>alert(1)</script>")
        await plant.feeder.say(topic, float("nan"))
    await plant.buffer.append(
        [Reading("e/_prediction", "{not json", Quality.GOOD, 0, 0, 0, "prediction")], Stream.EVENTS
    )
    await plant.caught_up()
    page = overview(plant.view)
    assert sum(len(area.tiles) for area in page.areas) == 4 + 4, "topics of one level share a tile"
    assert plant.view.dropped == 1
    for machine in plant.view.machines.values():
        detail(plant.view, machine)


async def test_a_restarted_view_reads_back_the_log(plant, paths) -> None:
    """A new follower shows what was there before it."""
    await plant.feeder.past(120)
    await plant.feeder.alarm()
    await plant.caught_up()
    again = PlantView(plant.buffer, [], now_us)
    async with supervise() as parts:
        parts.start("again", again.run)
        await paths.until(lambda: again.is_caught_up)
    assert len(again.alarms) == 1
    old, new = plant.view.history(f"{paths.PUMP}/flow"), again.history(f"{paths.PUMP}/flow")
    assert old is not None and new is not None
    new[2].settle()
    old[2].settle()
    assert new[2].minutes.spans == old[2].minutes.spans


async def test_an_alarm_raised_long_ago_stands_after_a_restart(plant, paths, monkeypatch) -> None:
    """More events came since than the page reads back; it is cleared then, and stays so after the next restart."""
    monkeypatch.setattr(view_module, "READ_BACK_MAX", {Stream.READINGS: 10, Stream.EVENTS: 10})
    await plant.feeder.alarm()
    (alarm,) = await stood(plant, paths)
    for standing, state in ((1, AlarmState.RAISED), (0, AlarmState.CLEARED)):
        if state is AlarmState.CLEARED:
            await plant.buffer.append([replace(alarm, state=state).entry(now_us())], Stream.EVENTS)
        other = [Reading("a/s/r/l/c/m/t", "said", 192, 0, 0, 0, "x")] * 30
        for again in (other, []):
            await plant.buffer.append(again, Stream.EVENTS)
            assert len(await stood(plant, paths)) == standing


async def stood(plant, paths) -> list[Alarm]:
    """The alarms that a new view shows; it is stopped when it has written them down."""
    view = PlantView(plant.buffer, [], now_us)
    async with supervise() as parts:
        parts.start("again", view.run)
        await paths.until(lambda: view.is_caught_up)
        await asyncio.sleep(2 * view_module.POLL_S)
    return list(view.alarms.values())


async def test_memory_is_bounded_however_many_topics_come(plant, paths, monkeypatch) -> None:
    """Topics, machines and spans have limits; what is beyond them is counted."""
    monkeypatch.setattr(view_module, "TOPICS_MAX", 50)
    monkeypatch.setattr(view_module, "MACHINES_MAX", 20)
    monkeypatch.setattr(view_module, "SPANS_MAX", 200)
    view = PlantView(plant.buffer, [], now_us)
    readings = [
        Reading(f"a/s/r/l/c/m{number % 30}/t{number}", 1.0, 192, minute * 60_000_000, 0, 0, "x")
        for minute in range(40)
        for number in range(90)
    ]
    for first in range(0, len(readings), 100):
        view.take(Stream.READINGS, first + 1, readings[first : first + 100])
    status = view.status()
    assert (status.topics, status.machines) == (50, 20)
    assert status.spans <= 200 + 100
    assert status.dropped == 40 * 40
