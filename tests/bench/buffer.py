"""The Buffer beside raw SQLite: durable append, append with live followers, bytes per reading. `make bench-buffer`."""

import argparse
import asyncio
import datetime
import gc
import json
import sqlite3
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.journey import GROUP, machine, paired, plain_table, row

from appliance.buffer import keeper
from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Reading, Stream
from cloud_sync.simulation.plant import machines

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


def appended(folder: Path, entries: list[Reading], followers: int) -> float:
    """Readings a second through `append`, sealing as always, until all of it is durable; followers take part in it."""

    async def measure() -> float:
        async with Buffer.open(folder / "ours.db", "northfield") as buffer:

            async def follow() -> None:
                cursor = await buffer.cursor("follower")
                while cursor.seq < len(entries):
                    cursor.seq = (await cursor.batch(GROUP)).last

            async with asyncio.TaskGroup() as group:
                for _ in range(followers):
                    group.create_task(follow())
                started = time.perf_counter()
                for at in range(0, len(entries), GROUP):
                    await buffer.append(entries[at : at + GROUP])
                elapsed = time.perf_counter() - started
            return len(entries) / elapsed

    gc.collect()
    return asyncio.run(measure())


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


def main() -> None:
    """Measure, print the table, write build/bench/buffer.json."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="end within a minute")
    quick = options.parse_args().quick
    rounds, many = (3, 100_000) if quick else (5, 300_000)
    keeper.SEAL_AGE_S = 3_600.0  # The last few loose entries would be sealed by age, after the measurement.
    entries = plant_readings(many)
    table = []
    ours, theirs = paired(rounds, lambda f: appended(f, entries, 0), lambda f: plain_table(f, entries, GROUP))
    peer = f"raw executemany, {GROUP} rows a commit"
    table.append(row(f"durable append, batches of {GROUP}", "readings/s", ours, 250_000, peer, theirs))
    ours, theirs = paired(rounds, lambda f: appended(f, entries, FOLLOWERS), lambda f: appended(f, entries, 0))
    peer = "append alone"
    table.append(row(f"append with {FOLLOWERS} live followers", "readings/s", ours, None, peer, theirs))
    ours, theirs = paired(1, lambda f: bytes_each(f, entries), lambda f: plain_bytes_each(f, entries))
    peer = "one row a reading"
    table.append(row("disk per reading, 1,000 tags", "B", ours, 8, peer, theirs, less_is_better=True))
    coarse = [entry._replace(value=round(entry.value, 3)) for entry in entries]
    fine = ours
    ours, theirs = paired(1, lambda f: bytes_each(f, coarse), lambda f: plain_bytes_each(f, coarse))
    table.append(row("the same, values of 3 decimals", "B", ours, 8, peer, theirs, less_is_better=True))
    day = fine * DAY_READINGS / 1e9
    table.append(row("24 h of 1,000 tags at 1 Hz", "GB", day, 1, less_is_better=True))
    report = {"bench": "buffer", "date": datetime.date.today().isoformat(), "machine": machine(), "rows": table}
    path = Path("build/bench/buffer.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print(f"{report['machine']}")
    for line in table:
        beside = f"  {line['theirs']:>12,.1f} {line['peer']}, ratio {line['ratio']:.2f}" if line["peer"] else ""
        print(f"{line['work']:<40} {line['ours']:>12,.2f} {line['unit']:<11}{beside}")


if __name__ == "__main__":
    main()
