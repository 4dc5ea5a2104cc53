"""The Outlook: when the log would be full, and when it would have drained, if the link were cut now."""

import math
from collections.abc import Callable

from appliance.bridge.link import LinkState
from appliance.bridge.pacing import UNIT_BYTES_PER_S
from appliance.bridge.status import BridgeStatus
from appliance.rehearsal.rates import Rates, drain_s, full_s
from appliance.rehearsal.seams import BridgeLink, Room


class Outlook:
    """Reckons with the rates it has seen, and with the throughput units that were bought, if any."""

    def __init__(self, bridge: BridgeLink | None, room: Callable[[], Room], throughput_units: float) -> None:
        self._bridge, self._room, self._units = bridge, room, throughput_units
        self.rates = Rates()

    def full_s(self) -> float | None:
        """How long the log has room when nothing leaves."""
        return full_s(self._waiting(), self.rates.in_per_s, self._entry_bytes(), self._room().size_max_bytes)

    def drain_s(self, more_s: float) -> float | None:
        """How long it takes to drain what will wait in `more_s` seconds."""
        in_per_s, entry_bytes = self.rates.in_per_s, self._entry_bytes()
        out_per_s = self.rates.best_out_per_s
        if self._units and entry_bytes:
            out_per_s = self._units * UNIT_BYTES_PER_S / entry_bytes
        return drain_s(self._waiting() + in_per_s * more_s, in_per_s, out_per_s)

    def _entry_bytes(self) -> float:
        """What an entry takes on its way, which is what it takes in the log: 0 before anything was sent."""
        lanes = list(self._bridge.status().lanes.values()) if self._bridge else []
        entries = sum(lane.entries for lane in lanes)
        return sum(lane.bytes for lane in lanes) / entries if entries else 0.0

    def _waiting(self) -> int:
        return self._bridge.status().readings.backlog if self._bridge else 0


def why_not(minutes: float, said: BridgeStatus, room: Room, full_s: float | None) -> str:
    """What stands against cutting the link for so long now; empty when nothing does."""
    if said.link is LinkState.DOWN:
        return f"the link is down already ({said.last_error or 'it is held'}); this is no rehearsal"
    if said.link is not LinkState.UP:
        return "nothing has been acknowledged yet; wait until the link is known to stand"
    if room.is_full:
        return "the log is full, producers wait already"
    times_s = [full_s, room.days_to_full * 86_400 if room.days_to_full else None]
    earliest_s = min((each for each in times_s if each is not None), default=math.inf)
    if earliest_s < minutes * 60:
        return f"the log would be full in {earliest_s / 60:.0f} min, before the end; choose less time"
    return ""
