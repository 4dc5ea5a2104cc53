"""Changes: what the Bridge waits for when it cannot send."""

import asyncio
import logging

from appliance.bridge.pacing import Clock

log = logging.getLogger(__name__)


class Changes:
    """An envelope has come to its end, or somebody wants something: whoever waits looks again."""

    def __init__(self, clock: Clock, stall_s: float) -> None:
        self._clock, self._stall_s = clock, stall_s
        self._told = asyncio.Event()

    def tell(self) -> None:
        self._told.set()

    def clear(self) -> None:
        """What was told so far is known."""
        self._told.clear()

    async def wait(self) -> None:
        """Wait until something is told, though not for ever."""
        try:
            async with asyncio.timeout(self._stall_s):  # wait_for of Python 3.11 can lose a cancellation.
                await self._told.wait()
        except TimeoutError:
            log.debug("bridge: nothing has ended for %.0f s", self._stall_s)

    async def sleep(self, pause_s: float) -> None:
        """Until the time is over, or something is told."""
        async with asyncio.TaskGroup() as tasks:
            ways = [tasks.create_task(self._told.wait()), tasks.create_task(self._asleep(pause_s))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()

    async def _asleep(self, pause_s: float) -> bool:
        await self._clock.sleep(pause_s)
        return True
