"""Single values of one topic, read back from the log: those of the last hour that memory no longer has."""

import asyncio
import math
from collections.abc import Iterable
from typing import Final, TypeAlias

from appliance.buffer.buffer import Buffer
from appliance.contract.envelope import EnvelopeError, Sealed, entries_of
from appliance.contract.reading import Reading, Stream

BLOCKS_MAX: Final = 60
"""Blocks that one look opens, a millisecond each; what lies before is drawn of minutes."""
LOOSE_MAX: Final = 20_000
"""More entries than ever wait for their sealing."""
Point: TypeAlias = tuple[int, float]
"""Source time in microseconds, and value."""


async def single_values(buffer: Buffer, topic: str, start_us: int) -> list[Point]:
    """The finite numbers of a topic in order of their time, from `start_us` on or as far back as the look reaches."""
    stream = Stream.READINGS
    end = buffer.keeper.sealed_to[stream]
    loose = await buffer.read(stream, end, LOOSE_MAX)
    found = _points(entry for entry in loose.entries if entry.topic == topic)
    for _ in range(BLOCKS_MAX):
        block = await buffer.sealed(stream, end - 1) if end else None
        if block is None or block.first > end or (found and min(found)[0] < start_us):
            break  # The beginning of the log, a gap, or far enough back.
        found += _points(await asyncio.to_thread(_of_topic, block, topic))
        end = block.first - 1
    return sorted(point for point in found if point[0] >= start_us)


def _of_topic(block: Sealed, topic: str) -> list[Reading]:
    try:
        return entries_of(block, topic)
    except EnvelopeError:
        return []  # The log finds out by itself, and says so.


def _points(entries: Iterable[Reading]) -> list[Point]:
    return [
        (entry.source_us, float(entry.value))
        for entry in entries
        if isinstance(entry.value, int | float) and not isinstance(entry.value, bool) and math.isfinite(entry.value)
    ]
