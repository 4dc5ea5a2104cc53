"""What the log says of an envelope that the far side will never take: a gap, so that it is accounted for."""

from appliance.contract.envelope import Sealed, open_sealed
from appliance.contract.gap import GAP_ORIGIN, TOPICS_NAMED_MAX, Gap, GapReason, gap_topic
from appliance.contract.reading import Reading, Stream


def refusal(sealed: Sealed, root: str, now_us: int) -> tuple[Reading, ...]:
    """The gap's event; none for an envelope of nothing but gaps, which would be refused again and again."""
    try:
        entries = open_sealed(sealed).entries
    except ValueError:
        entries = ()  # Its numbers are known all the same.
    if entries and sealed.stream is Stream.EVENTS and all(entry.origin == GAP_ORIGIN for entry in entries):
        return ()
    topics = list(dict.fromkeys(entry.topic for entry in entries))
    arrivals = [entry.arrival_us for entry in entries]
    gap = Gap(
        epoch=sealed.epoch,
        stream=sealed.stream,
        first=sealed.first,
        last=sealed.first + sealed.count - 1,
        count=sealed.count,
        unread=sealed.count,
        reason=GapReason.REFUSED,
        topics=tuple(topics[:TOPICS_NAMED_MAX]),
        topic_count=len(topics),
        from_us=min(arrivals, default=0),
        to_us=max(arrivals, default=0),
    )
    return (gap.entry(gap_topic(root, sealed.plant), now_us),)
