"""From the uplink `folder` to silver: files carried by hand, each reading once."""

import asyncio
import os
import random
import shutil
from pathlib import Path

import pytest
from lakes import START_US, readings, sealed

from appliance.bridge.folder import FolderUplink
from appliance.contract.envelope import Envelope, Lane, seal
from appliance.contract.envelope_file import SUFFIX
from appliance.contract.reading import Stream
from cloud_sync.bronze import drained
from cloud_sync.config import HubConfig
from cloud_sync.drain import Drain
from cloud_sync.envelope_folder import SETTLE_S, EnvelopeFolder, hub_of
from cloud_sync.lake import Lake
from cloud_sync.service import source_of
from cloud_sync.silver import Silver

COUNTED = "SELECT count(*)::BIGINT AS n, count(DISTINCT (plant, epoch, seq))::BIGINT AS different FROM silver.readings"


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    """The folder that `cloud_sync` reads."""
    path = tmp_path / "carried"
    path.mkdir()
    return path


async def written(folder: Path, first: int, count: int, step: int = 50) -> list[Path]:
    """What the uplink makes of these readings, as the files it wrote, in order."""
    uplink = FolderUplink(folder)
    for start in range(first, first + count, step):
        await uplink.send(sealed(start, step), Lane.BACKLOG)
    await uplink.close()
    return sorted(folder.rglob(f"*{SUFFIX}"))


def bring(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, to)


def make_old(file: Path) -> None:
    """As if the file had not changed for long."""
    at_s = file.stat().st_mtime - SETTLE_S - 1
    os.utime(file, (at_s, at_s))


async def refined(lake: Lake, folder: Path) -> tuple[int, int]:
    """A drain of its own and silver behind it; gives new envelopes, and dead letters."""
    new = await Drain(lake, source_of(HubConfig(folder=str(folder)), lake)).once()
    return new, Silver(lake).run_once().dead


def counted(lake: Lake) -> tuple[int, int]:
    (row,) = lake.query(COUNTED).to_pylist()
    return row["n"], row["different"]


async def test_what_the_uplink_writes_stands_in_silver_equal(tmp_path: Path) -> None:
    """Readings and events of one plant; the folder is read as it stands, and never written to."""
    folder = tmp_path / "out"
    await written(folder, 1, 200)
    event = seal(Envelope("northfield", 1, Stream.EVENTS, 1, readings(1, 2)))
    await FolderUplink(folder).send(event, Lane.EVENTS)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    lake = Lake(tmp_path / "lake")
    assert await refined(lake, folder) == (5, 0)
    assert counted(lake) == (200, 200)
    rows = lake.query(
        "SELECT seq, message_id, epoch_us(event_ts) AS at_us FROM silver.readings ORDER BY seq"
    ).to_pylist()
    assert [row["seq"] for row in rows] == list(range(1, 201))
    assert (rows[0]["message_id"], rows[0]["at_us"]) == ("northfield:1:readings:1", START_US + 1_000_000)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


async def test_files_twice_late_and_in_any_order_change_nothing(tmp_path: Path, carried: Path) -> None:
    """Carried over in eight rounds, shuffled, some twice under other names, each round drained by a new process."""
    chance = random.Random(7)
    files = await written(tmp_path / "out", 1, 2_000)
    chance.shuffle(files)
    lake, brought = Lake(tmp_path / "lake"), 0
    for turn in range(8):
        part = files[turn * 5 : turn * 5 + 5]
        for file in part:
            bring(file, carried / f"stick {turn}" / file.name)
            if chance.random() < 0.5:
                bring(file, carried / f"copy of stick {turn}" / f"{file.stem} (1){SUFFIX}")
        if turn:
            bring(chance.choice(files[: turn * 5]), carried / f"again {turn}" / f"x{SUFFIX}")
        new, dead = await refined(lake, carried)
        brought += len(part)
        assert (new, dead) == (len(part), 0)
        assert counted(lake) == (brought * 50, brought * 50)
    assert await refined(lake, carried) == (0, 0)
    assert counted(lake) == (2_000, 2_000)


async def test_drained_files_may_be_deleted_and_come_back(tmp_path: Path, carried: Path) -> None:
    files = await written(tmp_path / "out", 1, 100)
    lake = Lake(tmp_path / "lake")
    bring(files[0], carried / files[0].name)
    assert await refined(lake, carried) == (1, 0)
    (carried / files[0].name).unlink()
    assert await refined(lake, carried) == (0, 0)
    for file in files:
        bring(file, carried / file.name)
    assert await refined(lake, carried) == (1, 0)
    assert counted(lake) == (100, 100)


async def test_a_file_on_its_way_is_waited_for_and_a_damaged_one_is_a_dead_letter(
    tmp_path: Path, carried: Path
) -> None:
    """Half a file is left alone; when it stays half it is a dead letter, once; its good copy is taken all the same."""
    (file,) = await written(tmp_path / "out", 1, 50)
    lake, half = Lake(tmp_path / "lake"), carried / f"half{SUFFIX}"
    half.write_bytes(file.read_bytes()[:-20])
    (carried / f"noise{SUFFIX}").write_bytes(b"no envelope")
    assert await refined(lake, carried) == (0, 0)
    make_old(half)
    make_old(carried / f"noise{SUFFIX}")
    assert await refined(lake, carried) == (2, 2)
    assert await refined(lake, carried) == (0, 0)
    bring(file, carried / file.name)
    assert await refined(lake, carried) == (1, 0)
    assert counted(lake) == (50, 50)
    reasons = lake.query("SELECT reason FROM bronze.dead_letters ORDER BY reason").to_pylist()
    assert [row["reason"] for row in reasons] == ["bad-checksum", "unknown-schema"]


async def test_two_drains_of_one_folder_lose_and_double_nothing(tmp_path: Path, carried: Path) -> None:
    """Both follow while files come; whoever is slower finds its numbers taken and begins anew from bronze."""
    files = await written(tmp_path / "out", 1, 1_000)
    lake = Lake(tmp_path / "lake")

    def source() -> EnvelopeFolder:
        return EnvelopeFolder(carried, "$Default", lambda: drained(lake, hub_of(carried)))

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        drains = [group.create_task(Drain(lake, source()).run()) for _ in range(2)]
        for start in range(0, len(files), 5):
            for file in files[start : start + 5]:
                bring(file, carried / file.name)
            while len(await asyncio.to_thread(drained, lake, hub_of(carried))) < start + 5:  # noqa: ASYNC110 - a table has no event
                await asyncio.sleep(0.05)
        for drain in drains:
            drain.cancel()
    Silver(lake).run_once()
    assert counted(lake) == (1_000, 1_000)
