"""Finding readings of one equipment in the log by their source time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Reading, Stream
from appliance.ui.machine import split

SCAN_ENTRIES_MAX = 2_000_000
SCAN_S_MAX = 4.0
FOUND_MAX = 200
CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class Found:
    """The newest matches first, and how far back the log was searched."""

    readings: tuple[tuple[int, Reading], ...]
    searched: int
    is_whole: bool
    """The search reached the beginning of the log."""


async def find_at(buffer: Buffer, equipment: str, source_us: int, elapsed_s: Callable[[], float] = monotonic) -> Found:
    """The readings of this equipment with exactly this source time, newest arrivals first."""
    began_s, last = elapsed_s(), buffer.last(Stream.READINGS)
    floor = max(0, last - SCAN_ENTRIES_MAX)
    found: list[tuple[int, Reading]] = []
    end = last
    while end > floor and len(found) < FOUND_MAX and elapsed_s() - began_s < SCAN_S_MAX:
        after = max(floor, end - CHUNK)
        batch = await buffer.read(Stream.READINGS, after, end - after)
        inside = [
            (seq, reading)
            for seq, reading in enumerate(batch.entries, batch.first)
            if reading.source_us == source_us and seq <= end and split(reading.topic)[0] == equipment
        ]
        found.extend(reversed(inside))
        end = after
        await asyncio.sleep(0)
    return Found(tuple(found[:FOUND_MAX]), last - end, end == 0)
