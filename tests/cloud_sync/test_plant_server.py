"""The simulated plant behind its OPC UA server, followed by the appliance's own connector."""

import asyncio
import contextlib
import json
import socket
import time
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from asyncua.client.client import Client

from appliance.connectors.opcua import OpcUaConnector
from appliance.connectors.opcua_status import Pace
from appliance.contract.reading import Reading
from appliance.supervisor import now_us
from cloud_sync.simulation.plant import EQUIPMENT
from cloud_sync.simulation.recording import SETS_MAX, Recording
from cloud_sync.simulation.server import PlantServer, period_of, serve

SEED = 7
FAST = 1000.0
START_US = 1_772_366_400_000_000


@dataclass(frozen=True)
class Source:
    endpoint: str
    name: str = "plant"
    browse: str = "ns=2;s=acme/northfield"
    topic: str = "{id}"
    tag: tuple[()] = ()
    publishing_interval_ms: int = 100
    sampling_interval_ms: int = 0
    queue_size: int = 100


class Log:
    """The appliance's log across its restarts."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.has_died = False
        self.is_hanging = False

    async def append(self, readings: Sequence[Reading]) -> None:
        self.readings.extend(readings)
        if self.has_died:
            self.is_hanging = True
            await asyncio.Event().wait()  # committed, and dead before the acknowledgement

    async def latest(self) -> Mapping[str, int]:
        return {reading.topic: reading.source_us for reading in self.readings}

    @property
    def moments(self) -> list[int]:
        return sorted({reading.source_us for reading in self.readings})


async def until(is_so: Callable[[], object], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so in time"
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(work: object) -> AsyncIterator[None]:
    task = asyncio.create_task(work.run())  # type: ignore[attr-defined]
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def connector_of(plant: PlantServer, log: Log) -> OpcUaConnector:
    pace = Pace(retry_s_min=0.1, retry_s_max=0.3, keep_alive_s=1.0)
    return OpcUaConnector(Source(plant.endpoint), log.append, now_us, log.latest, pace)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def delivered(data: Path) -> set[tuple[str, int, float | bool]]:
    lines = (data / "delivered.jsonl").read_text("utf-8").splitlines()
    return {(topic, at_us, value) for line in lines for topic, at_us, value in json.loads(line)["values"]}


def test_samples_are_as_frequent_as_the_rate_allows() -> None:
    """At the wall clock's pace a sample each second; faster, the values per second stay bounded."""
    assert [period_of(speed, 101) for speed in (0.5, 1, 60, 300, 1000)] == [1, 1, 5, 30, 90]
    assert period_of(1e9, 101) == 3600


def test_the_recording_continues_exactly_where_it_stopped(tmp_path: Path) -> None:
    """Opened again before each step, it says the same as one that was never closed."""
    whole = Recording.open(tmp_path / "whole.json", SEED, START_US)
    whole.step(60, 5)
    for _ in range(5):
        Recording.open(tmp_path / "parts.json", SEED, START_US).step(60, 1)
    parts = Recording.open(tmp_path / "parts.json", SEED, START_US + 999)
    expected = whole.unsaid()
    assert [each.at_us for each in expected] == [START_US + minute * 60_000_000 for minute in range(6)]
    assert parts.unsaid() == expected
    assert set(expected[0].values) == {f"{each.path}/{tag}" for each in EQUIPMENT for tag in (*each.tags, "running")}


def test_the_recording_waits_for_acknowledgements(tmp_path: Path) -> None:
    """Unacknowledged samples are bounded, and said again after a rewind; released ones are not."""
    recording = Recording.open(tmp_path / "plant.json", SEED, START_US)
    recording.step(1, 10 * SETS_MAX)
    assert recording.is_full and len(recording.unsaid()) == SETS_MAX
    recording.release(START_US + 9_000_000)
    first = recording.rewind()
    assert first.at_us == START_US + 10_000_000
    assert recording.unsaid()[0].at_us == START_US + 11_000_000
    recording.release(recording.now_us)
    assert recording.rewind().at_us == recording.now_us
    assert recording.unsaid() == []


def test_a_foreign_state_file_is_refused(tmp_path: Path) -> None:
    """Another seed, or no state at all: the plant says what to do, and overwrites nothing."""
    path = tmp_path / "plant.json"
    Recording.open(path, SEED, START_US)
    with pytest.raises(ValueError, match=r"was made with seed 7, not 8; delete it"):
        Recording.open(path, 8, START_US)
    path.write_text("{}", "utf-8")
    with pytest.raises(ValueError, match=r"is not the state of a simulated plant .*delete it"):
        Recording.open(path, SEED, START_US)
    assert path.read_text("utf-8") == "{}"


async def test_no_sample_is_lost_or_doubled_when_either_side_dies(tmp_path: Path) -> None:
    """The appliance dies with values on the way, the plant is restarted: the log has each sample exactly once."""
    log = Log()
    async with PlantServer(tmp_path, free_port(), FAST, SEED) as plant, running(plant):
        start_us = plant.recording.now_us
        port = plant.port
        await asyncio.sleep(1.1)  # two ticks: plant time stands still while nobody listens
        assert plant.recording.now_us == start_us
        dying = connector_of(plant, log)
        async with running(dying):
            await until(lambda: len(log.moments) > 10)
            log.has_died = True
            await until(lambda: log.is_hanging and plant.recording.now_us > log.moments[-1] + 500_000_000)
            dying._link.cut()  # as a killed process leaves: without a good-bye
        log.has_died = False
        told_again = connector_of(plant, log)
        async with running(told_again):
            count = len(log.moments)
            await until(lambda: len(log.moments) > count + 10)
            assert told_again.status().repeated > 0
    async with PlantServer(tmp_path, port, FAST, SEED) as plant:
        connector = connector_of(plant, log)
        async with running(connector):
            async with running(plant):
                count = len(log.moments)
                await until(lambda: len(log.moments) > count + 10)
    period_us = period_of(FAST, 101) * 1_000_000
    assert log.moments == list(range(start_us, log.moments[-1] + 1, period_us))
    said = [(reading.topic, reading.source_us, reading.value) for reading in log.readings]
    assert len({(topic, at_us) for topic, at_us, _ in said}) == len(said) == 101 * len(log.moments)
    reference = Recording.open(tmp_path / "reference.json", SEED, start_us)
    expected = {}
    for _ in log.moments:
        expected.update(
            {(topic, each.at_us): value for each in reference.unsaid() for topic, value in each.values.items()}
        )
        reference.release(reference.now_us)
        reference.step(period_us // 1_000_000, 1)
    assert {(topic, at_us): value for topic, at_us, value in said} == expected
    assert delivered(tmp_path) <= set(said)


async def test_serve_stops_at_once_and_tells_a_taken_port(tmp_path: Path) -> None:
    """The plant's whole life from outside: ready, equipment written, units readable, port taken, stopped quickly."""
    port, ready = free_port(), asyncio.Event()
    task = asyncio.create_task(serve(tmp_path / "plant", port, 1.0, SEED, tmp_path / "equipment.toml", ready.set))
    await asyncio.wait_for(ready.wait(), 20)
    document = tomllib.loads((tmp_path / "equipment.toml").read_text("utf-8"))
    assert [each["path"] for each in document["equipment"]] == [each.path for each in EQUIPMENT]
    path = "acme/northfield/utilities/boiler-house/feed/pmp-204"
    async with Client(f"opc.tcp://127.0.0.1:{port}") as client:
        unit = await client.get_node(f"ns=2;s={path}/flow.EngineeringUnits").read_value()
        assert unit.DisplayName.Text == "m3/h"
        assert await client.get_node(f"ns=2;s={path}/running").read_value() is True
    with pytest.raises(OSError, match=rf"port {port} on 127.0.0.1 is taken; .*--port"):
        await serve(tmp_path / "other", port, 1.0, SEED)
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 2.0
