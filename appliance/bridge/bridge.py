"""The Bridge: follows both streams of the log, events first, and sends sealed envelopes to an Uplink.

A cursor moves only when the far side has acknowledged; until then the same envelope is sent again, with
the same bytes, for as long as it takes. Nothing in the plant waits for the Bridge: it follows at its own
pace, and what the link cannot take stays in the log.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from appliance.bridge.follower import Follower, Outgoing
from appliance.bridge.link import PAUSE_S_MAX, PAUSE_S_MIN, Backoff, Link, LinkState
from appliance.bridge.uplink import Uplink, UplinkError
from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Stream
from appliance.supervisor import now_us as wall_clock_us

log = logging.getLogger(__name__)

CURSORS: Final = {Stream.EVENTS: "bridge-events", Stream.READINGS: "bridge"}
"""The cursor of each stream, in the order of sending."""
FLUSH_S: Final = 1.0
"""How often the Bridge looks at the log when it has sent everything: the age limit of an envelope."""


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream: its last entry that the far side has acknowledged, and how many still wait."""

    acknowledged_seq: int
    backlog: int


@dataclass(frozen=True, slots=True)
class BridgeStatus:
    """What the Bridge says of itself; the counts are since the start of the process."""

    uplink: str
    link: LinkState
    since_us: int
    """Since when the link is in this state, by the wall clock."""
    acknowledged_us: int | None
    """When an envelope was last acknowledged."""
    sent_envelopes: int
    sent_entries: int
    refused_envelopes: int
    """Envelopes the far side will never take; they are kept in the folder of refused ones."""
    events: StreamStatus
    readings: StreamStatus
    last_error: str


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look at the log, and how to pause after failures."""

    flush_s: float = FLUSH_S
    pause_s_min: float = PAUSE_S_MIN
    pause_s_max: float = PAUSE_S_MAX


class Bridge:
    """Sends the log to `uplink`; what it will never take is kept in `refused`, so that it does not block the rest."""

    def __init__(
        self,
        buffer: Buffer,
        uplink: Uplink,
        refused: Uplink,
        pace: Pace | None = None,
        now_us: Callable[[], int] = wall_clock_us,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._buffer, self._uplink, self._refused = buffer, uplink, refused
        self._pace = pace or Pace()
        self._now_us, self._sleep = now_us, sleep
        self._followers: dict[Stream, Follower] = {}
        self._link = Link(uplink.name, now_us)
        self._backoff = Backoff(rng or random.Random(), self._pace.pause_s_min, self._pace.pause_s_max)
        self._acknowledged_us: int | None = None
        self._sent_envelopes = self._sent_entries = self._refused_envelopes = 0

    async def run(self) -> None:
        """Send until cancelled."""
        for stream, name in CURSORS.items():
            self._followers[stream] = Follower(self._buffer, await self._buffer.cursor(name, stream))
        try:
            while True:
                if not await self._send_one():
                    await self._sleep(self._pace.flush_s)
        finally:
            await self._uplink.close()

    def status(self) -> BridgeStatus:
        """What the Bridge says of itself, now."""
        return BridgeStatus(
            uplink=self._uplink.name,
            link=self._link.state,
            since_us=self._link.since_us,
            acknowledged_us=self._acknowledged_us,
            sent_envelopes=self._sent_envelopes,
            sent_entries=self._sent_entries,
            refused_envelopes=self._refused_envelopes,
            events=self._stream_status(Stream.EVENTS),
            readings=self._stream_status(Stream.READINGS),
            last_error=self._link.last_error,
        )

    async def _send_one(self) -> bool:
        """Try to send the most urgent envelope; False when nothing waits."""
        for follower in self._followers.values():
            outgoing = await follower.next()
            if outgoing is not None:
                await self._try(follower, outgoing)
                return True
        return False

    async def _try(self, follower: Follower, outgoing: Outgoing) -> None:
        try:
            taken = await self._offer(outgoing)
        except UplinkError as error:
            pause_s = self._backoff.pause_s(error.pause_s_min)
            self._link.lost(error, pause_s)
            await self._sleep(pause_s)
            return
        await follower.sent()
        if taken:
            self._backoff.reset()
            self._acknowledged_us = self._now_us()
            self._sent_envelopes += 1
            self._sent_entries += outgoing.sealed.count
            self._link.acknowledged(self._stream_status(Stream.READINGS).backlog)

    async def _offer(self, outgoing: Outgoing) -> bool:
        """Send; what the far side will never take goes to the refused ones, and False is returned."""
        try:
            await self._uplink.send(*outgoing)
        except UplinkError as error:
            if error.retryable:
                raise
            await self._refused.send(*outgoing)
            self._refused_envelopes += 1
            sealed = outgoing.sealed
            entries = f"{sealed.stream} {sealed.first} to {sealed.first + sealed.count - 1}"
            log.error("bridge: %s will never be taken and are kept aside: %s; %s", entries, error, error.hint)
            return False
        return True

    def _stream_status(self, stream: Stream) -> StreamStatus:
        follower = self._followers.get(stream)
        if follower is None:
            return StreamStatus(0, self._buffer.last(stream))
        return StreamStatus(follower.acknowledged, follower.backlog)
