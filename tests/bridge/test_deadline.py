"""A Deadline ends what runs in its block, even when that loses a cancellation."""

import asyncio

import pytest

from appliance.bridge.deadline import Deadline


class Deaf:
    """Loses so many cancellations before it hears one, as the azure-eventhub client can."""

    def __init__(self, count: int) -> None:
        self.count = count

    async def wait(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.count -= 1
                if self.count < 0:
                    raise


async def test_a_call_in_time_is_left_alone() -> None:
    async with Deadline(30.0):
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


@pytest.mark.parametrize("lost", [0, 1, 3])
async def test_lost_cancellations_are_repeated(lost: int) -> None:
    """However many got lost: a TimeoutError, and the task counts no cancellation that is not taken back."""
    with pytest.raises(TimeoutError):
        async with Deadline(0.01):
            await Deaf(lost).wait()
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_it_expires_on_demand_before_amid_and_after() -> None:
    """Whoever lets go of a link does not ask in which state the calls on it are."""
    early, late = Deadline(30.0), Deadline(30.0)
    early.expire()
    with pytest.raises(TimeoutError):
        async with early:
            await asyncio.Event().wait()
    with pytest.raises(TimeoutError):
        async with late:
            for _ in range(2):
                late.expire()
            await asyncio.Event().wait()
    late.expire()
    await asyncio.sleep(0)


async def test_a_cancellation_from_outside_stays_one() -> None:
    """The plant stops: that is no timeout, even when the time is over at the same moment."""
    for wait_s in (30.0, 0.0):
        task = asyncio.create_task(within(wait_s))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def within(wait_s: float) -> None:
    async with Deadline(wait_s):
        await asyncio.Event().wait()
