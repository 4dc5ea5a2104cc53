"""Long trends measured: server time of a month, speed of the follower, bytes. Run by `make bench-history`."""

import argparse
import asyncio
import json
import math
import random
import statistics
import tempfile
import time
from pathlib import Path

from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Reading
from appliance.history import history as history_module
from appliance.history.history import Cells, History
from appliance.history.store import HistoryStore
from appliance.supervisor import supervise
from appliance.ui import trend

DAY_S = 86_400
TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/tag{tag}"


async def month(folder: Path, days: int) -> dict[str, float]:
    """Days of one tag at 1 Hz: median server time to 1,000 points in ms, and bytes for each day."""
    chance = random.Random(1)
    async with Buffer.open(folder / "b.db", "northfield") as buffer, HistoryStore.open(folder / "h.db") as store:
        for day in range(days):
            cells, start = Cells(), day * DAY_S
            cells.take(
                Reading("t", math.sin(second / 9e4) + chance.random(), 192, second * 1_000_000, 0, 0, "opcua:p")
                for second in range(start, start + DAY_S)
            )
            await store.merge(cells.rollups(), buffer.epoch, 0)
        past, took_ms, end_us = History(buffer, store, 2_000_000_000), [], days * DAY_S * 1_000_000
        for _ in range(20):
            started = time.perf_counter()
            drawn = await trend.long_curve(trend.History.new(False), past, "t", 0, end_us, 1_000)
            took_ms.append((time.perf_counter() - started) * 1_000)
        assert drawn.samples == days * DAY_S
        bytes_a_day = await store.used_bytes() / days
    return {
        "days": days,
        "points": len(drawn.values),
        "trend_ms": statistics.median(took_ms),
        "tag_day_bytes": bytes_a_day,
    }


async def follower(folder: Path, count: int) -> float:
    """Readings a second that the follower takes from a log on disk into its file, 108 tags at 1 Hz."""
    chance = random.Random(1)
    entries = [
        Reading(TOPIC.format(tag=i % 108), round(chance.gauss(5, 1), 3), 192, i // 108 * 1_000_000, 0, 0, "opcua:p")
        for i in range(count)
    ]
    async with Buffer.open(folder / "log.db", "northfield") as buffer:
        for at in range(0, count, 1_000):
            await buffer.append(entries[at : at + 1_000])
    history_module.FLUSH_S = 0.5
    async with Buffer.open(folder / "log.db", "northfield") as buffer, HistoryStore.open(folder / "f.db") as store:
        history = History(buffer, store, 2_000_000_000)
        started = time.perf_counter()
        async with supervise() as parts:
            parts.start("history", history.run)
            while history.status().behind:  # noqa: ASYNC110 - the status is what is measured
                await asyncio.sleep(0.01)
            return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        results = asyncio.run(month(Path(name), 7 if quick else 30))
        results["follower_readings_per_s"] = asyncio.run(follower(Path(name), 100_000 if quick else 400_000))
    for key, value in results.items():
        print(f"{key:26} {value:12,.1f}")
    out = Path("build/bench/history.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
