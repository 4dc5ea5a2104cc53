"""The History: minutes and hours of every topic on disk, made by following the log, for ranges beyond memory."""

import asyncio
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from appliance.buffer.buffer import Buffer
from appliance.buffer.damage import sound
from appliance.contract.reading import Quality, Reading, Stream
from appliance.contract.rollup import Rollup
from appliance.history.store import HOUR, MINUTE, HistoryStore

log = logging.getLogger(__name__)

BATCH_MAX: Final = 1_000
"""Entries taken in one turn of the loop."""
FLUSH_S: Final = 15.0
CELLS_MAX: Final = 5_000
"""Minutes of topics gathered at most before they are written."""
SPANS_A_COLUMN: Final = 4
"""Rollups that a reader gets for each column it draws, so that gaps keep their place."""


@dataclass(frozen=True, slots=True)
class HistoryStatus:
    """What the History says of itself; `behind` counts readings of the log that are not yet in its file."""

    topics: int
    size_bytes: int
    size_max_bytes: int
    behind: int
    blocks_dropped: int


class Cells:
    """Rollups by topic and minute while they are being gathered."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, int], list[float]] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def take(self, entries: Iterable[Reading]) -> None:
        """Take in readings; texts, nulls and what is not finite are no numbers and stay out, booleans are 0 and 1."""
        cells, good_from, finite = self._cells, int(Quality.GOOD), math.isfinite
        for topic, given, quality, at, _, _, _ in entries:
            if given is None or type(given) is str or not finite(given):  # type: ignore[arg-type]
                continue
            value = float(given)
            key = (topic, at // MINUTE.span_us)
            cell = cells.get(key)
            if cell is None:
                cells[key] = [value, value, value, 1, quality >= good_from, value, at, value, at]
                continue
            if value < cell[0]:
                cell[0] = value
            if value > cell[1]:
                cell[1] = value
            cell[2] += value
            cell[3] += 1
            cell[4] += quality >= good_from
            if at < cell[6] or (at == cell[6] and value < cell[5]):
                cell[5], cell[6] = value, at
            if at > cell[8] or (at == cell[8] and value > cell[7]):
                cell[7], cell[8] = value, at

    def rollups(self) -> dict[tuple[str, int], Rollup]:
        return {
            key: Rollup(
                cell[0], cell[1], cell[2], int(cell[3]), int(cell[4]), cell[5], int(cell[6]), cell[7], int(cell[8])
            )
            for key, cell in self._cells.items()
        }


class History:
    """One follower of the log. Its place is in its own file, so the file may be deleted and is made again."""

    def __init__(self, buffer: Buffer, store: HistoryStore, size_max: int) -> None:
        self._buffer, self._store, self._size_max = buffer, store, size_max
        self._stored = self._topics = self._size_bytes = self._dropped = 0

    async def run(self) -> None:
        """Follow the log until cancelled; raises `FileDamaged` when the history's file turns bad."""
        with sound("the history's file"):
            await self._follow()

    async def _follow(self) -> None:
        buffer, stream = self._buffer, Stream.READINGS
        seq = self._stored = await self._store.place(buffer.epoch, buffer.last(stream))
        await self._count()
        if buffer.last(stream) - seq > BATCH_MAX:
            log.info("history: %d readings of the log to catch up with", buffer.last(stream) - seq)
        cells, due = Cells(), monotonic() + FLUSH_S
        while True:
            if buffer.last(stream) > seq:
                batch = await buffer.read(stream, seq, BATCH_MAX)
                cells.take(batch.entries)
                seq = batch.last if batch.entries else buffer.last(stream)
                await asyncio.sleep(0)  # Catching up lets the others work.
            elif seq > self._stored:
                await self._grown(seq, due - monotonic())
            else:
                await buffer.grown(stream, seq)
                due = monotonic() + FLUSH_S
            if len(cells) >= CELLS_MAX or (seq > self._stored and monotonic() >= due):
                await self._flush(cells, seq)
                cells, due = Cells(), monotonic() + FLUSH_S

    async def rollups(self, topic: str, start_us: int, end_us: int, columns: int) -> tuple[list[Rollup], int]:
        """Some rollups for each column of a curve, in order, and their span."""
        column_us = max(1, (end_us - start_us) // max(1, columns))
        grain = HOUR if column_us >= HOUR.span_us else MINUTE
        every = max(1, column_us // (SPANS_A_COLUMN * grain.span_us))
        return await self._store.rollups(topic, start_us, end_us, grain, every), every * grain.span_us

    def status(self) -> HistoryStatus:
        behind = self._buffer.last(Stream.READINGS) - self._stored
        return HistoryStatus(self._topics, self._size_bytes, self._size_max, behind, self._dropped)

    async def _grown(self, seq: int, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._buffer.grown(Stream.READINGS, seq)
        except TimeoutError:
            pass  # Nothing came; what has been gathered is due.

    async def _flush(self, cells: Cells, seq: int) -> None:
        await self._store.merge(await asyncio.to_thread(cells.rollups), self._buffer.epoch, seq)
        self._stored = seq
        dropped = await self._store.trim(self._size_max)
        if dropped and not self._dropped:
            log.warning("history: the bound of %d bytes is reached, the oldest minutes go first", self._size_max)
        self._dropped += dropped
        await self._count()

    async def _count(self) -> None:
        self._topics, self._size_bytes = await self._store.topics(), await self._store.used_bytes()
