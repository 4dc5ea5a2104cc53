"""The Buffer beside raw SQLite: durable append, followers, bytes per reading, the codec. `make bench-buffer`."""

import argparse
import asyncio
import csv
import datetime
import gc
import json
import random
import sqlite3
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import zstandard

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.journey import GROUP, machine, paired, plain_table, row

from appliance.buffer import keeper
from appliance.buffer.buffer import Buffer
from appliance.contract.columns import dumps, to_columns
from appliance.contract.envelope import ENTRIES_MAX, Envelope, Sealed, open_sealed, seal
from appliance.contract.reading import Reading, Stream
from cloud_sync.simulation.plant import machines

RECORDED = Path(__file__).parents[3] / "shared/data/azure_pdm/PdM_telemetry.csv"
FOLLOWERS = 3
TAGS = 1_000
START_US = 1_790_000_000_000_000
DAY_READINGS = TAGS * 86_400


def plant_readings(count: int) -> list[Reading]:
    """One value a second of 1,000 tags: as many simulated plants side by side as that takes."""
    plants = [machines(seed) for seed in range(1, 12)]
    entries: list[Reading] = []
    second = 0
    while len(entries) < count:
        at = START_US + second * 1_000_000
        said = [
            Reading(
                f"{path.replace('northfield', f'site{site}')}/{tag}", value, 192, at, at, at + 40_000, "opcua:plant"
            )
            for site, plant in enumerate(plants)
            for path, equipment in plant.items()
            for tag, value in equipment.step(1.0).items()
        ]
        entries += [entry._replace(arrival_us=entry.arrival_us + i * 20) for i, entry in enumerate(said[:TAGS])]
        second += 1
    return entries[:count]


def recorded_readings(path: Path, count: int) -> list[Reading]:
    """Whole blocks of a recorded set as `plantward replay` sends it: in its order, each message arriving by itself."""
    chance, arrival_us = random.Random(7), START_US
    entries: list[Reading] = []
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            at = int(datetime.datetime.fromisoformat(f"{line.pop('datetime')}+00:00").timestamp()) * 1_000_000
            machine = f"acme/pdm/hall/line1/cell1/m{line.pop('machineID')}"
            for column, value in line.items():
                arrival_us += int(chance.expovariate(1 / 50))
                entries.append(Reading(f"{machine}/{column}", float(value), 192, at, at, arrival_us, "mqtt:replay"))
    return entries[: min(count, len(entries)) // ENTRIES_MAX * ENTRIES_MAX]


def as_real(entries: list[Reading]) -> list[Reading]:
    """The same as a PLC's REAL would say it: floats of 32 bits."""
    return [entry._replace(value=struct.unpack("f", struct.pack("f", entry.value))[0]) for entry in entries]


def rounded(entries: list[Reading]) -> list[Reading]:
    return [entry._replace(value=round(entry.value, 3)) for entry in entries]


def appended(folder: Path, entries: list[Reading], followers: int = 0, producers: int = 1) -> float:
    """Readings a second through `append`, sealing as always, until all of it is durable; followers take part in it."""

    async def measure() -> float:
        async with Buffer.open(folder / "ours.db", "northfield") as buffer:

            async def follow() -> None:
                cursor = await buffer.cursor("follower")
                while cursor.seq < len(entries):
                    cursor.seq = (await cursor.batch(GROUP)).last

            async def produce(number: int) -> None:
                for at in range(number * GROUP, len(entries), producers * GROUP):
                    await buffer.append(entries[at : at + GROUP])

            async with asyncio.TaskGroup() as group:
                for _ in range(followers):
                    group.create_task(follow())
                started = time.perf_counter()
                await asyncio.gather(*map(produce, range(producers)))
                elapsed = time.perf_counter() - started
            return len(entries) / elapsed

    gc.collect()
    return asyncio.run(measure())


def bare_commits(folder: Path, count: int) -> float:
    """Readings a second when nothing but the commit of a small row took time: what the disk allows one producer."""
    with sqlite3.connect(folder / "bare.db", isolation_level=None) as db:
        db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE small(n INTEGER PRIMARY KEY)")
        started = time.perf_counter()
        for _ in range(count // GROUP):
            db.execute("INSERT INTO small VALUES(NULL)")
        elapsed = time.perf_counter() - started
    db.close()
    return count / elapsed


def sealed_rate(seal_one: Callable[[Envelope], Sealed], parts: list[Envelope]) -> float:
    """Readings a second that one core seals."""
    started = time.thread_time()
    for part in parts:
        seal_one(part)
    return sum(len(part.entries) for part in parts) / (time.thread_time() - started)


def opened_rate(parts: list[Sealed]) -> float:
    started = time.thread_time()
    for part in parts:
        open_sealed(part)
    return sum(part.count for part in parts) / (time.thread_time() - started)


def seal_as_json(envelope: Envelope) -> Sealed:
    """The envelope in the codec of before, which is still read."""
    head = {"plant": envelope.plant, "epoch": envelope.epoch, "stream": str(envelope.stream), "first": envelope.first}
    body = zstandard.compress(dumps({**head, **to_columns(envelope.entries)}), 3)
    its = envelope.plant, envelope.epoch, envelope.stream, envelope.first, len(envelope.entries)
    return Sealed(*its, google_crc32c.value(body), body)


def codec_rows(rounds: int, entries: list[Reading]) -> list[dict[str, Any]]:
    parts = [
        Envelope("northfield", 1, Stream.READINGS, at + 1, tuple(entries[at : at + ENTRIES_MAX]))
        for at in range(0, len(entries), ENTRIES_MAX)
    ]
    packed, older = [seal(part) for part in parts], [seal_as_json(part) for part in parts]
    peer = "the JSON codec of before"
    seals = paired(rounds, lambda _: sealed_rate(seal, parts), lambda _: sealed_rate(seal_as_json, parts))
    opens = paired(rounds, lambda _: opened_rate(packed), lambda _: opened_rate(older))
    return [
        row("an envelope sealed, one core", "readings/s", seals[0], None, peer, seals[1]),
        row("an envelope opened, one core", "readings/s", opens[0], None, peer, opens[1]),
    ]


def bytes_each(folder: Path, entries: list[Reading]) -> float:
    """Bytes on disk for one reading when all of it is sealed."""

    async def write() -> None:
        async with Buffer.open(folder / "ours.db", "northfield") as buffer:
            for at in range(0, len(entries), GROUP):
                await buffer.append(entries[at : at + GROUP])
            for _ in range(3_000):
                if buffer.last() - buffer.keeper.sealed_to[Stream.READINGS] < 5_000:
                    break
                await asyncio.sleep(0.01)
            await buffer._store.give_back()

    asyncio.run(write())
    return (folder / "ours.db").stat().st_size / len(entries)


def plain_bytes_each(folder: Path, entries: list[Reading]) -> float:
    plain_table(folder, entries, 5_000)
    with sqlite3.connect(folder / "plain.db") as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return (folder / "plain.db").stat().st_size / len(entries)


def speed_rows(rounds: int, entries: list[Reading]) -> list[dict[str, Any]]:
    raw = f"raw executemany, {GROUP} rows a commit"
    one = paired(rounds, lambda f: appended(f, entries), lambda f: plain_table(f, entries, GROUP))
    four = paired(rounds, lambda f: appended(f, entries, producers=4), lambda f: plain_table(f, entries, GROUP))
    bare = paired(rounds, lambda f: appended(f, entries), lambda f: bare_commits(f, len(entries)))
    followed = paired(rounds, lambda f: appended(f, entries, FOLLOWERS), lambda f: appended(f, entries))
    return [
        row(f"durable append, batches of {GROUP}", "readings/s", one[0], 250_000, raw, one[1]),
        row("the same by 4 producers", "readings/s", four[0], 250_000, raw, four[1]),
        row("the same by one", "readings/s", bare[0], None, "bare commits, one small row each", bare[1]),
        row(f"append with {FOLLOWERS} live followers", "readings/s", followed[0], None, "append alone", followed[1]),
    ]


def size_rows(entries: list[Reading], recorded: Path) -> list[dict[str, Any]]:
    works = {
        "disk per reading, 1,000 tags, full doubles": entries,
        "the same as floats of 32 bits (REAL)": as_real(entries),
        "the same with 3 decimals": rounded(entries),
    }
    if recorded.exists():
        works["disk per reading, azure_pdm as recorded"] = recorded_readings(recorded, len(entries))
    else:
        print(f"azure_pdm is not measured: {recorded} is not on this machine")
    table = []
    for work, its in works.items():
        ours, theirs = paired(1, lambda f, its=its: bytes_each(f, its), lambda f, its=its: plain_bytes_each(f, its))
        table.append(row(work, "B", ours, 8, "one row a reading", theirs, less_is_better=True))
    days = [line["ours"] * DAY_READINGS / 1e9 for line in table[:2]]
    table.append(row("24 h of 1,000 tags at 1 Hz, full doubles", "GB", days[0], 1, less_is_better=True))
    table.append(row("24 h of 1,000 tags at 1 Hz, REAL", "GB", days[1], 1, less_is_better=True))
    return table


def main() -> None:
    """Measure, print the table, write build/bench/buffer.json."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="end within a minute")
    options.add_argument("--recorded", type=Path, default=RECORDED, help="PdM_telemetry.csv of azure_pdm")
    given = options.parse_args()
    quick = given.quick
    rounds, many = (3, 100_000) if quick else (7, 300_000)
    keeper.SEAL_AGE_S = 3_600.0  # The last few loose entries would be sealed by age, after the measurement.
    entries = plant_readings(many)
    gc.collect()
    gc.freeze()  # A process at work does not hold all that it ever received.
    table = [*speed_rows(rounds, entries), *codec_rows(rounds, entries[:100_000]), *size_rows(entries, given.recorded)]
    report = {"bench": "buffer", "date": datetime.date.today().isoformat(), "machine": machine(), "rows": table}
    path = Path("build/bench/buffer.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print(f"{report['machine']}")
    for line in table:
        ratio = line["ratio"] and (
            f"ratio {line['ratio']:.2f}" if line["unit"] != "B" else f"{1 / line['ratio']:.1f}x less"
        )
        beside = f"  {line['theirs']:>12,.1f} {line['peer']}, {ratio}" if line["peer"] else ""
        print(f"{line['work']:<44} {line['ours']:>12,.2f} {line['unit']:<11}{beside}")


if __name__ == "__main__":
    main()
