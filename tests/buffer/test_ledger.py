"""The Ledger: every number has one fate, every window is said once, and green is the cloud's word alone."""

import random
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import pytest
from ledgers import NOON_US, PUMPS, Clock, ToldSender, plant, reading

from appliance.buffer import ledger as ledger_module
from appliance.buffer.accounts import WindowState
from appliance.contract.ledger import WINDOW_US, Tally, WindowTally, tallies, window_of
from appliance.contract.reading import Reading, Stream


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
