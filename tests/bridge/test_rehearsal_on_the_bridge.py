"""An outage rehearsed with the real log and the real Bridge: a minute takes a second, everything else is as it is."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from appliance.bridge.bridge import Bridge
from appliance.bridge.folder import FolderUplink
from appliance.bridge.pacing import Clock, Pace
from appliance.buffer.buffer import Buffer
from appliance.contract.envelope_file import SUFFIX, from_bytes
from appliance.contract.ledger import window_of
from appliance.contract.reading import Quality, Reading, Stream
from appliance.ledger.accounts import Account, Window, WindowState
from appliance.rehearsal.rehearsal import Rehearsal
from appliance.rehearsal.seams import Phase, Room
from appliance.supervisor import now_us, supervise

PUMP = "acme/northfield/utilities/boiler-house/feed/pmp-204"
FASTER = 60


class FolderLake:
    """A ledger of one window, whose lake is the folder that the uplink writes to: it counts what is in the files."""

    def __init__(self, buffer: Buffer, folder: Path) -> None:
        self._buffer, self._folder, self.receipt_age_s = buffer, folder, 0.0

    def numbers(self) -> set[int]:
        sealed = [from_bytes(path.read_bytes()) for path in self._folder.rglob(f"*{SUFFIX}")]
        readings = [each for each in sealed if each.stream is Stream.READINGS]
        return {number for each in readings for number in range(each.first, each.first + each.count)}

    async def windows(self, from_us: int, to_us: int) -> list[Window]:
        last, there = self._buffer.last(), len(self.numbers())
        account = Account(PUMP, last, last, there, there, there, {}, 0)
        state = WindowState.GREEN if there == last else WindowState.WAITING
        return [Window(self._buffer.epoch, window_of(now_us()), 1, last, state, False, "0" * 16, (), (account,))]

    def status(self) -> "FolderLake":
        return self


async def test_nothing_leaves_while_the_link_is_cut_and_all_of_it_afterwards(
    tmp_path: Path, until: Callable[..., object]
) -> None:
    """While the link is held the folder does not grow; after the release every reading is there, and it has passed."""
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        out = tmp_path / "envelopes"
        pace = Pace(flush_s=0.02, pause_s_min=0.05)
        bridge, lake = (
            Bridge(buffer, FolderUplink(out), FolderUplink(tmp_path / "refused"), pace),
            FolderLake(buffer, out),
        )
        clock = Clock(now_us, lambda: monotonic() * FASTER, lambda seconds: asyncio.sleep(seconds / FASTER))
        room = Room(10**9, None, False)
        rehearsal = Rehearsal(buffer, lambda: room, bridge, lake, tmp_path, "1.0", clock=clock)

        async def produce() -> None:
            while True:
                at_us = now_us()
                await buffer.append([Reading(f"{PUMP}/flow", 1.5, Quality.GOOD, at_us, at_us, at_us, "test")] * 20)
                await asyncio.sleep(0.01)

        async with supervise() as parts:
            parts.start("bridge", bridge.run)
            parts.start("rehearsal", rehearsal.run)
            producer = asyncio.create_task(produce())
            await until(lambda: len(lake.numbers()) > 100)
            await rehearsal.start(1, "a test")
            await until(lambda: bridge.status().in_flight == 0)
            before = lake.numbers()
            await until(lambda: rehearsal.status().left_s < 15)
            assert bridge.status().held == "outage rehearsal" and lake.numbers() == before
            assert rehearsal.status().waiting > 100 and not producer.done()
            await until(lambda: rehearsal.status().phase is not Phase.CUT)
            producer.cancel()
            await until(lambda: rehearsal.status().phase is Phase.DONE)
        facts = rehearsal.shelf.newest()
        assert facts is not None and facts["verdict"] == "PASSED" and facts["totals"]["difference"] == 0
        assert facts["first"] > max(before) and facts["count"] > 300
        assert lake.numbers() == set(range(1, buffer.last() + 1))
