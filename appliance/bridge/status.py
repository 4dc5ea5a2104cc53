"""What the Bridge says of itself."""

from dataclasses import dataclass

from appliance.bridge.link import LinkState


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream: the number up to which the far side has acknowledged everything, and how many entries wait."""

    acknowledged_seq: int
    backlog: int


@dataclass(slots=True)
class LaneStatus:
    """One lane: what the far side has acknowledged since the start of the process, and what waits to be sent."""

    envelopes: int = 0
    entries: int = 0
    bytes: int = 0
    unsent: int = 0


@dataclass(frozen=True, slots=True)
class BridgeStatus:
    """What the Bridge says of itself; the counts are since the start of the process."""

    uplink: str
    link: LinkState
    since_us: int
    """Since when the link is in this state, as the wall clock stands now."""
    acknowledged_us: int | None
    """When an envelope was last acknowledged."""
    sent_envelopes: int
    sent_entries: int
    refused_envelopes: int
    """Envelopes the far side will never take; they are kept in the folder of refused ones."""
    in_flight: int
    """Envelopes on their way at this moment."""
    rebuilds: int
    """How often the link was built anew because nothing was acknowledged any more."""
    drain_s: float | None
    """When nothing will wait any more, at the pace of the last minute; None while the backlog does not shrink."""
    events: StreamStatus
    readings: StreamStatus
    lanes: dict[str, LaneStatus]
    last_error: str
    resent_entries: int = 0
    """Entries sent again because the lake lacked them."""
    held: str = ""
    """Why the link is held; empty while it is not."""
