"""The link cut in software: whatever it was doing, nothing leaves until it is released, and then at once."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.bridge.bridge import Bridge
from appliance.bridge.folder import FolderUplink
from appliance.bridge.link import LinkState
from appliance.bridge.pacing import Pace
from appliance.bridge.uplink import UplinkError
from appliance.bridge.valve import HINT, HeldError, Valve
from appliance.buffer.buffer import Buffer
from appliance.contract.envelope import Lane, Sealed, envelopes, open_sealed
from appliance.contract.reading import Quality, Reading, Stream

PATIENT = Pace(flush_s=0.01, pause_s_min=1_000.0, pause_s_max=1_000.0)
"""Whoever waits for such a pause to end waits in vain."""


def readings(count: int, start: int = 1) -> list[Reading]:
    topic = "acme/northfield/utilities/boiler-house/feed/pmp-204/flow"
    return [Reading(topic, n / 8, Quality.GOOD, n, n, n, "opcua:demo") for n in range(start, start + count)]


class Far:
    """A far side that can be slow, broken, and that counts its closings."""

    name = "far"

    def __init__(self) -> None:
        self.stored: list[Sealed] = []
        self.is_slow = self.is_broken = False
        self.under_way = self.closed = 0

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        self.under_way += 1
        try:
            if self.is_broken:
                raise UplinkError("the cable is cut", "mend it")
            await asyncio.sleep(3_600 if self.is_slow else 0)
        finally:
            self.under_way -= 1
        self.stored.append(sealed)

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
async def buffer(tmp_path: Path) -> AsyncIterator[Buffer]:
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        yield buffer


@asynccontextmanager
async def running(bridge: Bridge) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bridge.run())
        yield
        task.cancel()


def numbers(stored: list[Sealed]) -> list[int]:
    return [n for sealed in stored for n in range(sealed.first, sealed.first + len(open_sealed(sealed).entries))]


async def test_what_is_under_way_fails_and_leaves_at_the_release(
    buffer: Buffer, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """Held twice and released twice: the link shows it, the uplink is let go, and recovery needs no pause."""
    far = Far()
    bridge = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), PATIENT)
    async with running(bridge):
        await buffer.append(readings(3))
        await until(lambda: bridge.status().link is LinkState.UP)
        far.is_slow = True
        await buffer.append(readings(3, 4))
        await until(lambda: far.under_way == 1)
        for _ in range(2):
            bridge.hold("rehearsal")
        await until(lambda: far.closed == 1 and not bridge.status().in_flight)
        status = bridge.status()
        assert (status.link, status.last_error, status.held) == (LinkState.DOWN, "held: rehearsal", "rehearsal")
        assert (far.under_way, status.readings.backlog, status.rebuilds) == (0, 3, 0)
        far.is_slow = False
        await buffer.append(readings(3, 7))
        await asyncio.sleep(0.05)  # Long enough for a Bridge that is not held to send.
        assert numbers(far.stored) == [1, 2, 3]
        for _ in range(2):
            bridge.release()
        await until(lambda: bridge.status().readings.backlog == 0)
        assert (bridge.status().link, bridge.status().held) == (LinkState.UP, "")
    assert sorted(numbers(far.stored)) == list(range(1, 10))


async def test_a_hold_amid_a_pause_ends_the_pause_at_its_release(
    buffer: Buffer, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """The link was down by itself, with a pause of 1,000 s; it is mended while held, and the release does not wait."""
    far = Far()
    far.is_broken = True
    bridge = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), PATIENT)
    async with running(bridge):
        await buffer.append(readings(3))
        await until(lambda: bridge.status().link is LinkState.DOWN)
        assert bridge.status().last_error == "the cable is cut; mend it"
        await asyncio.sleep(0.01)
        bridge.hold("rehearsal")
        await until(lambda: far.closed == 1)
        far.is_broken = False
        bridge.release()
        await until(lambda: bridge.status().readings.backlog == 0)
    assert numbers(far.stored) == [1, 2, 3]


async def test_a_hold_outlives_the_run_of_the_bridge(buffer: Buffer, tmp_path: Path, until: Callable[..., Any]) -> None:
    """Held before its first run, through a restart by the supervisor, and released in the second."""
    far = Far()
    bridge = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), PATIENT)
    bridge.release()
    bridge.hold("rehearsal")
    await buffer.append(readings(3))
    for _ in range(2):
        before = far.closed
        async with running(bridge):
            await until(lambda: far.closed > before)  # noqa: B023 - asked within this turn
            assert bridge.status().last_error == "held: rehearsal"
    assert far.stored == []
    async with running(bridge):
        bridge.release()
        await until(lambda: bridge.status().readings.backlog == 0)
    assert numbers(far.stored) == [1, 2, 3]


async def test_at_random_moments_nothing_is_lost(buffer: Buffer, tmp_path: Path, until: Callable[..., Any]) -> None:
    """Held and released thirty times while readings come in: all arrive."""
    rng, far = random.Random(5), Far()
    pace = Pace(flush_s=0.001, pause_s_min=1_000.0, pause_s_max=1_000.0)
    bridge = Bridge(buffer, far, FolderUplink(tmp_path / "refused"), pace)
    async with running(bridge):
        for _ in range(30):
            await buffer.append(readings(rng.choice([1, 7_000]), buffer.last() + 1))
            bridge.hold("rehearsal")
            for _ in range(rng.randrange(20)):
                await asyncio.sleep(0)
            bridge.release()
            for _ in range(rng.randrange(20)):
                await asyncio.sleep(0)
        await until(lambda: bridge.status().readings.backlog == 0)
    assert set(numbers(far.stored)) == set(range(1, buffer.last() + 1))


async def test_the_error_says_the_reason_and_that_it_ends() -> None:
    (sealed,) = envelopes("northfield", 1, Stream.READINGS, 1, readings(1))
    valve = Valve(Far())
    valve.shut("rehearsal")
    with pytest.raises(HeldError, match="rehearsal") as failure:
        await valve.send(sealed, Lane.LIVE)
    assert (failure.value.hint, failure.value.retryable) == (HINT, True)
    assert HINT == "the rehearsal ends by itself"


async def test_the_real_client_is_let_go_and_comes_back(
    buffer: Buffer, hub_side: Any, impatient: Any, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """With envelopes under way to a slow hub: the connections are closed, and the release sends what is left."""
    pace = Pace(flush_s=0.01, pause_s_min=0.01)
    bridge = Bridge(buffer, hub_side.connect(replace(impatient, send_s=20.0)), FolderUplink(tmp_path / "refused"), pace)
    async with running(bridge):
        await buffer.append(readings(10))
        await until(lambda: bridge.status().readings.backlog == 0)
        hub_side.hubs.faults.latency_s = 1.5
        await buffer.append(readings(20_000, 11))
        await until(lambda: bridge.status().in_flight >= 2)
        bridge.hold("rehearsal")
        await until(lambda: not hub_side.hubs._wires)
        hub_side.hubs.faults.latency_s = 0.0
        bridge.release()
        await until(lambda: bridge.status().readings.backlog == 0)
    assert set(numbers(hub_side.arrived())) == set(range(1, 20_011))
