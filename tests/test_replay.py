"""Replay: a recording reaches the log through a real broker, every value once, with its recorded time."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from appliance.broker.embedded import EmbeddedBroker
from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Reading, Stream
from appliance.replay import ReplayError, replay

TEMPLATE = "acme/pdm/hall/line1/cell1/m{machineID}/{column}"
START = datetime(2015, 1, 1, 6, tzinfo=UTC)
START_US = 1_420_092_000_000_000


@dataclass(frozen=True)
class Listener:
    bind: str = "127.0.0.1:0"
    anonymous: bool = True


@dataclass(frozen=True)
class Settings:
    listener: tuple[Listener, ...] = (Listener(),)


@asynccontextmanager
async def plant(folder: Path, enforce: str = "refuse") -> AsyncIterator[tuple[Buffer, int]]:
    """A broker in front of a real buffer, and its port."""
    async with Buffer.open(folder / "buffer.db", "northfield") as buffer:
        broker = EmbeddedBroker(Settings(), buffer, "acme", enforce)
        task = asyncio.create_task(broker.run())
        async with asyncio.timeout(10):
            while True:
                if broker.addresses:
                    break
                await asyncio.sleep(0.005)
        try:
            yield buffer, broker.addresses[0][1]
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def recording(path: Path, hours: int, machines: int = 3) -> Path:
    """Hourly values as the Azure predictive-maintenance data has them."""
    lines = ["datetime,machineID,volt,rotate,vibration"]
    for hour in range(hours):
        at = (START + timedelta(hours=hour)).strftime("%Y-%m-%d %H:%M:%S")
        lines += [f"{at},{machine},{170 + hour},{450.5 + machine},0.25" for machine in range(1, machines + 1)]
    path.write_text("\n".join(lines) + "\n")
    return path


async def entries(buffer: Buffer) -> tuple[Reading, ...]:
    return (await buffer.read(Stream.READINGS, 0, 1_000_000)).entries


async def test_every_value_is_recorded_once_at_its_time(tmp_path: Path) -> None:
    """Each column that is neither key nor time becomes a tag; the count is exact, and so are times and types."""
    shown: list[tuple[int, int]] = []
    async with plant(tmp_path) as (buffer, port):
        file = recording(tmp_path / "pdm.csv", hours=400)
        count = await replay(
            file, "127.0.0.1", port, TEMPLATE, "datetime", 0, lambda done, total: shown.append((done, total))
        )
        assert count == buffer.last() == 400 * 3 * 3
        read = await entries(buffer)
    assert len({(entry.topic, entry.source_us) for entry in read}) == count
    assert set(Counter(entry.topic for entry in read).values()) == {400}
    assert read[0][:4] == ("acme/pdm/hall/line1/cell1/m1/volt", 170, 192, START_US)
    assert read[4][:4] == ("acme/pdm/hall/line1/cell1/m2/rotate", 452.5, 192, START_US)
    assert read[-1][:4] == ("acme/pdm/hall/line1/cell1/m3/vibration", 0.25, 192, START_US + 399 * 3_600_000_000)
    assert shown[-1] == (count, count)


async def test_parquet_with_gaps(tmp_path: Path) -> None:
    """Parquet works the same; a missing value gives no message; nanoseconds and zones are understood."""
    times = [START, START + timedelta(microseconds=250)]
    table = pa.table(
        {
            "t": pa.array(times, pa.timestamp("ns", "UTC")),
            "flow": [1.5, None],
            "running": [True, False],
            "note": [None, "ok"],
        }
    )
    pa.parquet.write_table(table, tmp_path / "pump.parquet")
    async with plant(tmp_path) as (buffer, port):
        template = "acme/pdm/hall/line1/cell1/p1/{column}"
        assert await replay(tmp_path / "pump.parquet", "127.0.0.1", port, template, "t") == 4
        read = [(entry.topic.rpartition("/")[2], entry.value, entry.source_us) for entry in await entries(buffer)]
    assert read == [
        ("flow", 1.5, START_US),
        ("running", True, START_US),
        ("running", False, START_US + 250),
        ("note", "ok", START_US + 250),
    ]


async def test_the_recorded_pace_is_kept(tmp_path: Path) -> None:
    """At speed N an hour takes an hour's Nth part."""
    async with plant(tmp_path) as (_, port):
        file = recording(tmp_path / "pdm.csv", hours=3, machines=1)
        started = time.monotonic()
        assert await replay(file, "127.0.0.1", port, TEMPLATE, "datetime", speed=3600 * 10) == 9
        assert 0.2 <= time.monotonic() - started < 5


async def test_a_refusal_ends_the_replay_with_the_brokers_words(tmp_path: Path) -> None:
    """A broker of another namespace refuses; its reason and hint reach the user."""
    async with plant(tmp_path) as (buffer, port):
        file = recording(tmp_path / "pdm.csv", hours=1)
        with pytest.raises(ReplayError, match=r"refuses globex/.*topic name invalid: enterprise.*begins with 'acme'"):
            await replay(file, "127.0.0.1", port, TEMPLATE.replace("acme", "globex"), "datetime")
        assert buffer.last() == 0


@pytest.mark.parametrize(
    ("template", "time_column", "says"),
    [
        ("", "datetime", "no topic template; write"),
        ("acme/a/b/c/d/m{machineID}/x", "datetime", r"has no \{column\}"),
        ("acme/a/b/c/d/m{machine}/{column}", "datetime", "no column 'machine'; the file has datetime, machineID"),
        ("acme/a/b/c/d/m{machineID/{column}", "datetime", "brace"),
        (TEMPLATE, "time", "no column 'time' for the time; the file has datetime"),
        (TEMPLATE, "machineID", "is no time; write ISO 8601"),
        ("acme/m{machineID}/{column}", "datetime", "line: is missing"),
    ],
)
async def test_templates_that_do_not_fit_the_file(tmp_path: Path, template: str, time_column: str, says: str) -> None:
    """Each mistake is one line with a hint, and nothing is recorded."""
    async with plant(tmp_path) as (buffer, port):
        file = recording(tmp_path / "pdm.csv", hours=1)
        with pytest.raises(ReplayError, match=says) as caught:
            await replay(file, "127.0.0.1", port, template, time_column)
        assert "\n" not in str(caught.value)
        assert buffer.last() == 0


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\0\0,\n\xff", b"PAR1 but no more", b"a,b\n1,2,3\n"])
async def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or broken file is one line with a hint."""
    file = tmp_path / "file.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ReplayError) as caught:
        await replay(file, "127.0.0.1", 1, TEMPLATE, "datetime")
    assert "\n" not in str(caught.value)


async def test_no_broker(tmp_path: Path, unused_tcp_port: int) -> None:
    """Nobody listens: one line that says where, and what to look at."""
    file = recording(tmp_path / "pdm.csv", hours=1)
    with pytest.raises(ReplayError, match=f"no broker answers at 127.0.0.1:{unused_tcp_port}.*--mqtt"):
        await replay(file, "127.0.0.1", unused_tcp_port, TEMPLATE, "datetime")


async def test_a_key_that_is_missing(tmp_path: Path) -> None:
    """A row without the value that stands in the topic is named."""
    file = tmp_path / "pdm.csv"
    file.write_text("datetime,machineID,volt\n2015-01-01 06:00:00,1,170\n2015-01-01 07:00:00,,171\n")
    async with plant(tmp_path) as (_, port):
        with pytest.raises(ReplayError, match="row 2: column 'machineID' is empty"):
            await replay(file, "127.0.0.1", port, TEMPLATE, "datetime")
