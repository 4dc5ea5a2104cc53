"""What had left under the names of an epoch before, when the log turned bad: sent again under these names."""

import asyncio
import logging
from pathlib import Path

from appliance.bridge.pacing import Clock
from appliance.bridge.uplink import Uplink, UplinkError
from appliance.bridge.valve import Valve
from appliance.buffer.underway import UnderWay
from appliance.contract.envelope import EnvelopeError

log = logging.getLogger(__name__)


class Carried:
    """Sends what `UnderWay` keeps, one after the other, beside the log."""

    def __init__(self, kept: UnderWay, uplink: Valve, refused: Uplink, clock: Clock, pause_s: float) -> None:
        self._kept, self._uplink, self._refused, self._clock, self._pause_s = kept, uplink, refused, clock, pause_s

    async def run(self) -> None:
        """Until nothing is left."""
        for path in await asyncio.to_thread(self._kept.kept):
            while not await self._is_done(path):
                await self._clock.sleep(self._pause_s)
                await self._uplink.opened()

    async def _is_done(self, path: Path) -> bool:
        """Whether the far side has this one, or never will; then the file is gone."""
        try:
            sealed, lane = await asyncio.to_thread(self._kept.read, path)
        except EnvelopeError as error:
            log.error("bridge: %s cannot be read and is left where it is: %s", path, error)
            return True
        try:
            await self._uplink.send(sealed, lane)
            log.info("bridge: %s %d of epoch %d has been sent again", sealed.stream, sealed.first, sealed.epoch)
        except UplinkError as error:
            if error.retryable:
                return False
            await self._refused.send(sealed, lane)
            log.error("bridge: %s will never be taken and is kept aside: %s; %s", path.name, error, error.hint)
        await asyncio.to_thread(self._kept.settle, path)
        return True
