"""Departures: which envelope leaves next, and how long the lanes may wait to fill one."""

from collections.abc import Mapping, Sequence
from typing import Final

from appliance.bridge.follower import LANES, Follower, Outgoing
from appliance.bridge.pacing import Pace, Shares
from appliance.contract.envelope import Lane
from appliance.contract.reading import Stream

_STREAM_OF: Final = {lane: stream for stream, lanes in LANES.items() for lane in lanes}
_REST_S_MIN: Final = 0.001


class Departures:
    """Takes envelopes from the followers of both streams, in the order of the lanes."""

    def __init__(self, followers: Mapping[Stream, Follower], pace: Pace) -> None:
        self._followers, self._flush_s = followers, pace.flush_s
        self._shares = Shares(pace.backlog_share)
        self._opened_s: dict[Lane, float] = {}
        """When a lane last gave an envelope."""

    async def next(self, now_s: float, in_flight: Sequence[Outgoing], in_flight_max: int) -> Outgoing | None:
        """The most urgent envelope that may leave now, beside those under way."""
        backlog_in_flight = sum(one.lane is Lane.BACKLOG for one in in_flight)
        is_contended = all(self._may_leave(lane, now_s) and self.unsent(lane) for lane in LANES[Stream.READINGS])
        for lane in self._shares.order():
            if lane is Lane.BACKLOG and backlog_in_flight and backlog_in_flight >= in_flight_max - 1:
                continue  # One place is kept for what is newer.
            outgoing = await self._followers[_STREAM_OF[lane]].next(lane) if self._may_leave(lane, now_s) else None
            if outgoing is not None:
                self._opened_s[lane] = now_s
                self._shares.sent(lane, len(outgoing.sealed.body), is_contended=is_contended)
                return outgoing
        return None

    def rest_s(self, now_s: float) -> float:
        """How long until an envelope that is not full may be sealed."""
        opened = [at_s for lane, at_s in self._opened_s.items() if lane is not Lane.BACKLOG and self.unsent(lane)]
        return max(_REST_S_MIN, min(opened, default=now_s) + self._flush_s - now_s)

    def unsent(self, lane: Lane) -> int:
        """Entries that have not left by this lane yet."""
        follower = self._followers.get(_STREAM_OF[lane])
        return follower.unsent(lane) if follower else 0

    def _may_leave(self, lane: Lane, now_s: float) -> bool:
        """Full envelopes leave at once, others when the lane has had its time to fill one."""
        if lane is Lane.BACKLOG or self._followers[_STREAM_OF[lane]].is_due(lane):
            return True
        return lane not in self._opened_s or now_s - self._opened_s[lane] >= self._flush_s
