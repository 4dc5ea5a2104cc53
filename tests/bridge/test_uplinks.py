"""What every uplink promises, asked of each."""

from typing import Any

from appliance.contract.envelope import Lane, Sealed, envelopes, open_sealed
from appliance.contract.reading import Quality, Reading, Stream

T0_US = 1_780_000_000_000_000


def sealed_readings(count: int, first: int = 1, stream: Stream = Stream.READINGS) -> list[Sealed]:
    topic = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"
    entries = [
        Reading(topic, number * 0.1, Quality.GOOD, T0_US + number, T0_US + number, T0_US + number, "opcua:demo")
        for number in range(count)
    ]
    return envelopes("northfield", 2**33, stream, first, entries)


async def test_what_is_sent_has_arrived_equal_when_send_returns(far_side: Any) -> None:
    """Body, bounds, epoch, stream and checksum of two streams; numbers above 32 bits too."""
    sent = [*sealed_readings(300, first=2**34), *sealed_readings(2, stream=Stream.EVENTS)]
    for sealed in sent:
        lane = Lane.EVENTS if sealed.stream is Stream.EVENTS else Lane.LIVE
        await far_side.uplink.send(sealed, lane)
        assert sealed in far_side.arrived()
    assert len(far_side.arrived()) == 2
    assert all(len(open_sealed(sealed).entries) == sealed.count for sealed in far_side.arrived())


async def test_sending_again_keeps_bytes_and_bounds(far_side: Any) -> None:
    """A resend is the same envelope: the far side holds it once or twice, but never something else."""
    (sealed,) = sealed_readings(10)
    await far_side.uplink.send(sealed, Lane.LIVE)
    await far_side.uplink.send(sealed, Lane.LIVE)
    assert set(far_side.arrived()) == {sealed}


async def test_the_order_of_sending_is_the_order_of_arrival(far_side: Any) -> None:
    sent = [part for first in range(1, 30, 10) for part in sealed_readings(10, first)]
    for sealed in sent:
        await far_side.uplink.send(sealed, Lane.BACKLOG)
    assert far_side.arrived() == sent


async def test_a_closed_uplink_sends_again(far_side: Any) -> None:
    """Closing lets go of the link, twice without harm, and the next send takes it up anew."""
    first, second = (*sealed_readings(1), *sealed_readings(1, first=2))
    await far_side.uplink.send(first, Lane.LIVE)
    await far_side.uplink.close()
    await far_side.uplink.close()
    await far_side.uplink.send(second, Lane.LIVE)
    assert far_side.arrived() == [first, second]
