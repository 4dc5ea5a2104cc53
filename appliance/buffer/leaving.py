"""The Gap of blocks that leave the log."""

import asyncio
from collections.abc import Sequence

from appliance.buffer.blocks import Block
from appliance.buffer.store import Store
from appliance.contract.envelope import Sealed, open_sealed
from appliance.contract.gap import TOPICS_NAMED_MAX, Gap, GapReason
from appliance.contract.reading import Stream


async def gap_of(store: Store, stream: Stream, blocks: Sequence[Block], taken_to: int, reason: GapReason) -> Gap:
    """What is to be said of neighbours that leave; followers have taken the entries up to `taken_to`."""
    topics: dict[str, None] = {}
    for block in blocks:
        if block.size and (sealed := await store.sealed(stream, block.first - 1)):
            topics.update(dict.fromkeys(await asyncio.to_thread(_topics, sealed)))
    return Gap(
        epoch=store.epoch,
        stream=stream,
        first=blocks[0].first,
        last=blocks[-1].last,
        count=sum(block.count for block in blocks),
        unread=sum(max(0, min(block.count, block.last - taken_to)) for block in blocks),
        reason=reason,
        topics=tuple(topics)[:TOPICS_NAMED_MAX],
        topic_count=len(topics),
        from_us=min(block.from_us for block in blocks),
        to_us=max(block.to_us for block in blocks),
    )


def _topics(sealed: Sealed) -> list[str]:
    try:
        return list(dict.fromkeys(entry.topic for entry in open_sealed(sealed).entries))
    except ValueError:
        return []  # Damaged: it goes all the same, and the gap names its numbers.
