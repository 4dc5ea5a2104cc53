"""The Bridge between a real log and real far sides, in good times and bad."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.bridge.bridge import Bridge
from appliance.bridge.folder import FolderUplink
from appliance.bridge.link import LinkState
from appliance.bridge.pacing import Clock, Pace
from appliance.bridge.uplink import Uplink, UplinkError
from appliance.buffer.buffer import Buffer
from appliance.contract.envelope import ENTRIES_MAX, Lane, Sealed, open_sealed
from appliance.contract.gap import Gap, GapReason
from appliance.contract.reading import Quality, Reading, Stream
from appliance.contract.sent import Sent

T0_US = 1_780_000_000_000_000
QUICK = Pace(flush_s=0.02, pause_s_min=0.05, pause_s_max=0.2)


def readings(count: int, start: int = 0) -> list[Reading]:
    topic = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"
    return [
        Reading(topic, n * 0.1, Quality.GOOD, T0_US + n, T0_US + n, T0_US + n, "opcua:demo")
        for n in range(start, start + count)
    ]


@pytest.fixture
async def buffer(tmp_path: Path) -> AsyncIterator[Buffer]:
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        yield buffer


@pytest.fixture
def refused(tmp_path: Path) -> FolderUplink:
    return FolderUplink(tmp_path / "refused")


@asynccontextmanager
async def running(bridge: Bridge) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bridge.run())
        yield
        task.cancel()


class Troubled:
    """An uplink in front of another that raises the errors it is given, before or after passing on."""

    name = "troubled"

    def __init__(self, far: Uplink) -> None:
        self.far = far
        self.before: deque[UplinkError] = deque()
        self.after: deque[UplinkError] = deque()
        self.sent: list[tuple[Sealed, Lane]] = []

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        self.sent.append((sealed, lane))
        if self.before:
            raise self.before.popleft()
        await self.far.send(sealed, lane)
        if self.after:
            raise self.after.popleft()

    async def close(self) -> None:
        await self.far.close()


def entries(arrived: list[Sealed], stream: Stream) -> dict[int, Reading]:
    """What arrived, by number; copies of one entry must be equal."""
    found: dict[int, Reading] = {}
    for sealed in arrived:
        if sealed.stream is stream:
            for number, entry in enumerate(open_sealed(sealed).entries, sealed.first):
                assert found.setdefault(number, entry) == entry
    return found


async def test_both_streams_arrive_whole_events_first(
    buffer: Buffer, folder_side: Any, refused: FolderUplink, until: Callable[..., Any]
) -> None:
    """12,000 readings and 3 events: full envelopes, the newest before the older ones, cursors at the end."""
    await buffer.append(readings(12_000))
    await buffer.append(readings(3), Stream.EVENTS)
    uplink = Troubled(folder_side.uplink)
    bridge = Bridge(buffer, uplink, refused, QUICK)
    async with running(bridge):
        await until(lambda: bridge.status().sent_entries == 12_003)
        await until(lambda: bridge.status().readings.acknowledged_seq == 12_000)
    assert entries(folder_side.arrived(), Stream.READINGS) == dict(enumerate(readings(12_000), 1))
    assert entries(folder_side.arrived(), Stream.EVENTS) == dict(enumerate(readings(3), 1))
    assert [lane for _, lane in uplink.sent] == [Lane.EVENTS, Lane.LIVE, Lane.BACKLOG, Lane.BACKLOG]
    assert [sealed.count for sealed, _ in uplink.sent] == [3, ENTRIES_MAX, ENTRIES_MAX, 2_000]
    status = bridge.status()
    assert (status.link, status.readings.acknowledged_seq, status.readings.backlog) == (LinkState.UP, 12_000, 0)
    assert (await buffer.cursor("bridge")).seq == 12_000
    assert (await buffer.cursor("bridge-events", Stream.EVENTS)).seq == 3


async def test_what_is_appended_while_it_runs_leaves_soon(
    buffer: Buffer, hub_side: Any, refused: FolderUplink, until: Callable[..., Any]
) -> None:
    """The lake is live: no envelope waits to be full."""
    bridge = Bridge(buffer, hub_side.uplink, refused, QUICK)
    async with running(bridge):
        for start in range(3):
            await buffer.append(readings(5, start * 5))
            await until(lambda: bridge.status().readings.acknowledged_seq == buffer.last())
    assert entries(hub_side.arrived(), Stream.READINGS) == dict(enumerate(readings(15), 1))


async def test_an_outage_is_told_once_and_loses_nothing(
    buffer: Buffer,
    folder_side: Any,
    refused: FolderUplink,
    until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Eight failures, one "link lost" and one "link back"; an event appended meanwhile leaves first."""
    caplog.set_level(logging.INFO, "appliance.bridge")
    uplink = Troubled(folder_side.uplink)
    uplink.before.extend(UplinkError("the cable is cut", "mend it") for _ in range(8))
    bridge = Bridge(buffer, uplink, refused, QUICK)
    await buffer.append(readings(10))
    async with running(bridge):
        await until(lambda: bridge.status().link is LinkState.DOWN)
        assert bridge.status().last_error == "the cable is cut; mend it"
        await buffer.append(readings(1), Stream.EVENTS)
        await until(lambda: bridge.status().sent_envelopes == 2)
    assert [sealed.stream for sealed, _ in uplink.sent[-2:]] == [Stream.EVENTS, Stream.READINGS]
    assert len({sealed for sealed, _ in uplink.sent if sealed.stream is Stream.READINGS}) == 1
    told = [record.getMessage() for record in caplog.records if "link" in record.getMessage()]
    assert len(told) == 2
    assert told[0].startswith("bridge: link lost to troubled: the cable is cut; mend it; next try in ")
    assert told[1].startswith("bridge: link back after ") and told[1].endswith(" 10 readings to send")


async def test_pauses_double_up_to_a_cap_and_respect_a_busy_far_side(
    buffer: Buffer, folder_side: Any, refused: FolderUplink, until: Callable[..., Any]
) -> None:
    """Each pause is half to all of 1, 2, 4 ... 60 s; a busy far side gets its 4 s; success starts over."""
    pauses: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        await asyncio.sleep(0.001)

    uplink = Troubled(folder_side.uplink)
    uplink.before.append(UplinkError("busy", "wait", pause_s_min=4.0))
    uplink.before.extend(UplinkError("cut", "mend") for _ in range(9))
    await buffer.append(readings(10))
    clock = Clock(now_s=lambda: sum(pauses), sleep=sleep)
    bridge = Bridge(buffer, uplink, refused, Pace(flush_s=0.001), clock, random.Random(7))
    async with running(bridge):
        await until(lambda: bridge.status().sent_envelopes == 1)
        uplink.before.append(UplinkError("cut again", "mend"))
        await buffer.append(readings(1))
        await until(lambda: bridge.status().sent_envelopes == 2)
    failures = [pause for pause in pauses if pause > 0.1]
    assert failures[0] == 4.0
    for pause_s, full_s in zip(failures[1:10], [2, 4, 8, 16, 32, 60, 60, 60, 60], strict=True):
        assert full_s / 2 <= pause_s <= full_s
    assert 0.5 <= failures[10] <= 1.0


async def test_after_a_restart_the_same_envelopes_are_sent_again(
    tmp_path: Path, folder_side: Any, refused: FolderUplink, until: Callable[..., Any]
) -> None:
    """The far side stored, the answer got lost, the process died, more was appended: bounds and bytes are as before."""
    uplink = Troubled(folder_side.uplink)
    uplink.after.extend(UplinkError("no answer", "wait") for _ in range(1_000))
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await buffer.append(readings(70))
        async with running(Bridge(buffer, uplink, refused, QUICK)):
            await until(lambda: len(uplink.sent) >= 2)
        await buffer.append(readings(30, 70))
    uplink.after.clear()
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        bridge = Bridge(buffer, uplink, refused, QUICK)
        async with running(bridge):
            await until(lambda: bridge.status().readings.acknowledged_seq == 100)
    different = list(dict.fromkeys(sealed for sealed, _ in uplink.sent))
    assert [(sealed.first, sealed.count) for sealed in different] == [(1, 70), (71, 30)]
    assert entries(folder_side.arrived(), Stream.READINGS) == dict(enumerate(readings(100), 1))


async def test_what_will_never_be_taken_is_kept_aside_and_the_rest_goes_on(
    buffer: Buffer, folder_side: Any, refused: FolderUplink, tmp_path: Path, until: Callable[..., Any]
) -> None:
    """The refused envelope is whole in its folder, a gap says so and arrives, and so does the next envelope."""
    uplink = Troubled(folder_side.uplink)
    uplink.before.append(UplinkError("too large", "split it", retryable=False))
    bridge = Bridge(buffer, uplink, refused, QUICK)
    async with running(bridge):
        await buffer.append(readings(10))
        await until(lambda: bridge.status().refused_envelopes == 1)
        await buffer.append(readings(5, 10))
        await until(lambda: bridge.status().sent_entries == 5 + 1)
    (told,) = entries(folder_side.arrived(), Stream.EVENTS).values()
    gap = Gap.from_entry(told)
    assert (gap.reason, gap.stream, gap.first, gap.last, gap.unread) == (GapReason.REFUSED, Stream.READINGS, 1, 10, 10)
    assert (gap.topics, gap.from_us, gap.to_us) == ((readings(1)[0].topic,), T0_US, T0_US + 9)
    kept = type(folder_side)(tmp_path / "refused").arrived()
    assert [(sealed.first, sealed.count) for sealed in kept] == [(1, 10)]
    assert list(entries(folder_side.arrived(), Stream.READINGS)) == list(range(11, 16))


async def test_every_reading_arrives_through_a_bad_far_side(
    buffer: Buffer, hub_side: Any, refused: FolderUplink, impatient: Any, until: Callable[..., Any]
) -> None:
    """Released, detached, cut after storing, mute, gone and back, with the real client: all arrives, equal."""
    hubs, total = hub_side.hubs, 0
    uplink = hub_side.connect(type(impatient)(send_s=2.5, close_s=0.5))
    bridge = Bridge(buffer, uplink, refused, QUICK)

    async def struck(name: str, count: int) -> None:
        nonlocal total
        setattr(hubs.faults, name, count)
        await buffer.append(readings(20, total))
        total += 20
        await until(lambda: not getattr(hubs.faults, name))

    async with running(bridge):
        await struck("released", 1)
        await struck("detach", 1)
        await struck("drop_after_store", 2)
        hubs.faults.black_hole = True
        await buffer.append(readings(20, total))
        total += 20
        await until(lambda: bridge.status().link is LinkState.DOWN)
        hubs.faults.black_hole = False
        await until(lambda: bridge.status().readings.backlog == 0)
        port = hubs.port
        await hubs.stop()
        await buffer.append(readings(20, total))
        total += 20
        await until(lambda: bridge.status().link is LinkState.DOWN)
        await hubs.serve(port=port)
        await until(lambda: bridge.status().readings.backlog == 0)
    assert entries(hub_side.arrived(), Stream.READINGS) == dict(enumerate(readings(total), 1))


async def test_a_refused_gap_is_not_told_in_another_gap(
    buffer: Buffer, folder_side: Any, refused: FolderUplink, until: Callable[..., Any]
) -> None:
    """A far side that takes no events: the readings' gap is the last word, the refusal of the gap says no more."""
    uplink = Troubled(folder_side.uplink)
    uplink.before.extend(UplinkError("not that", "ask it", retryable=False) for _ in range(2))
    bridge = Bridge(buffer, uplink, refused, QUICK)
    async with running(bridge):
        await buffer.append(readings(10))
        await until(lambda: bridge.status().refused_envelopes == 2)
        await until(lambda: bridge.status().events.backlog == 0)
        await buffer.append(readings(5, 10))
        await until(lambda: bridge.status().sent_entries == 5)
    assert buffer.last(Stream.EVENTS) == 1


async def test_the_gap_of_a_refusal_and_the_cursor_are_one_transaction(
    buffer: Buffer, folder_side: Any, refused: FolderUplink, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no crash leaves an envelope given up without a word, and until then it is not said to be acknowledged."""
    uplink, written, append = Troubled(folder_side.uplink), [], buffer.append
    uplink.before.append(UplinkError("too large", "split it", retryable=False))
    bridge = Bridge(buffer, uplink, refused, QUICK)

    async def seen(entries: Any, stream: Stream = Stream.READINGS, moves: Any = ()) -> int:
        if entries and stream is Stream.EVENTS:
            written.append(([(move.cursor.name, move.seq) for move in moves], bridge.sent(Stream.READINGS)))
        return await append(entries, stream, moves)

    await buffer.append(readings(10))
    monkeypatch.setattr(buffer, "append", seen)
    async with running(bridge):
        await until(lambda: bridge.status().refused_envelopes == 1)
        assert bridge.sent(Stream.READINGS) == Sent(((1, 10),), ())
    assert written == [([("bridge", 10)], Sent((), ((1, 10),)))]
