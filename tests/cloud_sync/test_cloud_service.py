"""`plantward-cloud`: its configuration, its commands, and the service that follows a hub."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lakes import START_US, Hub, sealed
from processes import until

from appliance.contract.envelope import Lane, Sealed
from appliance.contract.reading import Stream
from cloud_sync.config import Config, ConfigError
from cloud_sync.drain import Drain
from cloud_sync.emulator.eventhubs import EventHubs as Emulator
from cloud_sync.eventhubs import EventHubs
from cloud_sync.lake import Lake
from cloud_sync.source import SourceError


def cloud(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cloud_sync.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def config(folder: Path, text: str) -> Path:
    path = folder / "cloud_sync.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[hub]\nfoldr = 'a'\n", "'foldr' is no key of [hub]; did you mean 'folder'?"),
        ("[hbu]\n", "'hbu' is no section; did you mean 'hub'?"),
        ("[hub]\n[lake]\npath = 'l'\n", "[hub] needs either connection_string or folder"),
        ("[hub]\nfolder = 'a'\n", "[lake] path is missing"),
        ("[hub]\nfolder = 'a'\n[lake]\npath = 3\n", "[lake] path is 3; write a text in quotes"),
        ("[hub]\nfolder = 'a'\n[lake]\npath = 'l'\n[service]\ninterval_s = 0\n", "0.05 to 3600"),
        ("[hub]\nfolder = 'a'\n[lake]\npath = 'l'\n[gold]\nthreshold = 2\n", "between 0 and 1"),
        ("[hub\n", "is not TOML"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    """One line, with the key and a hint."""
    with pytest.raises(ConfigError) as error:
        Config.load(config(tmp_path, text))
    assert said in str(error.value)
    assert "\n" not in str(error.value).strip() or "TOML" in said


def test_the_commands_go_through_the_layers(tmp_path: Path) -> None:
    """drain, silver, gold one by one; wrong use is code 2, a hub that is away is code 1, help is quick."""
    path = config(tmp_path, "[hub]\nfolder = 'hub'\n[lake]\npath = 'lake'\n")
    away = cloud("drain", "--config", path)
    assert (away.returncode, away.stderr.count("\n")) == (1, 1)
    assert "does not exist; create it" in away.stderr
    assert cloud("drain", "--config", tmp_path / "other.toml").returncode == 2
    hub = Hub(tmp_path / "hub")
    hub.send(sealed(1, 3_000))
    said = [cloud(step, "--config", path) for step in ("drain", "silver", "gold")]
    assert [one.returncode for one in said] == [0, 0, 0], said
    assert "1 new envelopes" in said[0].stdout
    assert "3,000 readings" in said[1].stdout
    assert cloud("run", "--once", "--config", path).returncode == 0
    rows = Lake(tmp_path / "lake").query("SELECT sum(n)::BIGINT AS n FROM gold.sensor_daily").to_pylist()
    assert rows == [{"n": 3_000}]


def test_importing_the_companion_loads_no_part_of_the_appliance() -> None:
    """Only the contract; and the command line starts without the engines."""
    look = "import sys; print([m for m in ('aiosqlite', 'fastapi', 'uvicorn', 'appliance.buffer') if m in sys.modules])"
    layers = "import cloud_sync.service, cloud_sync.eventhubs; "
    found = subprocess.run([sys.executable, "-c", layers + look], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    engines = "import cloud_sync.cli, sys; print([m for m in ('duckdb', 'deltalake', 'pyarrow') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", engines], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_service_follows_the_hub_and_stops_at_once(tmp_path: Path) -> None:
    """What is sent while it runs comes to gold; SIGTERM ends it within two seconds, with code 0."""
    path = config(tmp_path, "[hub]\nfolder = 'hub'\n[lake]\npath = 'lake'\n[service]\ninterval_s = 0.1\n")
    hub = Hub(tmp_path / "hub")
    hub.send(sealed(1, 100))
    lake = Lake(tmp_path / "lake")
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "cloud_sync.cli", "run", "--config", str(path)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        until(lambda: lake.table("gold/sensor_daily").version() > 0, f"gold; {log.read_text()}")
        hub.send(sealed(101, 100))
        total = "SELECT coalesce(sum(n), 0)::BIGINT AS n FROM gold.sensor_daily"
        until(lambda: lake.query(total).to_pylist() == [{"n": 200}], "the second envelope in gold")
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, log.read_text()
        assert time.monotonic() - started < 2
    finally:
        process.kill()
        process.wait()
    assert "stopped" in log.read_text()


async def test_the_drain_reads_event_hubs_with_the_sdk(tmp_path: Path) -> None:
    """Over AMQP: all partitions, and each start goes on behind the table's position; each event once."""
    lake = Lake(tmp_path / "lake")
    async with Emulator.open(tmp_path / "hubs.db", ("readings",), partitions=2) as server:
        await server.serve()
        text = server.connection_string("readings")
        await send(text, [sealed(1, 500), sealed(1, 50, Stream.EVENTS), sealed(501, 500)])
        hub = EventHubs(text, "readings", "$Default")
        assert await Drain(lake, hub).once() == 3
        await send(text, [sealed(1001, 500)])
        assert await Drain(lake, hub).once() == 1
        assert await Drain(lake, hub).once() == 0
    rows = lake.query('SELECT stream, "first", "count", partition_key, enqueued_at FROM bronze.events ORDER BY 1, 2')
    found = rows.to_pylist()
    assert [(row["stream"], row["first"], row["count"]) for row in found] == [
        ("events", 1, 50), ("readings", 1, 500), ("readings", 501, 500), ("readings", 1001, 500),
    ]  # fmt: skip
    assert {row["partition_key"] for row in found} == {"northfield/readings", "northfield/events"}
    assert all(row["enqueued_at"].timestamp() * 1e6 > START_US for row in found)


async def test_a_cut_link_is_mended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The drain stays up when every connection is cut, says so once, and goes on behind the last event."""
    lake = Lake(tmp_path / "lake")
    caplog.set_level("INFO", "cloud_sync")
    async with Emulator.open(tmp_path / "hubs.db", ("readings",), partitions=2) as server:
        await server.serve()
        text = server.connection_string("readings")
        await send(text, [sealed(1, 10)])
        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(Drain(lake, EventHubs(text, "readings", "$Default")).run())
            await events_in_bronze(lake, 1)
            for first in (11, 21):
                server.cut()
                await send(text, [sealed(first, 10)])
                await events_in_bronze(lake, first // 10 + 1)
            draining.cancel()
    rows = lake.query('SELECT "first" FROM bronze.events ORDER BY 1').to_pylist()
    assert [row["first"] for row in rows] == [1, 11, 21]
    assert lake.query("SELECT * FROM bronze.losses").num_rows == 0
    assert "lost" in caplog.text
    assert "back after" in caplog.text


async def events_in_bronze(lake: Lake, count: int) -> None:
    async with asyncio.timeout(30):
        while lake.query("SELECT * FROM bronze.events").num_rows < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_hub_that_is_away_is_one_clear_error() -> None:
    """The single pass ends; the service would go on trying."""
    text = "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=YQ==;UseDevelopmentEmulator=true"
    with pytest.raises(SourceError, match="not reached"):
        await EventHubs(text, "readings", "$Default").ends()
    with pytest.raises(SourceError, match="cannot be read"):
        EventHubs("nonsense", "readings", "$Default")


async def send(connection_string: str, letters: list[Sealed]) -> None:
    from azure.eventhub import EventData
    from azure.eventhub.aio import EventHubProducerClient

    async with EventHubProducerClient.from_connection_string(connection_string) as producer:
        for letter in letters:
            event = EventData(letter.body)
            event.properties = {name: str(value) for name, value in letter.properties(Lane.LIVE).items()}
            batch = await producer.create_batch(partition_key=letter.partition_key)
            batch.add(event)
            await producer.send_batch(batch)
