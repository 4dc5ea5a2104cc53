"""The Bridge: follows both streams of the log and sends sealed envelopes to an Uplink, lane by lane.

Events go first, then the newest readings, then the older ones in order; several envelopes are on their way
at once. A cursor moves only when the far side has acknowledged; until then the same envelope is sent again,
with the same bytes, for as long as it takes. Nothing in the plant waits for the Bridge: it follows at its
own pace, and what the link cannot take stays in the log.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from appliance.bridge.carried import Carried
from appliance.bridge.changes import Changes
from appliance.bridge.departures import Departures
from appliance.bridge.follower import Follower, Outgoing
from appliance.bridge.link import Backoff, Link, LinkState
from appliance.bridge.pacing import Clock, Forecast, Pace, Throughput
from appliance.bridge.refusal import refusal
from appliance.bridge.resends import Resends
from appliance.bridge.status import BridgeStatus, LaneStatus, StreamStatus
from appliance.bridge.uplink import Uplink, UplinkError
from appliance.bridge.valve import HeldError, Valve
from appliance.buffer.buffer import Buffer
from appliance.buffer.underway import UnderWay
from appliance.contract.envelope import Lane
from appliance.contract.reading import Stream
from appliance.contract.sent import Sent

log = logging.getLogger(__name__)

CURSORS: Final = {Stream.EVENTS: "bridge-events", Stream.READINGS: "bridge"}


class Bridge:
    """Sends the log to `uplink`; what it will never take is kept in `refused`, so that it does not block the rest.

    Of that a gap is said, below `root` of the namespace. `under_way` is what had left when an older log turned bad.
    """

    def __init__(
        self,
        buffer: Buffer,
        uplink: Uplink,
        refused: Uplink,
        pace: Pace | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        root: str = "acme",
        under_way: UnderWay | None = None,
    ) -> None:
        self._buffer, self._uplink, self._refused, self._root = buffer, Valve(uplink), refused, root
        self._pace, self._clock = pace or Pace(), clock or Clock()
        self._under_way = under_way
        self._followers: dict[Stream, Follower] = {}
        self._resends = {stream: Resends() for stream in Stream}
        self._link = Link(uplink.name, self._clock.now_us, self._clock.now_s)
        self._backoff = Backoff(rng or random.Random(), self._pace.pause_s_min, self._pace.pause_s_max)
        self._departures, self._forecast = Departures(self._followers, self._pace), Forecast()
        self._throughput = Throughput(self._pace.throughput_units, self._clock.now_s())
        self._lanes = {lane: LaneStatus() for lane in Lane}
        self._in_flight: list[Outgoing] = []
        self._changes = Changes(self._clock, self._pace.stall_s)
        self._pause_s: float | None = None
        """After a failure: how long to pause once nothing is under way any more."""
        self._progress_s = 0.0
        self._acknowledged_us: int | None = None
        self._refused_envelopes = self._rebuilds = self._resent_entries = 0

    async def run(self) -> None:
        """Send until cancelled."""
        self._in_flight, self._pause_s = [], None
        for stream, name in CURSORS.items():
            self._resends[stream].restart()
            cursor = await self._buffer.cursor(name, stream)
            self._followers[stream] = Follower(self._buffer, cursor, self._resends[stream])
        try:
            async with asyncio.TaskGroup() as tasks:
                for stream, follower in self._followers.items():
                    tasks.create_task(follower.run(), name=f"bridge cursor {stream}")
                if self._under_way:
                    carried = Carried(self._under_way, self._uplink, self._refused, self._clock, self._pace.pause_s_max)
                    tasks.create_task(carried.run(), name="bridge carried")
                while True:
                    await self._step(tasks)
        finally:
            await self._uplink.close()
            for follower in self._followers.values():
                await follower.settle()

    def sent(self, stream: Stream) -> Sent:
        """What of the present epoch is acknowledged, and what is on its way; nothing before the Bridge runs."""
        follower = self._followers.get(stream)
        return follower.sent() if follower else Sent((), ())

    def resend(self, stream: Stream, ranges: Sequence[tuple[int, int]]) -> None:
        """Send these acknowledged numbers again, beside the rest, as far as the log still has them.

        Asked for in memory only; before the Bridge runs, nothing is acknowledged and the request is passed over.
        """
        if follower := self._followers.get(stream):
            follower.resend(ranges)
            self._changes.tell()

    def hold(self, reason: str) -> None:
        """Cut the link in software until `release`: what is under way fails, and nothing is sent."""
        self._uplink.shut(reason)
        self._link.hold(self._uplink.reason)
        self._changes.tell()

    def release(self) -> None:
        """Give the link back; the next envelope leaves at once."""
        if not self._uplink.reason:
            return
        self._uplink.open()
        self._link.release()
        self._pause_s = None
        self._backoff.reset()
        self._changes.tell()

    def status(self) -> BridgeStatus:
        """What the Bridge says of itself, now."""
        events, readings = self._stream_status(Stream.EVENTS), self._stream_status(Stream.READINGS)
        return BridgeStatus(
            uplink=self._uplink.name,
            link=self._link.state,
            since_us=self._link.since_us,
            acknowledged_us=self._acknowledged_us,
            sent_envelopes=sum(lane.envelopes for lane in self._lanes.values()),
            sent_entries=sum(lane.entries for lane in self._lanes.values()),
            refused_envelopes=self._refused_envelopes,
            in_flight=len(self._in_flight),
            rebuilds=self._rebuilds,
            drain_s=self._forecast.drain_s(self._clock.now_s(), events.backlog + readings.backlog),
            events=events,
            readings=readings,
            lanes={
                str(lane): replace(counts, unsent=self._departures.unsent(lane)) for lane, counts in self._lanes.items()
            },
            last_error=self._link.last_error,
            resent_entries=self._resent_entries,
            held=self._uplink.reason,
        )

    async def _step(self, tasks: asyncio.TaskGroup) -> None:
        """Send one envelope on its way, or wait for what keeps it back."""
        self._changes.clear()
        await self._watch()
        if self._uplink.reason:
            await self._stand_still()
        elif self._pause_s is not None:
            await self._recover(self._pause_s)
        elif len(self._in_flight) >= self._in_flight_max():
            await self._changes.wait()
        elif wait_s := self._throughput.wait_s(self._clock.now_s()):
            await self._clock.sleep(wait_s)
        elif outgoing := await self._departures.next(self._clock.now_s(), self._in_flight, self._in_flight_max()):
            self._throughput.take(len(outgoing.sealed.body))
            if not self._in_flight:
                self._progress_s = self._clock.now_s()
            self._in_flight.append(outgoing)
            tasks.create_task(self._carry(outgoing), name=f"bridge {outgoing.lane} {outgoing.sealed.first}")
        else:
            await self._rest()

    def _in_flight_max(self) -> int:
        """One envelope tries a link that is not known to stand."""
        return self._pace.in_flight if self._link.state is LinkState.UP else 1

    async def _stand_still(self) -> None:
        """The link is held: let go of it, and wait for its release."""
        if self._in_flight:
            await self._changes.wait()
            return
        await self._uplink.close()
        await self._uplink.opened()

    async def _recover(self, pause_s: float) -> None:
        if self._in_flight:
            await self._changes.wait()
            return
        self._pause_s = None
        await self._changes.sleep(pause_s)

    async def _rest(self) -> None:
        """Until the next envelope may be sealed, or something has come to its end."""
        rest_s = self._departures.rest_s(self._clock.now_s())
        if self._in_flight:
            await self._changes.sleep(rest_s)
        else:
            await self._clock.sleep(rest_s)

    async def _watch(self) -> None:
        """Progress is what is acknowledged: without any, whatever the link says of itself, it is built anew."""
        now_s = self._clock.now_s()
        if self._in_flight and now_s - self._progress_s >= self._pace.stall_s:
            log.warning("bridge: no acknowledgement for %.0f s, the link is built anew", now_s - self._progress_s)
            self._rebuilds, self._progress_s = self._rebuilds + 1, now_s
            await self._uplink.close()

    async def _carry(self, outgoing: Outgoing) -> None:
        """One envelope on its way, to its acknowledgement or back to its lane."""
        follower = self._followers[outgoing.sealed.stream]
        try:
            await self._offer(outgoing)
        except HeldError:
            follower.returned(outgoing)
        except UplinkError as error:
            follower.returned(outgoing)
            if self._pause_s is None:  # What was under way beside it fails for the same reason.
                self._pause_s = self._backoff.pause_s(error.pause_s_min)
                self._link.lost(error, self._pause_s)
        finally:
            self._in_flight.remove(outgoing)
            self._changes.tell()

    def _acknowledged(self, outgoing: Outgoing) -> None:
        lane, now_s = self._lanes[outgoing.lane], self._clock.now_s()
        lane.envelopes += 1
        lane.entries += outgoing.sealed.count
        lane.bytes += len(outgoing.sealed.body)
        self._resent_entries += outgoing.sealed.count if outgoing.is_again else 0
        self._backoff.reset()
        self._progress_s, self._acknowledged_us = now_s, self._clock.now_us()
        self._forecast.saw(now_s, sum(follower.waiting for follower in self._followers.values()))
        self._link.acknowledged(self._stream_status(Stream.READINGS).backlog)

    async def _offer(self, outgoing: Outgoing) -> None:
        """Send; what the far side will never take goes to the refused ones, with a gap that says so."""
        follower, sealed = self._followers[outgoing.sealed.stream], outgoing.sealed
        try:
            await self._uplink.send(sealed, outgoing.lane)
        except UplinkError as error:
            if error.retryable:
                raise
            await self._refused.send(sealed, outgoing.lane)
            gap = await asyncio.to_thread(refusal, sealed, self._root, self._clock.now_us())
            await follower.refused(outgoing, gap)
            self._refused_envelopes += 1
            entries = f"{sealed.stream} {sealed.first} to {sealed.first + sealed.count - 1}"
            log.error("bridge: %s will never be taken and are kept aside: %s; %s", entries, error, error.hint)
        else:
            follower.arrived(outgoing)
            self._acknowledged(outgoing)

    def _stream_status(self, stream: Stream) -> StreamStatus:
        follower = self._followers.get(stream)
        if follower is None:
            return StreamStatus(0, self._buffer.last(stream))
        return StreamStatus(follower.acknowledged, follower.waiting)
