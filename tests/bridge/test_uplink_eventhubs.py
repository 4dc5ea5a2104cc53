"""The Event Hubs uplink when the far side misbehaves: each error comes in time, and the next send gets through."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from appliance.bridge.eventhubs import EVENT_BYTES_MAX, Deadlines, EventHubsUplink, Lifetime
from appliance.bridge.uplink import UplinkError
from appliance.contract.envelope import Lane, Sealed, envelopes
from appliance.contract.reading import Quality, Reading, Stream
from cloud_sync.emulator.eventhubs import EventHubs

READING = Reading("acme/northfield/a/l/c/pmp-1/flow", 1.5, Quality.GOOD, 1, 1, 1, "test")
(SEALED,) = envelopes("northfield", 1, Stream.READINGS, 1, [READING] * 100)


async def recovers(side: Any, uplink: Any) -> None:
    """The next send arrives."""
    await uplink.send(SEALED, Lane.LIVE)
    assert side.arrived()[-1] == SEALED
    await uplink.close()


async def test_server_busy_asks_for_a_pause(hub_side: Any) -> None:
    """The error says how long to wait at least."""
    hub_side.hubs.faults.server_busy = 1
    with pytest.raises(UplinkError, match="throttled") as failure:
        await hub_side.uplink.send(SEALED, Lane.LIVE)
    assert failure.value.retryable
    assert failure.value.pause_s_min >= 4
    assert hub_side.arrived() == []
    await recovers(hub_side, hub_side.uplink)


async def test_a_released_event_ends_by_our_deadline(hub_side: Any, impatient: Deadlines) -> None:
    """The client swallows this outcome and would wait for ever."""
    uplink = hub_side.connect(replace(impatient, send_s=2.5))
    hub_side.hubs.faults.released = 1
    with pytest.raises(UplinkError, match="no acknowledgement"):
        await uplink.send(SEALED, Lane.LIVE)
    await recovers(hub_side, uplink)


async def test_a_mute_far_side_at_connect_ends_by_our_deadline(hub_side: Any, impatient: Deadlines) -> None:
    """The connection stands, and nothing is ever said on it."""
    uplink = hub_side.connect(impatient)
    hub_side.hubs.faults.black_hole = True
    with pytest.raises(UplinkError, match="no acknowledgement"):
        await uplink.send(SEALED, Lane.LIVE)
    hub_side.hubs.faults.black_hole = False
    await recovers(hub_side, hub_side.uplink)


async def test_a_far_side_that_falls_mute_mid_send_ends_by_our_deadline(
    hub_side: Any, impatient: Deadlines, until: Callable[..., Any]
) -> None:
    """The event is under way when the answers stop; sent again it is the same envelope."""
    uplink = hub_side.connect(replace(impatient, send_s=3.0))
    await uplink.send(SEALED, Lane.LIVE)
    hub_side.hubs.faults.latency_s = 0.5
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(expect_deadline(uplink))
        await until(lambda: len(hub_side.arrived()) == 2)
        hub_side.hubs.faults.black_hole = True
        await sending
    hub_side.hubs.faults.black_hole, hub_side.hubs.faults.latency_s = False, 0.0
    await recovers(hub_side, uplink)
    assert set(hub_side.arrived()) == {SEALED}


async def expect_deadline(uplink: Any) -> None:
    with pytest.raises(UplinkError, match="no acknowledgement"):
        await uplink.send(SEALED, Lane.LIVE)


async def test_a_connection_cut_after_storing_gives_duplicates_with_equal_properties(hub_side: Any) -> None:
    """The sender cannot know; the cloud can, since all copies say the same of themselves."""
    hub_side.hubs.faults.drop_after_store = 1
    try:
        await hub_side.uplink.send(SEALED, Lane.LIVE)
    except UplinkError:
        await hub_side.uplink.send(SEALED, Lane.LIVE)
    assert hub_side.arrived() == [SEALED, SEALED]
    first, second = hub_side.properties()
    assert first == second


@pytest.fixture
def tidy() -> Iterator[None]:
    """Whatever the test drops is collected almost at once, and not when it happens to be time for it."""
    before = gc.get_threshold()
    gc.freeze()
    gc.collect()  # Of what is left, which is little, so that full collections are not put off.
    gc.set_threshold(50, 1, 1)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("tidy")
async def test_a_connection_that_the_client_forgets_is_closed(hub_side: Any, until: Callable[..., Any]) -> None:
    """The client drops its last reference to a connection that was cut; whoever collects it finds it closed.

    Otherwise Python closes it, with a ResourceWarning, at whatever moment the collection comes.
    """
    for _ in range(5):
        hub_side.hubs.faults.drop_after_store = 1
        try:
            await hub_side.uplink.send(SEALED, Lane.LIVE)
        except UplinkError as error:
            assert error.retryable
    await hub_side.uplink.close()
    await until(lambda: not hub_side.hubs._wires)


async def test_letting_go_of_one_client_leaves_the_neighbours_connections_alone(
    hub_side: Any, impatient: Deadlines
) -> None:
    """A second uplink to the same address fails and is let go: the first one's connections are those of before."""
    await hub_side.uplink.send(SEALED, Lane.LIVE)
    stand, other = set(hub_side.hubs._wires), hub_side.connect(impatient)
    hub_side.hubs.faults.released = 1
    with pytest.raises(UplinkError, match="no acknowledgement"):
        await other.send(SEALED, Lane.LIVE)
    await hub_side.uplink.send(SEALED, Lane.LIVE)
    assert stand and stand <= hub_side.hubs._wires
    assert hub_side.uplink.clients == 1


async def test_a_detached_link_and_an_idle_cut_recover(hub_side: Any) -> None:
    """Whether the client mends it by itself or fails, one more send is enough."""
    await hub_side.uplink.send(SEALED, Lane.LIVE)
    for break_it in (lambda: setattr(hub_side.hubs.faults, "detach", 1), hub_side.hubs.cut):
        break_it()
        try:
            await hub_side.uplink.send(SEALED, Lane.LIVE)
        except UplinkError as error:
            assert error.retryable
            await hub_side.uplink.send(SEALED, Lane.LIVE)
    assert len(hub_side.arrived()) >= 3


async def test_a_refused_endpoint_is_an_error_in_time_and_recovers_when_it_is_back(
    hub_side: Any, impatient: Deadlines
) -> None:
    hubs: EventHubs = hub_side.hubs
    port = hubs.port
    await hubs.stop()
    with pytest.raises(UplinkError) as failure:
        await hub_side.connect(impatient).send(SEALED, Lane.LIVE)
    assert failure.value.hint
    await hubs.serve(port=port)
    await recovers(hub_side, hub_side.uplink)


async def test_an_envelope_that_is_too_large_is_never_sent(hub_side: Any) -> None:
    """It is refused before it leaves, and not for trying again."""
    large = Sealed("northfield", 1, Stream.READINGS, 1, 1, 0, bytes(EVENT_BYTES_MAX + 1))
    with pytest.raises(UplinkError, match="more than Event Hubs takes") as failure:
        await hub_side.uplink.send(large, Lane.LIVE)
    assert not failure.value.retryable


async def test_the_largest_allowed_envelope_is_taken(hub_side: Any) -> None:
    largest = Sealed("northfield", 1, Stream.READINGS, 1, 1, 2**32 - 1, bytes(EVENT_BYTES_MAX))
    await hub_side.uplink.send(largest, Lane.LIVE)
    assert hub_side.arrived() == [largest]


async def test_several_at_once_go_over_several_partitions(hub_side: Any) -> None:
    """Four at once while acknowledgements take their time: both partitions carry some."""
    await hub_side.uplink.send(SEALED, Lane.LIVE)
    hub_side.hubs.faults.latency_s = 0.4
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(hub_side.uplink.send(SEALED, Lane.BACKLOG))
    extents = [hub_side.hubs.extent("readings", number).next for number in (0, 1)]
    assert sum(extents) == 5
    assert min(extents) >= 1


async def test_a_client_that_has_lived_long_enough_is_built_anew_between_sends(hub_side: Any) -> None:
    """After three sends; those under way beside it are finished first, and none fails."""
    text = hub_side.hubs.connection_string("readings")
    uplink = EventHubsUplink.from_connection_string(text, "readings", Deadlines(8.0, 2.0), Lifetime(sends_max=3))
    await uplink.send(SEALED, Lane.LIVE)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(uplink.send(SEALED, Lane.BACKLOG))
    await uplink.send(SEALED, Lane.LIVE)
    assert uplink.clients == 2
    assert len(hub_side.arrived()) == 6
    await uplink.close()


async def test_closing_ends_what_is_under_way(hub_side: Any, until: Callable[..., Any]) -> None:
    """A watchdog relies on it: the far side is mute, and long before the deadline the sends fail."""
    await hub_side.uplink.send(SEALED, Lane.LIVE)
    hub_side.hubs.faults.black_hole = True
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(5.0):
        sends = [tasks.create_task(fails(hub_side.uplink)) for _ in range(3)]
        await asyncio.sleep(0)
        await hub_side.uplink.close()
        await asyncio.wait(sends)
    hub_side.hubs.faults.black_hole = False
    await recovers(hub_side, hub_side.uplink)


async def fails(uplink: Any) -> None:
    with pytest.raises(UplinkError, match="another envelope's failure"):
        await uplink.send(SEALED, Lane.LIVE)


async def test_a_malformed_connection_string_is_a_value_error(hub_side: Any) -> None:
    with pytest.raises(ValueError, match="Connection String"):
        type(hub_side.uplink).from_connection_string("Endpoint=nonsense", "readings")
