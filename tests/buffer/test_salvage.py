"""Salvage: a damaged file costs what is damaged, not the plant; and the commands that look after the file."""

import asyncio
import json
import random
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.bridge.progress import Plan, Progress
from appliance.buffer.buffer import Buffer
from appliance.buffer.renewal import renew
from appliance.buffer.salvage import Report, pieces
from appliance.buffer.schema import StoreError
from appliance.buffer.underway import FOLDER, UnderWay
from appliance.cli import app
from appliance.contract.envelope import Lane, open_sealed
from appliance.contract.gap import GAP_ORIGIN, Gap, GapReason
from appliance.contract.reading import Reading, Stream

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"
PAGE = 4_096


def reading(number: int) -> Reading:
    return Reading(TOPIC, random.Random(number).random(), 192, number, number, number, "opcua:plant")


async def filled(path: Path, count: int = 20_300) -> int:
    """A log of sealed and loose entries, of which the bridge has taken 12,000; gives its epoch."""
    async with Buffer.open(path, "northfield") as buffer:
        for first in range(1, count, 1_000):
            await buffer.append([reading(i) for i in range(first, min(first + 1_000, count + 1))])
        for _ in range(1_000):
            if buffer.keeper.sealed_to[Stream.READINGS] >= 20_000:
                break
            await asyncio.sleep(0.01)
        cursor = await buffer.cursor("bridge")
        await cursor.advance(12_000, "state")
        return buffer.epoch


async def values(buffer: Buffer) -> list[int]:
    seen: list[int] = []
    while len(seen) < buffer.last():
        seen += [entry.source_us for entry in (await buffer.read(Stream.READINGS, len(seen), 5_000)).entries]
    return seen


async def gaps(buffer: Buffer) -> list[Gap]:
    entries = (await buffer.read(Stream.EVENTS, 0, 1_000)).entries
    return [Gap.from_entry(entry) for entry in entries if entry.origin == GAP_ORIGIN]


@pytest.mark.parametrize("seed", range(8))
async def test_torn_pages_cost_only_what_they_held(tmp_path: Path, seed: int) -> None:
    """Random pages are overwritten: the appliance starts, with every entry from elsewhere, and says what is lost."""
    path = tmp_path / "buffer.db"
    epoch = await filled(path)
    chance, torn = random.Random(seed), bytearray(path.read_bytes())
    for page in chance.sample(range(3 if seed % 2 else 0, len(torn) // PAGE), 3):
        torn[page * PAGE : (page + 1) * PAGE] = chance.randbytes(PAGE)
    path.write_bytes(torn)
    async with Buffer.open(path, "northfield") as buffer:
        left = await values(buffer)
        assert left == sorted(set(left))
        lost = [gap for gap in await gaps(buffer) if gap.reason is GapReason.DAMAGED and gap.epoch == epoch]
        if buffer.epoch != epoch and lost:
            missing = {seq for gap in lost for seq in range(gap.first, gap.last + 1) if gap.stream is Stream.READINGS}
            assert missing.isdisjoint(left)
            assert missing | set(left) >= set(range(1, max(left) + 1))
        assert await buffer.append([reading(1)]) == buffer.last()
    if buffer.epoch != epoch:
        assert len([file for file in tmp_path.glob("buffer.damaged-*.db")]) == 1


async def test_followers_go_on_where_they_stood(tmp_path: Path) -> None:
    """After a repair the bridge continues with the entry it had come to, now under another number."""
    path = tmp_path / "buffer.db"
    epoch = await filled(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE block_readings SET body = x'00' WHERE first = 5001")
        db.execute("UPDATE block_readings SET body = x'00' WHERE first = 15001")
    result = await asyncio.to_thread(CliRunner().invoke, app, ["buffer", "repair", str(path)])
    assert result.exit_code == 0, result.output
    async with Buffer.open(path, "northfield") as buffer:
        assert buffer.epoch > epoch
        cursor = await buffer.cursor("bridge")
        assert (cursor.seq, cursor.state) == (7_000, "state")
        assert (await cursor.batch(1)).entries == (reading(12_001),)
        found = [
            (gap.epoch, gap.reason, gap.first, gap.last)
            for gap in await gaps(buffer)
            if gap.stream is Stream.READINGS and gap.reason is not GapReason.RENUMBERED
        ]
        assert found == [
            (epoch, GapReason.DAMAGED, 5_001, 10_000),
            (epoch, GapReason.DAMAGED, 15_001, 20_000),
            (buffer.epoch, GapReason.CARRIED, 1, 7_000),
        ]


@pytest.mark.parametrize("seed", range(6))
async def test_each_number_of_the_old_epoch_is_explained(tmp_path: Path, seed: int) -> None:
    """Sent, damaged or renumbered; and the bridge goes on with what it had not sent, each entry once."""
    path, chance, count = tmp_path / "buffer.db", random.Random(seed), 20_300
    epoch = await filled(path, count)
    cuts = sorted(chance.sample(range(1, count), 9))
    progress = Progress(cuts[0], [(cuts[i], cuts[i + 1]) for i in (1, 3, 5)])
    progress.plan(Plan(cuts[7], cuts[7] + 9, Lane.LIVE))
    with sqlite3.connect(path) as db:
        state = progress.to_state(epoch)
        db.execute("UPDATE cursor SET seq = ?, state = ? WHERE name = 'bridge'", (progress.floor, state))
        for first in chance.sample((1, 5_001, 10_001, 15_001), 2):
            db.execute("UPDATE block_readings SET body = x'00' WHERE first = ?", (first,))
        db.execute("DELETE FROM chunk_readings WHERE first = 20001" if seed % 2 else "SELECT 1")
    await renew(path, "northfield", "acme")
    sent = set(range(1, cuts[0] + 1)).union(*(range(first, last + 1) for first, last in progress.ahead))
    under_way = UnderWay(tmp_path / FOLDER)
    kept = [under_way.read(path) for path in under_way.kept()]
    assert {(sealed.epoch, lane) for sealed, lane in kept} <= {(epoch, Lane.LIVE)}
    again = {number for sealed, _ in kept for number in range(sealed.first, sealed.first + sealed.count)}
    assert again <= set(range(cuts[7], cuts[7] + 10))
    assert again == {entry.source_us for sealed, _ in kept for entry in open_sealed(sealed).entries}
    sent |= again
    async with Buffer.open(path, "northfield") as buffer:
        explained: dict[tuple[int, GapReason], set[int]] = {}
        for gap in await gaps(buffer):
            if gap.stream is Stream.READINGS:
                explained.setdefault((gap.epoch, gap.reason), set()).update(range(gap.first, gap.last + 1))
        damaged, renumbered = explained[epoch, GapReason.DAMAGED], explained[epoch, GapReason.RENUMBERED]
        assert set(range(cuts[7], cuts[7] + 10)) - damaged <= sent
        assert sent | damaged | renumbered == set(range(1, count + 1))
        assert not renumbered & (sent | damaged)
        old_of = dict(enumerate(await values(buffer), 1))  # The source time of an entry is its first number.
        cursor = await buffer.cursor("bridge")
        left = Progress.from_state(cursor.seq, cursor.state, buffer.epoch)
        done = set(range(1, left.floor + 1)).union(*(range(first, last + 1) for first, last in left.ahead))
        assert left.planned == []
        assert explained.get((buffer.epoch, GapReason.CARRIED), set()) == done
        assert {old for new, old in old_of.items() if new not in done} == renumbered
        assert {old_of[new] for new in done} == sent - damaged


@pytest.mark.parametrize("version", [3, 66, 258])
async def test_a_flipped_version_is_damage_and_a_newer_file_is_left_alone(tmp_path: Path, version: int) -> None:
    """The tables tell the two apart: what has ours is salvaged, what has others is refused and stays as it is."""
    path = tmp_path / "buffer.db"
    epoch = await filled(path, 300)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {version}")
    async with Buffer.open(path, "northfield") as buffer:
        assert buffer.epoch > epoch
        assert await values(buffer) == list(range(1, 301))
    with sqlite3.connect(path) as db:
        db.executescript(f"CREATE TABLE newer(x); PRAGMA user_version = {version}")
    with pytest.raises(StoreError, match="install the newer"):
        async with Buffer.open(path, "northfield"):
            pass


async def test_what_is_no_database_at_all_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Even with nothing to salvage the plant goes on."""
    path = tmp_path / "buffer.db"
    path.write_bytes(random.Random(1).randbytes(50_000))
    async with Buffer.open(path, "northfield") as buffer:
        assert await buffer.append([reading(1)]) == 1
    assert "the file is damaged" in caplog.text
    assert next(tmp_path.glob("buffer.damaged-*.db")).stat().st_size == 50_000


async def test_check_export_and_import(tmp_path: Path) -> None:
    """A copy is checked, written as JSON and read into another log: the same entries, in order."""
    path, out, other = tmp_path / "buffer.db", tmp_path / "out.jsonl", tmp_path / "other.db"
    epoch = await filled(path, 20_100)

    async def run(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["buffer", *arguments])
        return result.exit_code, result.output

    code, text = await run("check", str(path))
    assert code == 0
    assert "readings: 20,100 entries up to number 20,100" in text
    assert (await run("export", str(path), str(out)))[0] == 0
    assert json.loads(out.read_text("utf-8").splitlines()[0])["id"] == f"northfield:{epoch}:readings:1"
    assert (await run("import", str(out), str(other), "--plant", "northfield"))[0] == 0
    assert next(piece.entries for piece in list(pieces(other, Report())))[0] == reading(1)
    async with Buffer.open(other, "northfield") as buffer:
        assert await values(buffer) == list(range(1, 20_101))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE block_readings SET body = x'00' WHERE first = 5001")
    code, text = await run("check", str(path))
    assert code == 1
    assert "5,001 to 10,000" in text
    assert (await run("check", str(tmp_path / "absent.db")))[0] == 2


async def test_cursors_are_listed_and_forgotten(tmp_path: Path) -> None:
    """Who follows, how far it has come, and the end of one that is no more; a name that is not there is said."""
    path = tmp_path / "buffer.db"
    await filled(path, 20_050)

    async def run(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["buffer", "cursors", str(path), *arguments])
        return result.exit_code, result.output

    assert await run() == (0, "bridge: readings up to 12,000, 8,050 wait for it\n")
    code, text = await run("--forget", "bridges")
    assert (code, "no cursor 'bridges'" in text) == (2, True)
    assert (await run("--forget", "bridge"))[0] == 0
    assert await run() == (0, "")


async def test_a_kill_during_renewal_costs_nothing(tmp_path: Path) -> None:
    """Killed after the damaged file was set aside: the new one is whole, and takes its place at the next start."""
    path = tmp_path / "buffer.db"
    await filled(path, 20_050)
    report, aside = await renew(path, "northfield", "acme")
    assert (report.faults, aside.exists()) == ([], True)
    path.rename(tmp_path / "buffer.salvaged.db")
    async with Buffer.open(path, "northfield") as buffer:
        assert await values(buffer) == list(range(1, 20_051))
        assert (await buffer.cursor("bridge")).seq == 12_000


@pytest.mark.parametrize("damage", ["flip", "page"])
async def test_a_damaged_first_page_costs_nothing(tmp_path: Path, damage: str) -> None:
    """Wherever a byte of SQLite's header changes, the log opens; entries, numbers and cursors are not lost with it."""
    path, chance = tmp_path / "b.db", random.Random(4)
    await filled(path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    whole = path.read_bytes()
    for place in range(0, 100, 4) if damage == "flip" else (0,):
        for file in tmp_path.iterdir():
            file.unlink()
        data = bytearray(whole)
        data[place] ^= 1 << chance.randrange(8)
        if damage == "page":
            data[:PAGE] = chance.randbytes(PAGE)
        path.write_bytes(data)
        async with Buffer.open(path, "northfield") as buffer:
            assert await values(buffer) == list(range(1, 20_301)), place
            assert (await buffer.cursor("bridge")).seq == 12_000


async def test_a_damaged_block_that_sqlite_does_not_notice_becomes_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flipped byte in a block's body is nothing to SQLite: a follower passes over the block, and a gap names it."""
    monkeypatch.setattr("appliance.buffer.keeper.LOOK_S", 0.05)
    path = tmp_path / "b.db"
    epoch = await filled(path)
    with sqlite3.connect(path) as db:
        (body,) = db.execute("SELECT body FROM block_readings WHERE first = 10001").fetchone()
        spoiled = bytes([*body[:500], body[500] ^ 1, *body[501:]])
        db.execute("UPDATE block_readings SET body = ? WHERE first = 10001", (spoiled,))
    db.close()
    async with Buffer.open(path, "northfield") as buffer:
        assert buffer.epoch == epoch
        assert (await buffer.read(Stream.READINGS, 10_000, 10)).first == 15_001
        async with asyncio.timeout(20):
            await buffer.grown(Stream.EVENTS, 0)
        (gap,) = await gaps(buffer)
        assert (gap.first, gap.last, gap.reason) == (10_001, 15_000, GapReason.DAMAGED)
        block = await buffer.sealed(Stream.READINGS, 10_000)
        assert block is not None and block.first == 15_001
