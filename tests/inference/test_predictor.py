"""The Predictor on a real log: it announces what is due, keeps quiet about the rest, and survives restarts."""

import asyncio
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest

from appliance.buffer.buffer import Buffer
from appliance.contract.prediction import PREDICTION_ORIGIN, Prediction
from appliance.contract.reading import Quality, Reading, Stream
from appliance.inference.model import Model
from appliance.inference.predictor import EXPLAINED_FROM, Predictor
from cloud_sync.simulation.plant import EQUIPMENT, Equipment, machines

START_S = 1_790_000_000.0
DUE = next(each for each in EQUIPMENT if each.id == "pmp-204")
FEW = tuple(each for each in EQUIPMENT if each.id in {"pmp-204", "mtr-331", "prs-110"})


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load()


def told(equipment: tuple[Equipment, ...], minutes: int, seed: int = 1) -> list[Reading]:
    """What these machines say in their first minutes, once a minute."""
    all_ = machines(seed, START_S)
    readings = []
    for _ in range(minutes):
        for each in equipment:
            machine = all_[each.path]
            said = machine.step(60.0)
            at_us = round(machine.at_s * 1e6)
            readings += [
                Reading(f"{each.path}/{tag}", value, Quality.GOOD, at_us, at_us, at_us, "test")
                for tag, value in said.items()
            ]
    return readings


async def follow(buffer: Buffer, model: Model, equipment: tuple[Equipment, ...]) -> None:
    """Run a predictor until it has durably followed the log to its end, then cut it off."""
    predictor = Predictor(buffer, await buffer.cursor("predictor"), model, equipment, lambda: 0)
    task = asyncio.create_task(predictor.run())
    deadline = monotonic() + 20
    while (await buffer.cursor("predictor")).seq < buffer.last():
        assert monotonic() < deadline and not task.done()
        await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def predictions(buffer: Buffer) -> list[Prediction]:
    batch = await buffer.read(Stream.EVENTS, 0, 100_000)
    assert all(entry.origin == PREDICTION_ORIGIN for entry in batch.entries)
    return [Prediction.from_entry(entry) for entry in batch.entries]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_pump_that_is_due_is_announced_and_nobody_else(tmp_path: Path, model: Model, seed: int) -> None:
    """Ninety minutes of the whole plant, as in the first 90 s of the demo: pmp-204 is named, with its signs."""
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await buffer.append(told(EQUIPMENT, 90, seed))
        await follow(buffer, model, EQUIPMENT)
        made = await predictions(buffer)
    of_pump = [each for each in made if each.equipment == DUE.path]
    assert len(of_pump) > 60
    last = of_pump[-1]
    assert all(each.probability >= model.threshold for each in of_pump)
    assert last.mode == "bearing wear"
    assert last.signs[0].tag == "vibration_de" and last.signs[0].value > last.signs[0].normal_high
    assert last.signs[0].unit == "mm/s" and 1 <= len(last.signs) <= 3
    assert last.life_high_s is not None and last.life_low_s < 5 * 3600 < last.life_high_s + 3600 * 3
    assert last.health < 30
    due = {"pmp-204", "mtr-332"}
    healthy = [each for each in made if each.equipment.rsplit("/", 1)[1] not in due]
    assert len({each.equipment for each in healthy}) == 16
    assert max(each.probability for each in healthy) < EXPLAINED_FROM * model.threshold
    assert all(each.signs == () and each.mode == "" for each in healthy)


async def test_a_restart_neither_repeats_nor_skips_a_minute(tmp_path: Path, model: Model) -> None:
    """Cut off at odd places, through the pump's failure and repair: the same predictions as in one run."""
    readings = told(FEW, 780)
    async with Buffer.open(tmp_path / "whole.db", "northfield") as buffer:
        await buffer.append(readings)
        await follow(buffer, model, FEW)
        expected = await predictions(buffer)
    cuts = [0, 13, 1501, 1502, 4000, 7207, 9111, len(readings)]
    for start, end in pairwise(cuts):
        async with Buffer.open(tmp_path / "cut.db", "northfield") as buffer:
            await buffer.append(readings[start:end])
            await follow(buffer, model, FEW)
            got = await predictions(buffer)
    assert len(expected) > 1800
    assert got == expected


async def test_a_machine_that_stands_still_gets_no_prediction(tmp_path: Path, model: Model) -> None:
    """The pump fails after some hours; while it is repaired nothing is said of it, nor right after its start."""
    readings = told((DUE,), 780)
    still = {each.source_us for each in readings if each.topic.endswith("/running") and each.value is False}
    assert len(still) > 200
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await buffer.append(readings)
        await follow(buffer, model, (DUE,))
        times = [each.at_us for each in await predictions(buffer)]
    stop_us, start_us = min(still), max(still)
    assert [at_us for at_us in times if stop_us + 60_000_000 < at_us <= start_us + 19 * 60_000_000] == []
    assert max(times) > start_us + 20 * 60_000_000
    assert len(times) == len(set(times))


async def test_a_type_the_model_does_not_know_is_left_out(tmp_path: Path, model: Model) -> None:
    unknown = Equipment(DUE.path, "Something else", "turbine", ())
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await buffer.append(told((DUE,), 40))
        await follow(buffer, model, (unknown,))
        assert await predictions(buffer) == []
