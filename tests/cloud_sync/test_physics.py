"""The simulated machines: they wear out by their laws, stop, are repaired, and can be put down and taken up."""

import json
import tomllib

import numpy as np
import pytest

from cloud_sync.simulation.physics import REPAIR_S, TYPES, Fleet, Machine, tags_of
from cloud_sync.simulation.plant import EQUIPMENT, UNITS, equipment_toml, machines

START_S = 1_790_000_000.0


@pytest.mark.parametrize("type", TYPES)
def test_the_same_seed_tells_the_same_story(type: str) -> None:
    one, same, other = Machine(type, 3), Machine(type, 3), Machine(type, 4)
    story = [one.step(60.0) for _ in range(50)]
    assert [same.step(60.0) for _ in range(50)] == story
    assert [other.step(60.0) for _ in range(50)] != story
    assert list(story[0]) == [*tags_of(type), "running"]
    assert all(type_of is float for type_of in (type_of.__class__ for type_of in list(story[0].values())[:-1]))


@pytest.mark.parametrize("type", TYPES)
def test_a_stopped_plant_goes_on_exactly_where_it_stopped(type: str) -> None:
    """The state goes through JSON: the value a second later is the same as without the stop, to the last digit."""
    machine = Machine(type, 8, start_s=START_S)
    for _ in range(100):
        machine.step(7.0)
    again = Machine.from_state(json.loads(json.dumps(machine.state())))
    assert [again.step(7.0) for _ in range(100)] == [machine.step(7.0) for _ in range(100)]


def test_a_pump_shakes_then_heats_then_stops_and_is_repaired() -> None:
    """Bearing wear: vibration rises hours before the end; after four hours of repair it runs as new."""
    pump = Machine("pump", 2, {"bearing wear": 60.0, "cavitation": 900.0}, START_S)
    told = [pump.step(60.0) for _ in range(60)]
    while not pump.failed:
        told.append(pump.step(60.0))
    early = float(np.mean([each["vibration_de"] for each in told[:60]]))
    middle = float(np.mean([each["vibration_de"] for each in told[-12 * 60 : -11 * 60]]))
    late = float(np.mean([each["vibration_de"] for each in told[-61:-1]]))
    assert early < 2.2 < middle < 5.5 < late
    assert told[-2]["bearing_temperature"] > told[60]["bearing_temperature"] + 10
    assert told[-1]["running"] is False and pump.remaining_life_s == 0.0
    stopped = 1
    while pump.failed:
        said = pump.step(60.0)
        stopped += 1
        if pump.failed:
            assert said["flow"] < 1.0 and said["motor_current"] < 1.0 and said["vibration_de"] < 0.3
    assert stopped == pytest.approx(REPAIR_S / 60, abs=2)
    assert pump.remaining_life_s > 90 * 3600


@pytest.mark.parametrize("type", TYPES)
def test_the_step_does_not_matter(type: str) -> None:
    """Steps of 5 s and of 60 s have the same mean and the same noise."""
    small = np.array([Machine(type, seed).step(5.0)[tags_of(type)[0]] for seed in range(300)])
    large = np.array([Machine(type, seed).step(60.0)[tags_of(type)[0]] for seed in range(300)])
    assert small.mean() == pytest.approx(large.mean(), rel=0.01)
    fleets = [Fleet(type, 1, 1), Fleet(type, 1, 1)]
    fine = np.array([fleets[0].step(5.0)[:, 0] for _ in range(6000)])
    coarse = np.array([fleets[1].step(60.0)[:, 0] for _ in range(500)])
    np.testing.assert_allclose(np.diff(fine[::12], axis=0).std(axis=0), np.diff(coarse, axis=0).std(axis=0), rtol=0.35)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_due_in_the_demo(seed: int) -> None:
    """pmp-204 has five to seven hours of real running left whatever the time of day; everybody else is healthy."""
    plant = machines(seed, START_S + seed * 17_000)
    by_id = {path.rsplit("/", 1)[1]: machine for path, machine in plant.items()}
    assert len(by_id) == 18
    assert by_id["mtr-332"].mode == "winding over-temperature" and by_id["cmp-102"].mode == "filter clogging"
    assert 20 < by_id["mtr-332"].remaining_life_s / 3600 < 42
    assert 85 < by_id["cmp-102"].remaining_life_s / 3600 < 110
    others = [machine for name, machine in by_id.items() if name not in {"pmp-204", "mtr-332", "cmp-102"}]
    assert min(machine.remaining_life_s for machine in others) > 8 * 86_400
    pump, hours = by_id["pmp-204"], 0.0
    while not pump.failed:
        pump.step(60.0)
        hours += 1 / 60
    assert 4.7 < hours < 7.3


def test_the_plant_as_configuration() -> None:
    """Names, units and limits as TOML; no healthy machine is beyond a limit, and each limit is reached in the end."""
    sections = tomllib.loads(equipment_toml())["equipment"]
    assert [each["path"] for each in sections] == [each.path for each in EQUIPMENT]
    plant = machines(1, START_S)
    for section, equipment in zip(sections, EQUIPMENT, strict=True):
        assert section["units"] == {tag: UNITS[tag] for tag in equipment.tags}
        said = plant[equipment.path].step(60.0)
        for limit in section["limit"]:
            assert said[limit["tag"]] < limit.get("high", 1e9) and said[limit["tag"]] > limit.get("low", -1e9)
