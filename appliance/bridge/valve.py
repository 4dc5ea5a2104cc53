"""The Valve: the link cut in software, so that an outage can be rehearsed."""

import asyncio
from typing import Final

from appliance.bridge.uplink import Uplink, UplinkError
from appliance.contract.envelope import Lane, Sealed

HINT: Final = "the rehearsal ends by itself"


class HeldError(UplinkError):
    """An envelope that did not get through because the valve is shut."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, HINT)


class Valve:
    """An Uplink in front of another. Shut, it lets nothing through, and what is under way fails at once."""

    def __init__(self, uplink: Uplink) -> None:
        self.name, self._uplink = uplink.name, uplink
        self.reason = ""
        """Why it is shut; empty while it is open."""
        self._opened = asyncio.Event()
        self._opened.set()
        self._under_way: set[asyncio.Timeout] = set()

    def shut(self, reason: str) -> None:
        """Let nothing through until `open`; shut twice, it keeps the later reason."""
        self.reason = reason or "held"
        self._opened.clear()
        for deadline in self._under_way:
            deadline.reschedule(0.0)
        self._under_way.clear()

    def open(self) -> None:
        self.reason = ""
        self._opened.set()

    async def opened(self) -> None:
        """Return as soon as it is open."""
        await self._opened.wait()

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        """Deliver one envelope; raises `UplinkError`, which is a `HeldError` when the valve is the cause."""
        if self.reason:
            raise HeldError(self.reason)
        deadline = asyncio.timeout(None)
        try:
            async with deadline:
                self._under_way.add(deadline)
                await self._uplink.send(sealed, lane)
        except TimeoutError as error:
            raise HeldError(self.reason or "held") from error
        finally:
            self._under_way.discard(deadline)

    async def close(self) -> None:
        await self._uplink.close()
