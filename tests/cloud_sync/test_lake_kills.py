"""The lake under fire: the companion dies at any moment, and every reading still stands once."""

import random
import subprocess
import sys
import time
from pathlib import Path

from lakes import START_US, Hub, sealed, send_with_repeats

from appliance.contract.envelope import Envelope, seal
from appliance.contract.gap import Gap, GapReason
from appliance.contract.ledger import WINDOW_US, Tally, WindowTally
from appliance.contract.prediction import Prediction
from appliance.contract.reading import Reading, Stream
from cloud_sync.drain import Drain
from cloud_sync.gold import Gold
from cloud_sync.lake import Lake
from cloud_sync.silver import Silver

WORKER = """
import asyncio, pathlib, sys
from cloud_sync import silver
from cloud_sync.drain import Drain
from cloud_sync.gold import Gold
from cloud_sync.lake import Lake
from cloud_sync.silver import Silver
from cloud_sync.source import FolderSource
silver.ENVELOPES_PER_PASS_MAX = 4
lake, hub = Lake(pathlib.Path(sys.argv[2])), FolderSource(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
while True:
    asyncio.run(Drain(lake, hub).once())
    Silver(lake).step()
    Gold(lake).refresh()
"""
LIVES = 8
LIVES_MAX = 40
"""On a machine that is slow or busy it takes more of them until the companions have got somewhere."""
PUMP = "acme/northfield/utilities/boiler-house/feed/pmp-204"
TOPIC = f"{PUMP}/said"


def events(first: int, count: int) -> Envelope:
    """A prediction, a gap, a window of the ledger, and so on."""
    return Envelope("northfield", 1, Stream.EVENTS, first, tuple(map(event, range(first, first + count))))


def event(number: int) -> Reading:
    if number % 3 == 0:
        return Prediction(PUMP, START_US + number, 0.1, 86_400, 1, None, 90, "m", "", ()).entry(START_US)
    if number % 3 == 1:
        gap = Gap(1, Stream.READINGS, number, number, 1, 0, GapReason.SIZE, (), 0, START_US, START_US)
        return gap.entry(TOPIC, START_US)
    window = WindowTally(1, number * WINDOW_US, number, number, {PUMP: Tally(1, number)})
    return window.entry(TOPIC, START_US)


def start(hub: Path, lake: Path, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(hub), str(lake)], stdout=subprocess.PIPE, stderr=errors
        )


async def test_every_reading_stands_once_whatever_is_killed(tmp_path: Path) -> None:
    """Two companions at a time share a lake and are killed at random moments of drain, silver and gold."""
    chance = random.Random(11)
    lake, hub = Lake(tmp_path / "lake"), Hub(tmp_path / "hub")
    for name in ("bronze/events", "silver/readings"):
        lake.table(name)
    log = tmp_path / "workers.log"
    lives = 0
    while lives < LIVES or (lives < LIVES_MAX and lake.table("silver/readings").version() <= LIVES):
        life, lives = lives, lives + 1
        start_at = life * 1_000 + 1
        send_with_repeats(hub, 1_000, (0, 1, 2), seed=life, first=start_at)
        hub.send(seal(events(life * 10 + 1, 15)), life % 3)
        hub.send_raw({}, b"junk", life % 3)
        workers = [start(tmp_path / "hub", tmp_path / "lake", log) for _ in range(2)]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n", log.read_text()
        ends = time.monotonic() + chance.uniform(0.05, 0.8)
        while time.monotonic() < ends:
            assert all(worker.poll() is None for worker in workers), log.read_text()
            time.sleep(0.01)
        for worker in workers:
            worker.kill()
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()
    assert lake.table("silver/readings").version() > LIVES, "the lives were too short to prove anything"
    hub.send(sealed(1, 10), 0)
    await Drain(lake, hub).once()
    Silver(lake).run_once()
    Gold(lake).refresh()
    sent = sum(1 for _ in (tmp_path / "hub").rglob("*.json"))
    said = [(lives * 10 + 5 + 3 - rest) // 3 for rest in (3, 1, 2)]
    predicted, gaps, windows = said
    checks = {
        "SELECT [count(*), count(DISTINCT (eh_partition, eh_sequence))] AS found FROM bronze.events": sent,
        "SELECT [count(*), count(DISTINCT (eh_partition, eh_sequence))] AS found FROM bronze.dead_letters": lives,
        "SELECT [count(*), count(DISTINCT seq), max(seq)] AS found FROM silver.readings": lives * 1_000,
        "SELECT [count(*), count(DISTINCT seq)] AS found FROM silver.predictions": predicted,
        "SELECT [count(*), count(DISTINCT seq), count(DISTINCT first)] AS found FROM silver.gaps": gaps,
        "SELECT [count(*), count(DISTINCT seq), sum(entries)::BIGINT] AS found FROM silver.ledger": windows,
        "SELECT [sum(n)::BIGINT] AS found FROM gold.sensor_hourly": lives * 1_000,
        "SELECT [sum(n)::BIGINT] AS found FROM gold.sensor_daily": lives * 1_000,
        "SELECT [sum(predictions)::BIGINT] AS found FROM gold.predictions_daily": predicted,
    }
    for sql, expected in checks.items():
        assert set(lake.query(sql).to_pylist()[0]["found"]) == {expected}, sql
