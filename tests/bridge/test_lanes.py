"""The lanes after an outage: the newest readings flow at once, the older ones drain beside them."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.bridge.bridge import Bridge
from appliance.bridge.folder import FolderUplink
from appliance.bridge.pacing import Clock, Pace
from appliance.bridge.uplink import UplinkError
from appliance.buffer.buffer import Buffer
from appliance.buffer.tail import Batch
from appliance.contract.envelope import Lane, Sealed, open_sealed
from appliance.contract.reading import Quality, Reading, Stream

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"


def readings(start: int, count: int, arrival_us: int) -> list[Reading]:
    rng = random.Random(start)
    return [
        Reading(TOPIC, rng.random(), Quality.GOOD, arrival_us, arrival_us, arrival_us, "opcua:demo")
        for _ in range(count)
    ]


@asynccontextmanager
async def running(bridge: Bridge) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bridge.run())
        yield
        task.cancel()


class SlowWorld:
    """A clock that runs when something takes time, a link of so many bytes a second, and machines that go on."""

    name = "slow"

    def __init__(self, buffer: Buffer, bytes_per_s: float, readings_per_s: int) -> None:
        self.buffer, self.bytes_per_s, self.readings_per_s = buffer, bytes_per_s, readings_per_s
        self.at_s, self.produced, self.produces_until_s = 1_000.0, 0, 1_000.0
        self.arrived: list[tuple[float, Sealed, Lane]] = []
        self.clock = Clock(lambda: int(self.at_s * 1e6), lambda: self.at_s, self.sleep)

    async def sleep(self, pause_s: float) -> None:
        """Time passes in steps of half a second, and each brings its readings."""
        until_s = self.at_s + pause_s
        while self.at_s < until_s:
            step_s = min(0.5, until_s - self.at_s)
            self.at_s += step_s
            count = round(step_s * self.readings_per_s) if self.at_s < self.produces_until_s else 0
            if count:
                await self.buffer.append(readings(self.buffer.last(), count, self.clock.now_us()))
        await asyncio.sleep(0)

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        await self.sleep(len(sealed.body) / self.bytes_per_s)
        self.arrived.append((self.at_s, sealed, lane))

    async def close(self) -> None:
        pass


async def test_new_readings_arrive_within_5_s_while_200_000_drain(tmp_path: Path, until: Callable[..., Any]) -> None:
    """A slow link after an outage: p95 from arrival to acknowledgement of the new ones, all of both, each once."""
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await buffer.append(readings(0, 200_000, 0))
        world = SlowWorld(buffer, bytes_per_s=60_000, readings_per_s=400)
        world.produces_until_s = world.at_s + 60
        pace = Pace(in_flight=1)
        bridge = Bridge(buffer, world, FolderUplink(tmp_path / "refused"), pace, world.clock)
        async with running(bridge):
            await until(lambda: world.at_s > world.produces_until_s and bridge.status().readings.backlog == 0, 60)
        status = bridge.status()
        total = buffer.last()
    waits_s = sorted(
        at_s - entry.arrival_us / 1e6
        for at_s, sealed, _ in world.arrived
        for entry in open_sealed(sealed).entries
        if entry.arrival_us
    )
    assert waits_s[int(len(waits_s) * 0.95)] < 5.0
    assert [lane for _, _, lane in world.arrived[:2]] == [Lane.LIVE, Lane.BACKLOG]
    old = [sealed.first for _, sealed, lane in world.arrived if lane is Lane.BACKLOG]
    assert old == sorted(old)
    assert_whole([sealed for _, sealed, _ in world.arrived], total)
    assert status.lanes["backlog"].entries + status.lanes["live"].entries == total
    assert status.drain_s == 0.0


def assert_whole(arrived: list[Sealed], total: int) -> None:
    """Copies aside, envelopes do not overlap and nothing is missing: the same bounds and bytes at every resend."""
    after = 0
    for sealed in sorted(set(arrived), key=lambda one: one.first):
        assert sealed.first == after + 1
        after += sealed.count
    assert after == total


def whole(bridge: Bridge, buffer: Buffer) -> bool:
    """Whether all that is in the log is acknowledged, durably."""
    status = bridge.status()
    lasts = {Stream.READINGS: status.readings, Stream.EVENTS: status.events}
    return all(stream.acknowledged_seq == buffer.last(name) for name, stream in lasts.items())


class Fatal:
    """A far side that stores; the appliance dies at a random moment around it, sends being many at once."""

    name = "fatal"

    def __init__(self, rng: random.Random, stored: list[Sealed]) -> None:
        self.rng, self.stored = rng, stored
        self.left = rng.randrange(1, 14)
        self.dead = asyncio.Event()

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        for _ in range(self.rng.randrange(6)):
            await asyncio.sleep(0)
        if self.rng.random() < 0.2:
            raise UplinkError("cut before", "mend it")
        self.stored.append(sealed)
        self.left -= 1
        if self.left <= 0:
            self.dead.set()
        if self.rng.random() < 0.2:
            raise UplinkError("cut after", "mend it")

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("seed", range(6))
async def test_killed_at_any_point_nothing_is_lost_and_bounds_stay(tmp_path: Path, seed: int) -> None:
    """Dozens of lives in which readings and events come in, links fail and the process dies with sends under way."""
    rng, stored = random.Random(seed), list[Sealed]()
    quick = Pace(flush_s=0.001, pause_s_min=0.001, pause_s_max=0.002)
    for life in range(12):
        async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
            await buffer.append(readings(life, rng.choice([3, 900, 14_000]), life))
            await buffer.append(readings(life, rng.choice([1, 40]), life), Stream.EVENTS)
            far = Fatal(rng, stored)
            bridge = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), quick, rng=rng)
            async with running(bridge):
                waits = 200 if life < 11 else 20_000
                while not whole(bridge, buffer) and (life == 11 or not far.dead.is_set()) and waits:
                    await asyncio.sleep(0.001)  # Until it dies, or has nothing more to do.
                    waits -= 1
            totals = {stream: buffer.last(stream) for stream in Stream}
            state = (await buffer.cursor("bridge")).seq
    assert state == totals[Stream.READINGS]
    for stream, total in totals.items():
        assert_whole([sealed for sealed in stored if sealed.stream is stream], total)


async def test_what_the_log_has_let_go_is_passed_over(
    tmp_path: Path, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log dropped its oldest 12,000 at its bound: what is left leaves, and nothing waits for the rest."""
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await buffer.append(readings(0, 20_000, 1))
        whole_log, all_blocks = buffer.read, buffer.sealed_run

        async def read(stream: Stream, after: int, limit: int) -> Batch:
            return await whole_log(stream, max(after, 12_000), limit)

        async def sealed_run(stream: Stream, after: int, limit: int) -> list[Sealed]:
            return await all_blocks(stream, max(after, 12_000), limit)

        monkeypatch.setattr(buffer, "read", read)
        monkeypatch.setattr(buffer, "sealed_run", sealed_run)
        stored: list[Sealed] = []
        far = Fatal(random.Random(1), stored)
        quick = Pace(flush_s=0.001, pause_s_min=0.001, pause_s_max=0.002)
        bridge = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), quick)
        async with running(bridge):
            await until(lambda: whole(bridge, buffer))
    assert sorted({sealed.first for sealed in stored}) == [12_001, 15_001]
    assert bridge.status().readings.backlog == 0


class Held:
    """An uplink that holds what it is given until it is closed."""

    name = "held"

    def __init__(self) -> None:
        self.sent: list[tuple[Sealed, Lane]] = []
        self.closed = asyncio.Event()

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        self.sent.append((sealed, lane))
        if len(self.sent) > 1:  # The first one shows that the link stands.
            await self.closed.wait()
            raise UplinkError("closed", "none")

    async def close(self) -> None:
        self.closed.set()


async def test_several_are_under_way_one_place_is_kept_and_a_dead_link_is_built_anew(
    tmp_path: Path, until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Of four places old readings take three; without any acknowledgement the watchdog closes the uplink."""
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await buffer.append(readings(0, 60_000, 1))
        uplink = Held()
        pace = Pace(flush_s=0.01, stall_s=2.0, pause_s_min=0.01)
        bridge = Bridge(buffer, uplink, FolderUplink(tmp_path / "refused"), pace)
        async with running(bridge):
            await until(lambda: bridge.status().in_flight == 3)
            assert [lane for _, lane in uplink.sent] == [Lane.LIVE, *[Lane.BACKLOG] * 3]
            await buffer.append(readings(0, 5, 1))
            await until(lambda: bridge.status().in_flight == 4)
            assert uplink.sent[-1][1] is Lane.LIVE
            await until(lambda: bridge.status().rebuilds == 1)
            assert "no acknowledgement for" in caplog.text
            uplink.closed.clear()
            uplink.sent.clear()
            await until(lambda: bridge.status().sent_envelopes >= 2)
