"""The drain measured: what a backlog needs to leave for a hub. Part of `make bench-buffer`.

The hub is the emulator, the log is filled and drained by processes of their own, so that memory and processor time
are those of the appliance's side alone. All of them share the machine's cores.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from azure.eventhub import EventData
from azure.eventhub.aio import EventHubProducerClient
from processes import Program, connection_string, free_port, listens, until

from appliance.bridge.bridge import Bridge
from appliance.bridge.eventhubs import EventHubsUplink
from appliance.bridge.folder import FolderUplink
from appliance.bridge.pacing import Pace
from appliance.buffer import keeper
from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Reading, Stream
from cloud_sync.simulation.plant import machines

TAGS: Final = 1_000
START_US: Final = 1_790_000_000_000_000
SIMULATED_SECONDS: Final = 100
"""So many seconds of the plant are simulated; longer logs say them again at later times."""
APPEND: Final = 5_000
SAVED_UP_BYTES: Final = 1_100_000
"""What the hub has saved up of its throughput is gone after so many bytes; rates are taken behind it."""
FOLLOWERS: Final = ("predictor", "alarms", "republish")
UNIT: Final = 1


def plant_seconds(decimals: int | None) -> list[list[Reading]]:
    """Seconds of 1,000 tags of simulated plants; with `decimals`, as a recording would have rounded them."""
    plants = [machines(seed) for seed in range(1, 12)]
    seconds = []
    for second in range(SIMULATED_SECONDS):
        at = START_US + second * 1_000_000
        said = [
            (
                f"{path.replace('northfield', f'site{site}')}/{tag}",
                value if decimals is None else round(value, decimals),
            )
            for site, plant in enumerate(plants)
            for path, equipment in plant.items()
            for tag, value in equipment.step(1.0).items()
        ]
        seconds.append(
            [
                Reading(topic, value, 192, at, at, at + 40_000 + i * 20, "opcua:plant")
                for i, (topic, value) in enumerate(said[:TAGS])
            ]
        )
    return seconds


def log_entries(count: int, decimals: int | None) -> Iterator[list[Reading]]:
    """The entries of a log of so many readings, in appends."""
    seconds = plant_seconds(decimals)
    waiting: list[Reading] = []
    for second in range(count // TAGS):
        turn_us = second // SIMULATED_SECONDS * SIMULATED_SECONDS * 1_000_000
        for topic, value, quality, source, server, arrival, origin in seconds[second % SIMULATED_SECONDS]:
            waiting.append(
                Reading(topic, value, quality, source + turn_us, server + turn_us, arrival + turn_us, origin)
            )
        if len(waiting) >= APPEND:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


async def fill(path: Path, count: int, decimals: int | None) -> None:
    """Make a log that every follower has read but the Bridge, sealed as far as full blocks go."""
    keeper.SEAL_AGE_S = 0.5
    async with Buffer.open(path, "northfield") as buffer:
        for entries in log_entries(count, decimals):
            await buffer.append(entries)
        for name in FOLLOWERS:
            for stream in Stream:
                await (await buffer.cursor(name, stream)).advance(buffer.last(stream))
        async with asyncio.timeout(120):
            while buffer.keeper.sealed_to[Stream.READINGS] < buffer.last():  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.05)


async def drain(path: Path, port: int, units: float, count: int) -> dict[str, float]:
    """Send `count` readings of a log; gives the rates behind the first acknowledgements."""
    async with Buffer.open(path, "northfield") as buffer:
        waiting = buffer.last()
        uplink = EventHubsUplink.from_connection_string(connection_string(port), "readings")
        bridge = Bridge(buffer, uplink, FolderUplink(path.parent / "refused"), Pace(throughput_units=units))
        sending = asyncio.create_task(bridge.run())
        begun = await _sent(bridge, SAVED_UP_BYTES if units else 1, 0, sending)
        ended = await _sent(bridge, 0, min(count, waiting), sending)
        sending.cancel()
        await asyncio.wait([sending])
    readings, size, wall_s, cpu_s = (after - before for before, after in zip(begun, ended, strict=True))
    return {
        "waiting": waiting,
        "readings": readings,
        "per_s": readings / wall_s,
        "per_cpu_s": readings / cpu_s,
        "bytes_each": size / readings,
    }


async def _sent(bridge: Bridge, size: int, readings: int, sending: asyncio.Task[None]) -> tuple[float, ...]:
    """Wait until so much is acknowledged; gives readings, bytes, wall time, processor time."""
    while not sending.done():
        lanes = bridge.status().lanes.values()
        done = sum(lane.entries for lane in lanes), sum(lane.bytes for lane in lanes)
        if done[0] >= max(1, readings) and done[1] >= size:
            return float(done[0]), float(done[1]), time.perf_counter(), time.process_time()
        await asyncio.sleep(0.005)
    raise AssertionError(f"the Bridge has ended: {sending.exception()!r}")


async def events_each(path: Path, port: int, seconds: float, per_s: int | None) -> dict[str, float]:
    """One event for each reading through the same SDK, in batches as large as it allows or `per_s` asks for."""
    entries = [entry for part in log_entries(20_000, None) for entry in part]
    bodies = [json.dumps(dict(zip(Reading._fields, entry, strict=True))).encode() for entry in entries]
    client = EventHubProducerClient.from_connection_string(connection_string(port), eventhub_name="readings")
    async with client:
        await client.send_batch([EventData(bodies[0])])
        sent, at, started, cpu_s = 0, 0, time.perf_counter(), time.process_time()
        while (passed_s := time.perf_counter() - started) < seconds:
            if per_s is not None and sent >= per_s * passed_s:
                await asyncio.sleep(0.01)
                continue
            batch = await client.create_batch()
            while per_s is None or len(batch) < per_s // 10:
                try:
                    batch.add(EventData(bodies[at % len(bodies)]))
                except ValueError:
                    break  # The batch is full.
                at += 1
            await client.send_batch(batch)
            sent += len(batch)
        passed_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    return {"per_s": sent / passed_s, "per_cpu_s": sent / cpu_s, "bytes_each": len(bodies[0])}


@contextmanager
def hub(folder: Path, units: int = 0) -> Iterator[int]:
    """An emulator of its own; gives its port."""
    port = free_port()
    data = Path(tempfile.mkdtemp(dir=folder))
    arguments = ("emulate", "--port", str(port), "--data", data, "--throughput-units", str(units))
    with Program("plantward-cloud", *arguments, log=folder / "hub.log"):
        until(lambda: listens(port), "the emulator")
        yield port
    shutil.rmtree(data)


def apart(*arguments: object) -> dict[str, float]:
    """Run a part of this file as a process of its own; gives what it says."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, check=True, timeout=1_800
    )
    said: dict[str, float] = json.loads(done.stdout)
    return said


def drained(folder: Path, log_file: Path, units: int = 0, count: int = sys.maxsize) -> dict[str, float]:
    """Drain a copy of a log."""
    with tempfile.TemporaryDirectory(dir=folder) as name, hub(folder, units) as port:
        copy = Path(name) / "buffer.db"
        shutil.copyfile(log_file, copy)
        return apart("drain", copy, port, units, count)


def filled(folder: Path, count: int, decimals: int | None = None) -> Path:
    path = folder / f"log-{count}-{decimals}.db"
    apart("fill", path, count, -1 if decimals is None else decimals)
    return path


def main() -> None:
    """One part, as `apart` runs it."""
    options = argparse.ArgumentParser(description=__doc__)
    parts = options.add_subparsers(dest="part", required=True)
    for name, *names in (
        ("fill", "count", "decimals"),
        ("drain", "port", "units", "count"),
        ("each", "port", "seconds", "per_s"),
    ):
        part = parts.add_parser(name)
        part.add_argument("path", type=Path)
        for each in names:
            part.add_argument(each, type=int)
    asked = options.parse_args()
    said: dict[str, Any] | None
    if asked.part == "fill":
        said = asyncio.run(fill(asked.path, asked.count, None if asked.decimals < 0 else asked.decimals))  # type: ignore[func-returns-value]
    elif asked.part == "drain":
        said = asyncio.run(drain(asked.path, asked.port, asked.units, asked.count))
    else:
        said = asyncio.run(events_each(asked.path, asked.port, asked.seconds, asked.per_s or None))
    print(json.dumps(said or {}))


if __name__ == "__main__":
    main()
