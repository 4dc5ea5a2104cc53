"""The Ledger: every number has one fate, every window is said once, and green is the cloud's word alone."""

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import reduce
from pathlib import Path

import pytest
from ledgers import NOON_US, PUMPS, ToldSender, plant, reading

from appliance.contract.ledger import WINDOW_US, Tally, WindowTally, tallies, window_of
from appliance.contract.reading import Reading, Stream
from appliance.contract.receipt import Receipt
from appliance.ledger import ledger as ledger_module
from appliance.ledger import losses as losses_module
from appliance.ledger.accounts import WindowState


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "TURN_S", 0.005)
    monkeypatch.setattr(ledger_module, "LOOK_S", 0.0)


def naive(entries: Sequence[Reading], first: int = 1) -> dict[tuple[int, str], Tally]:
    """The tally of each window and equipment, one entry after the other."""
    found: dict[tuple[int, str], Tally] = {}
    for number, entry in enumerate(entries, first):
        for name, tally in tallies(number, [entry]).items():
            key = (window_of(entry.arrival_us), name)
            found[key] = found.get(key, Tally()).plus(tally)
    return found


async def rows(folder: Path, table: str, where: str = "1") -> int:
    """How many rows of a table of the Ledger's file there are."""
    with closing(sqlite3.connect(folder / "ledger.db")) as db:
        (count,) = db.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()
        return int(count)


def summed(told: Sequence[WindowTally]) -> dict[tuple[int, str], Tally]:
    found: dict[tuple[int, str], Tally] = {}
    for window in told:
        for name, tally in window.equipment.items():
            found[window.start_us, name] = found.get((window.start_us, name), Tally()).plus(tally)
    return found


async def test_windows_are_counted_and_said(tmp_path: Path) -> None:
    """Three windows of three pumps: counts and fingerprints are those of the entries, one by one; the last is open."""
    chance = random.Random(1)
    entries = [
        reading(NOON_US + number * 1_000_000, chance.choice(PUMPS), chance.choice([1.5, 2, True, "on", None]))
        for number in range(800)
    ]
    async with plant(tmp_path) as its:
        its.clock.us = entries[-1].arrival_us
        await its.buffer.append(entries)
        await its.counted()
        windows = await its.ledger.windows(0, 2**62)
        assert [(window.start_us, window.first, window.last) for window in windows] == [
            (NOON_US + 2 * WINDOW_US, 601, 800),
            (NOON_US + WINDOW_US, 301, 600),
            (NOON_US, 1, 300),
        ]
        counts = {(w.start_us, a.equipment): a.produced for w in windows for a in w.accounts}
        assert counts == {key: tally.entries for key, tally in naive(entries).items()}
        told = await its.told()
        assert [(window.first, window.last) for window in told] == [(1, 300), (301, 600)]
        assert summed(told) == naive(entries[:600])
        digests = {window.start_us: int(window.digest, 16) for window in windows}
        for start_us, digest in digests.items():
            of_window = [tally for (at_us, _), tally in naive(entries).items() if at_us == start_us]
            assert reduce(Tally.plus, of_window).fingerprint == digest


async def test_green_is_the_clouds_word_alone(tmp_path: Path) -> None:
    """Sent and acknowledged is waiting. Green comes with the receipt, once the cloud has the tally to compare with."""
    async with plant(tmp_path) as its:
        await its.buffer.append([reading(NOON_US + number, PUMPS[number % 3]) for number in range(30)])
        its.clock.us += WINDOW_US + 40_000_000
        await its.until(lambda: its.buffer.last(Stream.EVENTS) == 1)

        async def state() -> WindowState:
            await its.counted()
            (window,) = await its.ledger.windows(0, 2**62)
            assert its.ledger.status().windows[window.state] == 1
            return window.state

        assert await state() is WindowState.WAITING
        its.sender.acknowledge(Stream.READINGS, 1, 30)
        assert await state() is WindowState.WAITING
        its.receipt([(1, 29)])
        assert await state() is WindowState.WAITING
        its.receipt([(1, 30)])
        assert await state() is WindowState.WAITING, "the cloud has nothing to compare with yet"
        its.receipt([(1, 1)], Stream.EVENTS)
        assert await state() is WindowState.WAITING, "the receipt of the readings is older than that"
        its.receipt([(1, 30)])
        assert await state() is WindowState.GREEN
        its.receipt([(1, 30)], differing=(NOON_US,))
        assert await state() is WindowState.MISSING
        its.receipt([(1, 30)])
        assert await state() is WindowState.GREEN


async def test_a_part_of_a_window_is_counted_by_equipment(tmp_path: Path) -> None:
    """The lake lacks some readings that the log has: for each pump it says how many are there."""
    chance = random.Random(4)
    entries = [reading(NOON_US + number, chance.choice(PUMPS)) for number in range(12_000)]
    async with plant(tmp_path) as its:
        await its.buffer.append(entries)
        its.clock.us += WINDOW_US + 40_000_000
        await its.until(lambda: its.buffer.last(Stream.EVENTS) == 1)
        its.lake_has_all(but=[(1_000, 1_002), (6_000, 11_500)])
        await its.counted()
        (window,) = await its.ledger.windows(0, 2**62)
        assert window.state is WindowState.WAITING
        absent = entries[999:1_002] + entries[5_999:11_500]
        for account in window.accounts:
            mine = [entry for entry in entries if entry.topic.startswith(f"{account.equipment}/")]
            missing = [entry for entry in absent if entry.topic.startswith(f"{account.equipment}/")]
            assert (account.produced, account.in_lake) == (len(mine), len(mine) - len(missing))


async def test_settled_windows_take_late_entries_and_tell_on_the_lake(tmp_path: Path) -> None:
    """Green windows become one row each. A late entry joins it, and what the lake loses afterwards turns it."""
    async with plant(tmp_path) as its:
        await its.buffer.append([reading(NOON_US + number * 1_000_000) for number in range(900)])
        its.clock.us += 3 * WINDOW_US + 40_000_000
        await its.until(lambda: its.buffer.last(Stream.EVENTS) >= 3)
        before = await its.ledger.windows(0, 2**62)
        its.lake_has_all()
        await its.counted()
        assert await rows(tmp_path, "settled") == 2, "the newest stays open for what may come"
        after = await its.ledger.windows(0, 2**62)
        assert [window.digest for window in after] == [window.digest for window in before]
        assert {window.state for window in after} == {WindowState.GREEN}

        await its.buffer.append([reading(NOON_US + 5, PUMPS[1]), reading(NOON_US + 5 * WINDOW_US)])
        await its.counted()
        late = (await its.ledger.windows(0, NOON_US))[0]
        assert late.state is WindowState.WAITING
        assert {account.equipment: account.produced for account in late.accounts} == {PUMPS[0]: 300, PUMPS[1]: 1}
        await its.until(lambda: its.buffer.last(Stream.EVENTS) >= 4)
        its.lake_has_all()
        await its.counted()
        late = (await its.ledger.windows(0, NOON_US))[0]
        assert (late.state, late.first, late.last) == (WindowState.GREEN, 1, 901)
        assert await rows(tmp_path, "owner", "first <= 600 OR first = 901") == 0

        its.receipt([(1, 9), (20, 902)])
        await its.counted()
        late = (await its.ledger.windows(0, NOON_US))[0]
        assert (late.state, late.missing) == (WindowState.MISSING, ((10, 19),))
        assert its.ledger.status().windows["missing"] == 1


async def test_what_is_lost_is_asked_for_and_named(tmp_path: Path) -> None:
    """The hub took readings and lost some: proven by a receipt that holds what was sent later, and a later one."""
    async with plant(tmp_path) as its:
        await its.buffer.append([reading(NOON_US + number) for number in range(100)])
        its.sender.acknowledge(Stream.READINGS, 1, 100)
        await its.counted()
        await its.buffer.append([reading(NOON_US + number) for number in range(100, 120)])
        its.sender.acknowledge(Stream.READINGS, 101, 120)
        proof = its.receipt([(1, 39), (50, 110)])
        await its.counted()
        assert its.sender.asked == [], "it may still be under way behind the hub"
        its.receipt([(1, 39), (50, 120)], complete_to_us=proof.at_us)
        await its.until(lambda: bool(its.sender.asked))
        assert its.sender.asked == [(Stream.READINGS, ((40, 49),))]
        await its.counted()
        status = its.ledger.status()
        assert (status.missing_readings, status.missing, status.resends) == (10, ((40, 49),), 1)
        (window,) = await its.ledger.windows(0, 2**62)
        assert (window.state, window.missing) == (WindowState.MISSING, ((40, 49),))
        assert [account.missing for account in window.accounts] == [10]
        its.receipt([(1, 44), (50, 120)], complete_to_us=proof.at_us)
        await its.counted()
        assert its.ledger.status().missing == ((45, 49),)
    async with plant(tmp_path, its.sender) as its:
        await its.counted()
        assert its.ledger.status().missing == ((45, 49),), "it is named after a restart too"
        its.cloud_us = 1_000_000
        its.receipt([(1, 120)])
        await its.counted()
        assert its.ledger.status().missing_readings == 0
        assert len(its.sender.asked) == 1


async def test_the_same_loss_is_asked_for_three_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further time a pause later, when a younger snapshot proves it again; then it is only named."""
    monkeypatch.setattr(losses_module, "PAUSE_S", 0.01)
    async with plant(tmp_path) as its:
        proof = None
        for round_ in range(12):
            await its.buffer.append([reading(NOON_US + number) for number in range(10)])
            its.sender.acknowledge(Stream.READINGS, 1, its.buffer.last())
            held = [(1, 3), (6, its.buffer.last())]
            complete_us = proof.at_us if proof else 0
            proof = its.receipt(held, complete_to_us=complete_us)
            await its.counted()
            if round_ == 6:
                assert its.sender.asked
        assert its.sender.asked == [(Stream.READINGS, ((4, 5),))] * 3
        assert its.ledger.status().missing == ((4, 5),)


async def test_nothing_is_asked_for_without_proof(tmp_path: Path) -> None:
    """A cloud that was away for a day, a late receipt, an early one again, a restart: no reason to send again."""
    sender = ToldSender()
    async with plant(tmp_path, sender) as its:
        await its.buffer.append([reading(NOON_US + number) for number in range(1_000)])
        sender.acknowledge(Stream.READINGS, 1, 1_000)
        await its.counted()
        first = its.receipt([(1, 100)])
        its.receipt([(1, 200)], complete_to_us=first.at_us)
        its.clock.us += 86_400_000_000
        await its.buffer.append([reading(its.clock.us + number) for number in range(1_000)])
        sender.acknowledge(Stream.READINGS, 1_001, 2_000)
        await its.counted()
        drained = its.receipt([(1, 400), (1_500, 1_600)])
        its.receipt([(1, 500), (1_500, 1_700)], complete_to_us=first.at_us)
        its.ledger.received(drained)
        await its.counted()
        assert sender.asked == []
        cloud_us = its.cloud_us
    async with plant(tmp_path, sender) as its:
        its.cloud_us = cloud_us
        its.receipt([(1, 700), (1_500, 1_800)], complete_to_us=drained.at_us - 1)
        await its.counted()
        its.receipt([(1, 2_000)], complete_to_us=its.cloud_us)
        await its.counted()
        assert sender.asked == []
        assert its.ledger.status().missing_readings == 0


async def test_receipts_of_others_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another plant on the same hub: its receipts change nothing, and the log says so once."""
    async with plant(tmp_path) as its:
        await its.buffer.append([reading(NOON_US)])
        stranger = Receipt("southfield", its.buffer.epoch, Stream.READINGS, 9, 0, 99, ((1, 1),))
        its.ledger.received(stranger)
        its.ledger.received(stranger)
        await its.counted()
        assert its.ledger.status().receipt_age_s is None
        assert sum("southfield" in record.message for record in caplog.records) == 1
        (window,) = await its.ledger.windows(0, 2**62)
        assert window.accounts[0].in_lake == 0


async def test_a_quiet_plant_proves_losses_by_its_events(tmp_path: Path) -> None:
    """No reading comes after those that got lost: silence, said as an event, is what is younger in the lake."""
    async with plant(tmp_path) as its:
        await its.buffer.append([reading(NOON_US + number) for number in range(100)])
        its.sender.acknowledge(Stream.READINGS, 1, 100)
        await its.counted()
        its.clock.us += WINDOW_US + 40_000_000
        await its.until(lambda: its.buffer.last(Stream.EVENTS) == 1)
        its.sender.acknowledge(Stream.EVENTS, 1, 1)
        its.receipt([(1, 90)])
        proof = its.receipt([(1, 1)], Stream.EVENTS)
        its.receipt([(1, 90)], complete_to_us=proof.at_us - 1)
        await its.counted()
        assert its.sender.asked == []
        its.receipt([(1, 90)], complete_to_us=proof.at_us)
        await its.until(lambda: bool(its.sender.asked))
        assert its.sender.asked == [(Stream.READINGS, ((91, 100),))]


async def test_lost_events_are_asked_for_too(tmp_path: Path) -> None:
    """Alarms and gaps are entries like any other."""
    async with plant(tmp_path) as its:
        event = reading(NOON_US)
        await its.buffer.append([event] * 10, Stream.EVENTS)
        its.sender.acknowledge(Stream.EVENTS, 1, 10)
        await its.counted()
        await its.buffer.append([event], Stream.EVENTS)
        its.sender.acknowledge(Stream.EVENTS, 1, 11)
        proof = its.receipt([(1, 4), (6, 11)], Stream.EVENTS)
        its.receipt([(1, 4), (6, 11)], Stream.EVENTS, complete_to_us=proof.at_us)
        await its.until(lambda: bool(its.sender.asked))
        assert its.sender.asked == [(Stream.EVENTS, ((5, 5),))]
        assert its.ledger.status().missing_readings == 0


async def test_what_is_on_its_way_again_is_not_lost_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the Bridge carries a resend, no receipt can prove that it failed."""
    monkeypatch.setattr(losses_module, "PAUSE_S", 0.0)
    async with plant(tmp_path) as its:
        proof_us = 0
        for _ in range(6):
            await its.buffer.append([reading(NOON_US)] * 10)
            its.sender.acknowledge(Stream.READINGS, 1, its.buffer.last())
            if its.sender.asked:
                its.sender.under_way[Stream.READINGS] = ((4, 5),)
            await its.counted()
            proof_us = its.receipt([(1, 3), (6, its.buffer.last())], complete_to_us=proof_us).at_us
        assert its.sender.asked == [(Stream.READINGS, ((4, 5),))]


async def test_a_plant_with_much_equipment_says_a_window_in_parts(tmp_path: Path) -> None:
    """1,200 machines: three events of the same numbers that add up; green needs all of them to stand in the lake."""
    entries = [reading(NOON_US + number, f"{PUMPS[0]}{number % 1_200}") for number in range(3_000)]
    async with plant(tmp_path) as its:
        await its.buffer.append(entries)
        its.clock.us += WINDOW_US + 40_000_000
        await its.until(lambda: its.buffer.last(Stream.EVENTS) == 3)
        await its.counted()
        told = await its.told()
        assert [(window.first, window.last, len(window.equipment)) for window in told] == [
            (1, 3_000, count) for count in (500, 500, 200)
        ]
        assert summed(told) == naive(entries)
        for events, state in ((2, WindowState.WAITING), (3, WindowState.GREEN)):
            its.receipt([(1, events)], Stream.EVENTS)
            its.receipt([(1, 3_000)])
            (window,) = await its.ledger.windows(0, 2**62)
            assert window.state is state
            assert len(window.accounts) == 1_200
