"""A Gap: a range of the log that is not there, how that came about, and whom it concerns."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final, Self

from appliance.contract.reading import Quality, Reading, Stream

GAP_ORIGIN: Final = "gap"
GAP_TAG: Final = "_gap"
TOPICS_NAMED_MAX: Final = 20


class GapReason(StrEnum):
    """Why a range is not there."""

    SIZE = "size"
    """The log had reached its bound in bytes."""
    AGE = "age"
    """The range was older than the log keeps."""
    DISK = "disk"
    """The disk had less free space than it must keep, or none."""
    DAMAGED = "damaged"
    """The file was damaged there."""
    REFUSED = "refused"
    """The far side will never take the envelope; it is kept in the folder of refused ones, and in the log."""
    CARRIED = "carried"
    """Nothing is lost: the range stands in the epoch before, whose followers had already taken it."""
    RENUMBERED = "renumbered"
    """Nothing is lost: the range was not sent yet, and goes on under numbers of the next epoch."""
    OVERFLOW = "overflow"
    """A server's queue was too short: values never came here, and never got numbers."""
    THINNED = "thinned"
    """Every second reading of a branch was not let in while the log was tight: they never got numbers."""
    UNWATCHED = "unwatched"
    """A server had forgotten the subscription: what it said in between never came, nobody knows how much."""
    MISSED = "missed"
    """Notifications of a server never came and it no longer has them: their values never got numbers."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries `first` to `last` of `(epoch, stream)`, dropped in the transaction that wrote this event.

    What was lost before it got a number has epoch 0 and the empty range 0 to -1; its count is the least it
    can be; that of thinned readings is exact.
    """

    epoch: int
    stream: Stream
    first: int
    last: int
    count: int
    """Entries that were there; less than the range spans when it held older gaps."""
    unread: int
    """Entries of the range that at least one follower had not yet taken."""
    reason: GapReason
    topics: tuple[str, ...]
    """Up to `TOPICS_NAMED_MAX` of the topics it concerns."""
    topic_count: int
    from_us: int
    to_us: int
    """Arrival times of the oldest and newest entry; both 0 when unknown."""

    def entry(self, topic: str, now_us: int) -> Reading:
        """The gap as an entry of the stream `events`."""
        text = json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)
        return Reading(topic, text, Quality.GOOD, now_us, now_us, now_us, GAP_ORIGIN)

    @classmethod
    def from_entry(cls, entry: Reading) -> Self:
        body = json.loads(str(entry.value))
        fixed = {
            "stream": Stream(body["stream"]),
            "reason": GapReason(body["reason"]),
            "topics": tuple(body["topics"]),
        }
        return cls(**{**body, **fixed})


def own_equipment(root: str, plant: str) -> str:
    """The log's own place in the namespace: where its gaps and alarms are said."""
    return f"{root}/{plant}/plantward/buffer/retention/appliance"


def source_gap_topic(root: str, plant: str, source: str) -> str:
    """Where is said what a source lost before it came here."""
    return f"{root}/{plant}/plantward/connectors/{source}/appliance/{GAP_TAG}"


def gap_topic(root: str, plant: str) -> str:
    """Where a plant's gaps are said."""
    return f"{own_equipment(root, plant)}/{GAP_TAG}"
