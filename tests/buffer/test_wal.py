"""The write-ahead log is damaged: commits behind the damage are not taken for never made."""

import asyncio
import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.buffer.buffer import Buffer
from appliance.buffer.wal import mended
from appliance.cli import app
from appliance.contract.gap import GAP_ORIGIN, Gap, GapReason
from appliance.contract.reading import Reading, Stream
from appliance.folder import owned

FRAME = 24 + 4_096
COMMITS = 40


def reading(number: int) -> Reading:
    return Reading(f"acme/n/a/l/c/e/t{number % 5}", random.Random(number).random(), 192, number, number, number, "o")


@pytest.fixture
async def killed(tmp_path: Path) -> Path:
    """The files of a log with 40 commits, as kill -9 leaves them."""
    path, copy = tmp_path / "open.db", tmp_path / "b.db"
    async with Buffer.open(path, "northfield") as buffer:
        for commit in range(COMMITS):
            await buffer.append([reading(commit * 50 + n) for n in range(50)])
        for side in ("", "-wal"):
            shutil.copyfile(f"{path}{side}", f"{copy}{side}")
    return copy


def flip(path: Path, *places: int) -> None:
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 0x41
    path.write_bytes(data)


async def opened(path: Path) -> tuple[int, set[int], list[Gap]]:
    """The newest number, the readings that are there, and the gaps."""
    async with Buffer.open(path, "northfield") as buffer:
        found: list[Reading] = []
        while len(found) < buffer.last():
            found += (await buffer.read(Stream.READINGS, len(found), 5_000)).entries
        events = (await buffer.read(Stream.EVENTS, 0, 100)).entries
        gaps = [Gap.from_entry(entry) for entry in events if entry.origin == GAP_ORIGIN]
        return buffer.last(), {entry.source_us for entry in found}, gaps


async def test_a_whole_log_and_one_cut_in_the_middle_of_a_write_stay_as_they_are(killed: Path) -> None:
    """What was never answered is no damage: the epoch stays, and SQLite takes the commits before the cut."""
    wal = Path(f"{killed}-wal")
    assert mended(killed) == ""
    whole = wal.read_bytes()
    wal.write_bytes(whole[: -FRAME // 2])
    assert mended(killed) == ""
    assert wal.read_bytes() == whole[: -FRAME // 2]
    last, found, gaps = await opened(killed)
    assert 50 * (COMMITS - 2) <= last == len(found) < 50 * COMMITS
    assert gaps == []
    assert mended(killed.with_name("none.db")) == ""


async def test_the_frame_of_a_transaction_that_was_given_up_is_no_damage(killed: Path) -> None:
    """Frames without a commit behind a sum that does not fit: a rolled back transaction leaves such."""
    wal = Path(f"{killed}-wal")
    frames = wal.read_bytes()
    given_up = bytearray(frames[32 : 32 + FRAME])
    given_up[4:8] = bytes(4)
    wal.write_bytes(frames + 3 * bytes(given_up))
    assert mended(killed) == ""


async def test_one_flipped_byte_costs_what_stood_there_and_nothing_behind_it(killed: Path) -> None:
    """At any place: no commit behind it is lost, no number is given twice, and gaps name what is missing."""
    wal, chance = Path(f"{killed}-wal"), random.Random(5)
    size = wal.stat().st_size
    kept = {side: Path(f"{killed}{side}").read_bytes() for side in ("", "-wal")}
    for place in (0, 20, 32 + 2, 32 + 10, 32 + 18, *(chance.randrange(size * 3 // 4) for _ in range(12))):
        for file in killed.parent.glob("b.*"):
            file.unlink()
        for side, data in kept.items():
            Path(f"{killed}{side}").write_bytes(data)
        flip(wal, place)
        assert "damaged" in mended(killed), place
        flip_is_mended(killed)
        for side, data in kept.items():
            Path(f"{killed}{side}").write_bytes(data)
        flip(wal, place)
        _, found, gaps = await opened(killed)
        lost = sum(gap.count for gap in gaps if gap.reason is GapReason.DAMAGED and gap.stream is Stream.READINGS)
        assert lost == 50 * COMMITS - len(found), (place, gaps)
        assert {50 * COMMITS - 1} <= found, f"the newest is lost by damage at {place}"
        assert lost <= 100, place


def flip_is_mended(path: Path) -> None:
    """SQLite itself now reads to the newest commit, or finds the database damaged; never an older state."""
    with closing(sqlite3.connect(path)) as db:
        try:
            (last,) = db.execute("SELECT last FROM stream WHERE name = 'readings'").fetchone()
        except sqlite3.DatabaseError:
            return
        assert last == 50 * COMMITS


async def test_many_flips_and_a_log_that_is_used_again(killed: Path) -> None:
    wal, chance = Path(f"{killed}-wal"), random.Random(6)
    size = wal.stat().st_size
    flip(wal, *(chance.randrange(32, size * 3 // 4) for _ in range(8)))
    async with Buffer.open(killed, "northfield") as buffer:
        await buffer.append([reading(5_000)])
    _, found, gaps = await opened(killed)
    lost = sum(gap.count for gap in gaps if gap.reason is GapReason.DAMAGED and gap.stream is Stream.READINGS)
    assert lost == 50 * COMMITS + 1 - len(found)
    assert {50 * COMMITS - 1, 5_000} <= found


async def test_repair_by_hand_finds_what_lies_behind_the_damage(killed: Path) -> None:
    wal = Path(f"{killed}-wal")
    flip(wal, wal.stat().st_size // 2)
    done = await asyncio.to_thread(CliRunner().invoke, app, ["buffer", "repair", str(killed)])
    assert done.exit_code == 0, done.output
    _, found, _ = await opened(killed)
    assert {0, 50 * COMMITS - 1} <= found


async def test_a_look_at_a_damaged_log_changes_nothing_and_sees_what_a_start_would(
    killed: Path, tmp_path: Path
) -> None:
    """`check`, `export` and `cursors` read behind the damage; not a byte of the files is another one afterwards."""
    flip(Path(f"{killed}-wal"), 32 + 20 * FRAME + 500)
    before = {path.name: path.read_bytes() for path in killed.parent.glob("b.db*")}
    out = tmp_path / "out.jsonl"
    for command in (["check", str(killed)], ["export", str(killed), str(out)], ["cursors", str(killed)]):
        result = await asyncio.to_thread(CliRunner().invoke, app, ["buffer", *command])
        assert ("frames of the write-ahead log are damaged" in result.output) == (command[0] != "cursors")
    assert {path.name: path.read_bytes() for path in killed.parent.glob("b.db*")} == before
    assert not list(tmp_path.glob("view-*"))
    names = {json.loads(line)["source_us"] for line in out.read_text("utf-8").splitlines()}
    _, found, _ = await opened(killed)
    assert max(names) == 50 * COMMITS - 1
    assert names == found


async def test_a_log_in_use_is_looked_at_where_it_stands(tmp_path: Path) -> None:
    """While an appliance owns the folder and writes, `check` reads what is committed."""
    path = tmp_path / "b.db"
    with owned(tmp_path):
        async with Buffer.open(path, "northfield") as buffer:
            await buffer.append([reading(n) for n in range(1, 51)])
            result = await asyncio.to_thread(CliRunner().invoke, app, ["buffer", "check", str(path)])
            assert result.exit_code == 0, result.output
            assert "50 entries" in result.output
