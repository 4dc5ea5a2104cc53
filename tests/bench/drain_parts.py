"""The parts of the drain's measurement that are processes of their own; `drain.py` starts them."""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from azure.eventhub import EventData
from azure.eventhub.aio import EventHubProducerClient
from processes import connection_string

from appliance.bridge.bridge import Bridge
from appliance.bridge.eventhubs import EventHubsUplink
from appliance.bridge.folder import FolderUplink
from appliance.bridge.pacing import Pace
from appliance.broker.publisher import Publisher
from appliance.buffer import keeper
from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Reading, Stream
from appliance.history.store import HistoryStore
from cloud_sync.simulation.plant import machines

TAGS: Final = 1_000
FULL: Final = -1
"""Decimals of values that are not rounded."""
START_US: Final = 1_790_000_000_000_000
SIMULATED_SECONDS: Final = 100
"""So many seconds of the plant are simulated; longer logs say them again at later times."""
APPEND: Final = 5_000
SAVED_UP_BYTES: Final = 700_000
"""What the hub has saved up of its throughput is gone after so many bytes; rates are taken behind it."""
FOLLOWERS: Final = ("predictor", "alarms", "republish")
WINDOW: Final = 1_000
"""Messages under way to the broker."""


def plant_seconds(decimals: int) -> list[list[Reading]]:
    """Seconds of 1,000 tags of simulated plants; rounded to `decimals`, as a recording would have it."""
    plants = [machines(seed) for seed in range(1, 12)]
    seconds = []
    for second in range(SIMULATED_SECONDS):
        at = START_US + second * 1_000_000
        said = [
            (
                f"{path.replace('northfield', f'site{site}')}/{tag}",
                value if decimals == FULL else round(value, decimals),
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


def log_entries(count: int, decimals: int) -> Iterator[list[Reading]]:
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


async def fill(path: Path, count: int, decimals: int) -> dict[str, float]:
    """Make a log that every follower has read but the Bridge, sealed as far as full blocks go."""
    keeper.SEAL_AGE_S = 0.5
    path.parent.mkdir(parents=True, exist_ok=True)
    async with Buffer.open(path, "northfield") as buffer:
        for entries in log_entries(count, decimals):
            await buffer.append(entries)
        for name in FOLLOWERS:
            for stream in Stream:
                await (await buffer.cursor(name, stream)).advance(buffer.last(stream))
        async with asyncio.timeout(600):
            while buffer.keeper.sealed_to[Stream.READINGS] < buffer.last():  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.05)
        await buffer._store.give_back()  # Each drain copies the file.
        async with HistoryStore.open(path.with_name("history.db")) as history:
            await history.merge({}, buffer.epoch, buffer.last())
        return {"size_bytes": sum(file.stat().st_size for file in path.parent.glob("buffer.db*"))}


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


async def events_each(port: int, seconds: float, per_s: int) -> dict[str, float]:
    """One event for each reading through the same SDK, in batches as large as it allows, or in tenths of `per_s`."""
    entries = [entry for part in log_entries(20_000, FULL) for entry in part]
    bodies = [json.dumps(dict(zip(Reading._fields, entry, strict=True))).encode() for entry in entries]
    client = EventHubProducerClient.from_connection_string(connection_string(port), eventhub_name="readings")
    async with client:
        await client.send_batch([EventData(bodies[0])])
        sent, at, started, cpu_s = 0, 0, time.perf_counter(), time.process_time()
        while (passed_s := time.perf_counter() - started) < seconds:
            if per_s and sent >= per_s * passed_s:
                await asyncio.sleep(0.01)
                continue
            batch = await client.create_batch()
            while not per_s or len(batch) < per_s // 10:
                try:
                    batch.add(EventData(bodies[at % len(bodies)]))
                except ValueError:
                    break  # The batch is full.
                at += 1
            await client.send_batch(batch)
            sent += len(batch)
        passed_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    return {"per_s": sent / passed_s, "per_cpu_s": sent / cpu_s, "bytes_each": len(bodies[0])}


async def load(port: int, seconds: float, per_s: int) -> dict[str, float]:
    """Publish new values over MQTT with QoS 1; gives how many a second the broker has acknowledged."""
    topics = [f"acme/northfield/area/line/cell/m{n // 10}/tag{n % 10}" for n in range(TAGS)]
    chance = random.Random(1)
    publisher, started, sent = await Publisher.connect("127.0.0.1", port, WINDOW), time.perf_counter(), 0
    async with publisher:
        while (passed_s := time.perf_counter() - started) < seconds:
            if sent >= per_s * passed_s:
                await asyncio.sleep(0.005)
                continue
            await publisher.publish(topics[sent % TAGS], b"%.3f" % chance.gauss(50, 5))
            sent += 1
        await publisher.drain()
    return {"per_s": publisher.acknowledged / (time.perf_counter() - started)}


def main() -> None:
    """One part; what it has measured goes to standard output as JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    parts = options.add_subparsers(dest="part", required=True)
    names = {
        "fill": ("path", "count", "decimals"),
        "drain": ("path", "port", "units", "count"),
        "each": ("port", "seconds", "per_s"),
        "load": ("port", "seconds", "per_s"),
    }
    for part, arguments in names.items():
        parser = parts.add_parser(part)
        for argument in arguments:
            parser.add_argument(argument, type=Path if argument == "path" else int)
    asked = options.parse_args()
    values = [getattr(asked, name) for name in names[asked.part]]
    part = {"fill": fill, "drain": drain, "each": events_each, "load": load}[asked.part]
    print(json.dumps(asyncio.run(part(*values))))


if __name__ == "__main__":
    main()
