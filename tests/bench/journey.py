"""The journey measured: durable ingest, the whole way to silver, latency, memory. Run by `make bench`."""

import argparse
import asyncio
import csv
import datetime
import json
import os
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from gmqtt import Client, Message
from processes import Program, free_port, listens, resident_mb, rows, until, write_cloud, write_plant

from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Reading
from appliance.replay import replay

GROUP = 500
TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-{machine}/tag{tag}"


def readings(count: int) -> list[Reading]:
    """Readings of 18 machines with 6 tags, one second apart, with noise like a sensor's."""
    chance, start = random.Random(1), 1_790_000_000_000_000
    times = [start + i // 108 * 1_000_000 for i in range(count)]
    return [
        Reading(
            TOPIC.format(machine=i % 18, tag=i % 6), round(chance.gauss(5, 1), 3), 192, at, at, at + i % 108, "opcua:p"
        )
        for i, at in enumerate(times)
    ]


def ours_grouped(folder: Path, entries: list[Reading], producers: int) -> float:
    """Readings a second through `append`, by so many producers at once."""

    async def measure() -> float:
        async with Buffer.open(folder / "ours.db", "northfield") as buffer:

            async def produce(mine: list[Reading], step: int) -> None:
                for at in range(0, len(mine), step):
                    await buffer.append(mine[at : at + step])

            step = GROUP if producers == 1 else 1
            started = time.perf_counter()
            await asyncio.gather(*(produce(entries[p::producers], step) for p in range(producers)))
            return len(entries) / (time.perf_counter() - started)

    return asyncio.run(measure())


def plain_table(folder: Path, entries: list[Reading], group: int) -> float:
    """Readings a second into a plain table, one row each, WAL and FULL, one commit for each group."""
    with sqlite3.connect(folder / "plain.db", isolation_level=None) as db:
        db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
            "CREATE TABLE reading(seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT,"
            " value, quality INT, source_us INT, server_us INT, arrival_us INT, origin TEXT)"
        )
        started = time.perf_counter()
        for at in range(0, len(entries), group):
            db.execute("BEGIN")
            db.executemany("INSERT INTO reading VALUES(NULL,?,?,?,?,?,?,?)", entries[at : at + group])
            db.execute("COMMIT")
        elapsed = time.perf_counter() - started
    db.close()
    return len(entries) / elapsed


def paired(rounds: int, ours: Callable[[Path], float], theirs: Callable[[Path], float]) -> tuple[float, float]:
    """Medians of both, measured in turn."""
    results: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for work, into in zip((ours, theirs), results, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                into.append(work(Path(folder)))
    return statistics.median(results[0]), statistics.median(results[1])


def whole_way(count: int, probes: int) -> dict[str, float]:
    """From an MQTT publisher through appliance, Event Hubs endpoint and companion into silver, as real processes."""
    mqtt, http, amqp = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plant, cloud = write_plant(folder, mqtt, http, amqp), write_cloud(folder, amqp)
        source = folder / "recorded.csv"
        with source.open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["time", "machine", "volt", "rotate", "pressure", "vibration"])
            start, chance = datetime.datetime(2026, 1, 1), random.Random(2)
            for i in range(count // 4):
                stamp = start + datetime.timedelta(seconds=i // 12)
                lines.writerow([stamp.isoformat(sep=" "), i % 12, *(round(chance.gauss(100, 9), 3) for _ in range(4))])
        with (
            Program(
                "plantward-cloud", "emulate", "--port", str(amqp), "--data", folder / "hub", log=folder / "hub.log"
            ),
            Program("plantward", "run", "--config", plant, log=folder / "plant.log") as appliance,
            Program("plantward-cloud", "run", "--config", cloud, log=folder / "cloud.log"),
        ):
            until(lambda: listens(mqtt) and listens(amqp), "the programs")
            latency = asyncio.run(latencies(mqtt, folder / "lake", probes))
            template = "acme/bench/hall/line1/cell1/m{machine}/{column}"
            started = time.perf_counter()
            done = asyncio.run(replay(source, "127.0.0.1", mqtt, template, "time", 0, lambda *_: None))
            published_s = time.perf_counter() - started
            total = done + probes
            until(lambda: silver_count(folder / "lake") >= total, "all readings in silver", 300)
            whole_s = time.perf_counter() - started
            assert silver_count(folder / "lake") == total, "silver holds more than was published"
            memory = resident_mb(appliance.process.pid)
    return {**latency, "publish": done / published_s, "whole": done / whole_s, "memory": memory}


def silver_count(lake: Path) -> int:
    found = rows(lake, "silver/readings", "SELECT count(*) FROM t")
    return int(found[0][0]) if found else 0


async def latencies(mqtt: int, lake: Path, probes: int) -> dict[str, float]:
    """Medians: publish to delivery on the UNS (each is committed first), and publish to a row in silver."""
    arrived: asyncio.Queue[str] = asyncio.Queue()
    listener, publisher = Client("bench-listener"), Client("bench-publisher")

    async def on_message(_: object, topic: str, payload: bytes, *__: object) -> int:
        arrived.put_nowait(topic)
        return 0

    listener.on_message = on_message
    await listener.connect("127.0.0.1", mqtt)
    await publisher.connect("127.0.0.1", mqtt)
    listener.subscribe("acme/probe/#", qos=1)
    uns_ms: list[float] = []
    lake_s: list[float] = []
    for i in range(probes):
        topic = f"acme/probe/a/l/c/e/t{i}"
        started = time.perf_counter()
        publisher.publish(Message(topic, str(i), qos=1))
        await asyncio.wait_for(arrived.get(), 10)
        uns_ms.append((time.perf_counter() - started) * 1e3)
        if i % 10 == 0:
            await asyncio.to_thread(until, lambda t=topic: _stands(lake, t), "the probe in silver", 60)
            lake_s.append(time.perf_counter() - started)
    await publisher.disconnect()
    await listener.disconnect()
    return {"uns_ms": statistics.median(uns_ms), "lake_s": statistics.median(lake_s)}


def _stands(lake: Path, topic: str) -> bool:
    return bool(rows(lake, "silver/readings", f"SELECT 1 FROM t WHERE topic = '{topic}'"))


def row(work: str, unit: str, ours: float, target: float | None, peer: str | None = None, theirs: float | None = None,
        less_is_better: bool = False) -> dict[str, Any]:  # fmt: skip
    met = None if target is None else (ours <= target if less_is_better else ours >= target)
    ratio = ours / theirs if theirs else None
    return {
        "work": work,
        "unit": unit,
        "ours": ours,
        "peer": peer,
        "theirs": theirs,
        "ratio": ratio,
        "target": target,
        "met": met,
    }


def machine() -> dict[str, Any]:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return {
        "cpu": model, "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }  # fmt: skip


def main() -> None:
    """Measure, print the table, write build/bench/journey.json."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="end within a minute")
    quick = options.parse_args().quick
    rounds, many, single = (3, 50_000, 4_000) if quick else (5, 200_000, 20_000)
    entries = readings(many)
    table = []
    ours, theirs = paired(rounds, lambda f: ours_grouped(f, entries, 1), lambda f: plain_table(f, entries, GROUP))
    peer = f"plain SQLite table, {GROUP} rows a commit"
    table.append(row(f"durable ingest, {GROUP} readings an append", "readings/s", ours, 10_000, peer, theirs))
    few = entries[:single]
    ours, theirs = paired(rounds, lambda f: ours_grouped(f, few, 100), lambda f: plain_table(f, few, 1))
    peer = "plain SQLite table, a commit each"
    table.append(row("durable ingest, 100 producers, 1 reading an append", "readings/s", ours, 10_000, peer, theirs))
    way = whole_way(20_000 if quick else 103_680, 20 if quick else 50)
    table += [
        row("MQTT QoS 1 publish acknowledged after the commit", "readings/s", way["publish"], None),
        row("MQTT publisher to row in silver", "readings/s", way["whole"], None),
        row("publish to delivery on the UNS, median", "ms", way["uns_ms"], None, less_is_better=True),
        row("publish to row in silver, median", "s", way["lake_s"], None, less_is_better=True),
        row("appliance, resident memory after it", "MB", way["memory"], 250, less_is_better=True),
    ]
    report = {"bench": "journey", "date": datetime.date.today().isoformat(), "machine": machine(), "rows": table}
    path = Path("build/bench/journey.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print(f"{report['machine']}")
    for line in table:
        beside = f"  {line['theirs']:>12,.1f} {line['peer']}, ratio {line['ratio']:.2f}" if line["peer"] else ""
        print(f"{line['work']:<52} {line['ours']:>12,.1f} {line['unit']:<11}{beside}")


if __name__ == "__main__":
    main()
