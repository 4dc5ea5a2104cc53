"""The Ledger when things go wrong: clocks, kills, lost files, a log that lets go. No number is counted twice or not."""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import NOON_US, PUMPS, Clock, Plant, ToldSender, plant, reading

from appliance.buffer import keeper as keeper_module
from appliance.buffer import tail as tail_module
from appliance.buffer.buffer import Buffer
from appliance.buffer.damage import FileDamaged
from appliance.buffer.retention import Bounds
from appliance.buffer.schema import WAL_BYTES
from appliance.contract.gap import GAP_ORIGIN, Gap, GapReason, gap_topic
from appliance.contract.ledger import WINDOW_US, tallies
from appliance.contract.reading import Stream
from appliance.ledger import ledger as ledger_module
from appliance.ledger.accounts import UNKNOWN, WindowState

DAY_US = 86_400_000_000
YEAR_US = 365 * DAY_US


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "TURN_S", 0.005)
    monkeypatch.setattr(ledger_module, "LOOK_S", 0.0)


async def test_a_clock_that_jumps_splits_windows_and_loses_nothing(tmp_path: Path) -> None:
    """Back five days, forth again, and forward a year: each number is in one window, and said in one event."""
    entries = []
    async with plant(tmp_path) as its:
        for at_us in (0, -5 * DAY_US, 1_000, YEAR_US, WINDOW_US):
            its.clock.us = NOON_US + at_us
            mine = [reading(its.clock.us + number, PUMPS[number % 3]) for number in range(50)]
            entries += mine
            await its.buffer.append(mine)
            await its.counted()
        windows = {window.start_us: window for window in await its.ledger.windows(0, 2**62)}
        assert {at_us - NOON_US: (its.first, its.last) for at_us, its in windows.items()} == {
            0: (1, 150),
            -5 * DAY_US: (51, 100),
            YEAR_US // WINDOW_US * WINDOW_US: (151, 200),
            WINDOW_US: (201, 250),
        }
        assert sum(account.produced for account in windows[NOON_US].accounts) == 100, "the numbers between are others'"
        told = await its.told()
        assert [(window.first, window.last) for window in told if window.equipment] == [
            (first, first + 49) for first in (1, 51, 101, 151)
        ]
        for window in told:
            if window.equipment:
                assert window.equipment == tallies(window.first, entries[window.first - 1 : window.last])


async def test_a_file_that_turns_bad_in_use_is_made_anew_from_the_log(tmp_path: Path) -> None:
    """Its pages are overwritten while the ledger counts: the run ends, and the next one counts every number again."""
    clock = Clock()
    with pytest.raises(ExceptionGroup) as raised:
        async with plant(tmp_path, clock=clock) as its:
            while True:
                clock.us += WINDOW_US
                await its.buffer.append([reading(clock.us + n, PUMPS[n % 3], float(n)) for n in range(500)])
                await its.counted()
                if its.buffer.last() == 5_000:
                    overwrite(tmp_path / "ledger.db")
    assert raised.group_contains(FileDamaged)
    async with plant(tmp_path, clock=clock) as its:
        await its.counted()
        windows = await its.ledger.windows(0, 2**62)
        assert sum(account.produced for window in windows for account in window.accounts) == its.buffer.last()
        assert list(tmp_path.glob("ledger.damaged-*.db"))
        told = [window for window in await its.told() if window.equipment]
        assert len({window.first for window in told}) == len(told), "no window is said twice"


def overwrite(path: Path) -> None:
    """All pages but the first two."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(8_192)
        file.write(random.Random(1).randbytes(path.stat().st_size - 8_192))


async def test_silence_is_said_once_for_each_window(tmp_path: Path) -> None:
    """No entries: one event for each window of five minutes, one for a clock that jumps, none while nothing ran."""
    clock = Clock()
    async with plant(tmp_path, clock=clock) as its:
        await its.counted()
        for expected in ([], [1], [1, 2], [1, 2, 3]):
            assert [(window.start_us - NOON_US) // WINDOW_US for window in await its.told()] == expected
            clock.us += WINDOW_US
            if not expected:
                clock.us += WINDOW_US + 31_000_000
            await its.counted()
        clock.us += YEAR_US
        await its.counted()
        assert len(await its.told()) == 5
        clock.us -= YEAR_US
        await its.counted()
        assert len(await its.told()) == 5
    clock.us += 7 * WINDOW_US
    async with plant(tmp_path, clock=clock) as its:
        await its.counted()
        told = await its.told()
        assert len(told) == 5
        assert {(window.first, window.last, len(window.equipment)) for window in told} == {(1, 0, 0)}


_FOLLOWER = """
import asyncio, sys
from pathlib import Path
from appliance.ledger import counting, ledger
from appliance.buffer.buffer import Buffer
from appliance.buffer.damage import FileDamaged
from appliance.ledger.store import LedgerStore

ledger.TURN_S, ledger.LOOK_S, counting.BATCH_MAX, counting.TOLD_MAX = 0.001, 0.01, 97, 3

async def main(folder, now_us):
    async with Buffer.open(folder / "buffer.db", "northfield") as buffer:
        async with LedgerStore.open(folder / "ledger.db") as store:
            print("follows", flush=True)
            await ledger.Ledger(buffer, store, "acme", lambda: now_us).run()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def test_kills_count_nothing_twice_and_say_each_window_once(tmp_path: Path) -> None:
    """Killed at random moments while it catches up, twice with its file deleted: counts and events are exact."""
    chance = random.Random(5)
    at_us, entries = NOON_US, []
    for _ in range(20_000):
        at_us += chance.choice([0, 1_000, 3_000_000, 40_000_000] if chance.random() < 0.05 else [1_000])
        if chance.random() < 0.0005:
            at_us -= chance.choice([WINDOW_US, 5 * DAY_US])
        entries.append(reading(at_us, chance.choice(PUMPS)))
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await buffer.append(entries)
    for round_ in range(8):
        if round_ in (2, 5):
            for file in tmp_path.glob("ledger.db*"):
                file.unlink()
        with subprocess.Popen(
            [sys.executable, "-c", _FOLLOWER, str(tmp_path), str(at_us)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            await asyncio.sleep(chance.uniform(0.05, 0.3))  # The random moment itself.
            process.send_signal(signal.SIGKILL)
    async with plant(tmp_path, clock=Clock(at_us + 2 * WINDOW_US)) as its:
        await its.counted()
        told = sorted(await its.told(), key=lambda window: window.first)
        assert [window.first for window in told] == [1, *(window.last + 1 for window in told[:-1])]
        assert told[-1].last == len(entries)
        for window in told:
            assert window.equipment == tallies(window.first, entries[window.first - 1 : window.last])
        windows = await its.ledger.windows(0, 2**62)
        counts = {
            (window.start_us, account.equipment): account.stored for window in windows for account in window.accounts
        }
        expected: dict[tuple[int, str], int] = {}
        for window in told:
            for name, tally in window.equipment.items():
                expected[window.start_us, name] = expected.get((window.start_us, name), 0) + tally.entries
        assert counts == expected


async def test_a_lost_or_damaged_file_is_made_again(tmp_path: Path) -> None:
    """Without ledger.db, with rubbish, or with a torn page in it: the windows come back, and nothing is said again."""
    entries = [reading(NOON_US + number * 500_000, PUMPS[number % 3]) for number in range(2_000)]
    clock = Clock(NOON_US + 1_040_000_000)
    async with plant(tmp_path, clock=clock) as its:
        await its.buffer.append(entries)
        await its.counted()
        windows, told = await its.ledger.windows(0, 2**62), await its.told()
        assert len(told) >= 3
    file = tmp_path / "ledger.db"
    torn = bytearray(file.read_bytes())
    torn[4_096:12_288] = random.Random(1).randbytes(8_192)
    for content in (None, b"no database at all" * 1_000, bytes(torn)):
        for each in tmp_path.glob("ledger.db*"):
            each.unlink()
        if content:
            file.write_bytes(content)
        async with plant(tmp_path, clock=clock) as its:
            await its.counted()
            assert await its.ledger.windows(0, 2**62) == windows
            assert await its.told() == told
    assert len(list(tmp_path.glob("ledger.damaged-*.db"))) == 2


async def test_a_file_of_another_version_is_kept_and_made_again(tmp_path: Path) -> None:
    """After an upgrade and back: the file of the other version stays beside the new one."""
    async with plant(tmp_path) as its:
        await its.buffer.append([reading(NOON_US)])
        await its.counted()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        db.execute("PRAGMA user_version = 99")
    async with plant(tmp_path) as its:
        await its.counted()
        assert len(await its.ledger.windows(0, 2**62)) == 1
    assert len(list(tmp_path.glob("ledger.damaged-*.db"))) == 1


@pytest.fixture
def quick_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "TAIL_ENTRIES_MAX", 100)
    monkeypatch.setattr(keeper_module, "LOOK_S", 0.05)
    monkeypatch.setattr(keeper_module, "LOOK_BUSY_S", 0.02)
    monkeypatch.setattr(keeper_module, "SEAL_AGE_S", 0.05)


SMALL = Bounds(size_max_bytes=WAL_BYTES + 4_000_000, free_min_bytes=0)


async def filled(buffer: Buffer, count: int, at_us: int) -> None:
    """Append entries of half a kilobyte that do not compress, from all pumps."""
    for first in range(buffer.last() + 1, buffer.last() + count, 500):
        chance = random.Random(first)
        await buffer.append([reading(at_us, PUMPS[number % 3], chance.randbytes(250).hex()) for number in range(500)])
        await asyncio.sleep(0.01)


async def filled_and_counted(its: Plant, count: int) -> None:
    """As `filled`, while the Ledger keeps up."""
    for _ in range(0, count, 500):
        await filled(its.buffer, 500, its.clock.us)
        await its.until(lambda: its.ledger.status().behind == 0)


async def test_what_retention_dropped_is_counted_by_reason(tmp_path: Path, quick_keeper: None) -> None:
    """An outage outlasts the log: what was never sent is dropped by size, by equipment, and the rest turns green."""
    async with plant(tmp_path, bounds=SMALL) as its:
        its.sender.acknowledge(Stream.READINGS, 1, 700)
        await filled_and_counted(its, 25_000)
        its.clock.us += WINDOW_US + 40_000_000
        await its.until(lambda: its.buffer.keeper.sealed_to[Stream.READINGS] == its.buffer.last())
        await its.counted()
        dropped = its.buffer.keeper.dropped_entries
        assert dropped > 1_000
        # The Bridge passes over what has left the log, as if it had sent it.
        its.lake_has_all(but=[(701, dropped)])
        await its.counted()
        (window,) = await its.ledger.windows(0, 2**62)
        assert window.state is WindowState.EXPLAINED
        assert sum(account.produced for account in window.accounts) == its.buffer.last()
        assert sum(account.in_lake for account in window.accounts) == its.buffer.last() - dropped + 700
        assert sum(account.dropped["size"] for account in window.accounts) == dropped - 700
        assert max(account.dropped["size"] for account in window.accounts) < dropped / 2, "by equipment"
        assert window.missing == ()


async def test_what_was_acknowledged_and_then_dropped_waits_for_the_lake(tmp_path: Path, quick_keeper: None) -> None:
    """The drop is not why the lake has it not: it waits, and when it is proven to be lost, it is missing."""
    async with plant(tmp_path, bounds=SMALL) as its:
        await filled_and_counted(its, 3_000)
        its.sender.acknowledge(Stream.READINGS, 1, 3_000)
        await its.counted()
        await filled_and_counted(its, 25_000)
        its.sender.acknowledge(Stream.READINGS, 1, its.buffer.last())
        await its.counted()
        assert its.buffer.keeper.dropped_entries > 3_000
        held = [(101, its.buffer.last())]
        proof = its.receipt(held)
        await its.counted()
        (window,) = await its.ledger.windows(0, 2**62)
        assert (window.state, [dict(account.dropped) for account in window.accounts]) == (WindowState.WAITING, [{}] * 3)
        its.receipt(held, complete_to_us=proof.at_us)
        await its.counted()
        (window,) = await its.ledger.windows(0, 2**62)
        assert (window.state, window.missing) == (WindowState.MISSING, ((1, 100),))
        assert its.sender.asked == [], "the log has it no more"


async def test_a_hole_in_the_log_is_counted_from_its_gap(tmp_path: Path, quick_keeper: None) -> None:
    """The log let go before the Ledger came: the numbers are produced and dropped, and nobody knows whose they were."""
    async with Buffer.open(tmp_path / "buffer.db", "northfield", SMALL) as buffer:
        await filled(buffer, 25_000, NOON_US)
    async with plant(tmp_path, clock=Clock(NOON_US + WINDOW_US + 40_000_000)) as its:
        await its.counted()
        events = (await its.buffer.read(Stream.EVENTS, 0, 5_000)).entries
        dropped = sum(Gap.from_entry(entry).count for entry in events if entry.origin == GAP_ORIGIN)
        assert dropped > 1_000
        (window,) = await its.ledger.windows(0, 2**62)
        accounts = {account.equipment: account for account in window.accounts}
        unknown = accounts.pop(UNKNOWN)
        assert (unknown.produced, unknown.stored, dict(unknown.dropped)) == (dropped, 0, {"size": dropped})
        assert sum(account.stored for account in accounts.values()) == its.buffer.last() - dropped
        (told,) = [window for window in await its.told() if window.equipment]
        assert (told.first, told.last) == (dropped + 1, its.buffer.last()), "what nobody has read is not said"


async def test_the_oldest_windows_go_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a small bound the file stays under it, the newest windows stay, and the log says so once."""
    chance = random.Random(2)
    async with plant(tmp_path, size_max=600_000) as its:
        for number in range(300):
            at_us = NOON_US + number * WINDOW_US
            pumps = [f"{PUMPS[0]}{chance.randrange(200)}" for _ in range(1_000)]
            await its.buffer.append([reading(at_us + place, pump) for place, pump in enumerate(pumps)])
        its.clock.us = NOON_US + 300 * WINDOW_US
        await its.counted()
        status = its.ledger.status()
        assert status.windows_dropped > 0
        assert status.size_bytes <= 600_000
        windows = await its.ledger.windows(0, 2**62)
        assert windows[0].start_us == NOON_US + 299 * WINDOW_US
        assert windows[-1].start_us > NOON_US
        assert sum("oldest windows go first" in record.message for record in caplog.records) == 1


async def test_windows_of_the_epoch_before_stay(tmp_path: Path) -> None:
    """The log's file was damaged: what was carried over stands in the lake under its old name, as a gap says."""
    sender, clock = ToldSender(), Clock()
    async with plant(tmp_path, sender, clock) as its:
        entries = [reading(NOON_US + number, PUMPS[number % 3]) for number in range(300)]
        await its.buffer.append(entries)
        sender.acknowledge(Stream.READINGS, 1, 200)
        await its.counted()
        old_epoch = its.buffer.epoch
    (tmp_path / "buffer.db").rename(tmp_path / "buffer.old.db")
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as new_log:
        await new_log.append(entries)
        cursor = await new_log.cursor("ledger")
        await cursor.advance(0, str(old_epoch))
        for epoch, first, last, reason in (
            (new_log.epoch, 1, 200, GapReason.CARRIED),
            (old_epoch, 201, 300, GapReason.DAMAGED),
            (0, 0, -1, GapReason.SIZE),
        ):
            gap = Gap(epoch, Stream.READINGS, first, last, last - first + 1, 0, reason, (), 0, 0, 0)
            await new_log.append([gap.entry(gap_topic("acme", "northfield"), clock.us)], Stream.EVENTS)
    clock.us += WINDOW_US + 40_000_000
    async with plant(tmp_path, sender, clock) as its:
        assert its.buffer.epoch != old_epoch
        its.cloud_us = 5_000
        its.receipt([(1, 200)], epoch=old_epoch)
        await its.counted()
        windows = {window.epoch: window for window in await its.ledger.windows(0, 2**62)}
        old, new = windows[old_epoch], windows[its.buffer.epoch]
        assert sum(account.in_lake for account in old.accounts) == 200
        assert sum(account.dropped["damaged"] for account in old.accounts) == 100
        assert old.state is WindowState.EXPLAINED
        assert sum(account.dropped["carried"] for account in new.accounts) == 200
        assert new.state is WindowState.WAITING
        its.receipt([(201, 300)])
        its.receipt([(1, its.buffer.last(Stream.EVENTS))], Stream.EVENTS)
        its.receipt([(201, 300)])
        await its.counted()
        (new,) = [window for window in await its.ledger.windows(0, 2**62) if window.epoch == its.buffer.epoch]
        assert new.state is WindowState.EXPLAINED
        told = [window for window in await its.told() if window.epoch == its.buffer.epoch]
        assert [(window.first, window.last) for window in told] == [(201, 300)], "nobody can compare what was carried"


async def test_a_write_that_fails_is_made_up_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Someone holds the file for too long: the Ledger fails, is started again, and counts nothing twice or not."""
    entries = [reading(NOON_US + number * 1_000_000, PUMPS[number % 3]) for number in range(900)]
    async with plant(tmp_path) as its:
        its.clock.us = entries[399].arrival_us
        await its.buffer.append(entries[:400])
        await its.counted()
        with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await its.buffer.append(entries[400:])
            its.clock.us = entries[-1].arrival_us
            its.receipt([(1, 50)])
            await its.until(lambda: any("ledger failed; starting it again" in each.message for each in caplog.records))
            other.execute("ROLLBACK")
        await its.until(lambda: its.ledger.status().behind == 0)
        await its.counted()
        windows = await its.ledger.windows(0, 2**62)
        assert [(window.first, window.last) for window in windows] == [(601, 900), (301, 600), (1, 300)]
        assert sum(account.in_lake for window in windows for account in window.accounts) == 50
        told = [window for window in await its.told() if window.equipment]
        assert [(window.first, window.last) for window in told] == [(1, 300), (301, 600)]
        for window in told:
            assert window.equipment == tallies(window.first, entries[window.first - 1 : window.last])
