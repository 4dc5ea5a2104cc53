"""The Watchman: follows the log's own events, and raises and clears the alarms of the log itself."""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Self

from appliance.alarms.own import OwnAlarms
from appliance.buffer.buffer import Buffer
from appliance.buffer.cursor import Cursor
from appliance.contract.prediction import Alarm, AlarmState
from appliance.contract.reading import Stream
from appliance.supervisor import now_us as wall_clock

log = logging.getLogger(__name__)

NAME = "own-alarms"
BATCH_ENTRIES = 2_000
TICK_S = 1.0


class Watchman:
    """Each alarm is one transaction with the cursor's step and state, so a restart neither repeats nor loses one."""

    def __init__(
        self, buffer: Buffer, cursor: Cursor, root: str, is_full: Callable[[], bool], now_us: Callable[[], int]
    ) -> None:
        self._buffer, self._cursor, self._root = buffer, cursor, root
        self._is_full, self._now_us = is_full, now_us
        self.raised = 0

    @classmethod
    async def following(
        cls, buffer: Buffer, root: str, is_full: Callable[[], bool], now_us: Callable[[], int] = wall_clock
    ) -> Self:
        """The Watchman of a plant, going on where it stood; `is_full` says whether producers have to wait."""
        return cls(buffer, await buffer.cursor(NAME, Stream.EVENTS), root, is_full, now_us)

    async def run(self) -> None:
        """Follow until cancelled."""
        own = OwnAlarms(self._root, self._buffer.plant, json.loads(self._cursor.state or "{}"))
        beyond = self._cursor.seq
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._buffer.grown(Stream.EVENTS, beyond)
            except TimeoutError:
                pass  # Time alone brings changes about.
            else:
                beyond = await self._see(own)
            if alarms := own.tick(self._now_us(), monotonic(), self._is_full()):
                await self._append(alarms, own, self._cursor.seq)

    def status(self) -> dict[str, object]:
        """What the health page shows."""
        return {"raised": self.raised, "behind": self._cursor.behind}

    async def _see(self, own: OwnAlarms) -> int:
        """Take the next batch; gives the number up to which there is nothing more to see."""
        last = self._buffer.last(Stream.EVENTS)
        batch = await self._buffer.read(Stream.EVENTS, self._cursor.seq, BATCH_ENTRIES)
        if not batch.entries:
            return last  # All of it has left the log.
        seen = [own.see(entry, self._now_us()) for entry in batch.entries]
        await self._append([alarm for alarm in seen if alarm is not None], own, batch.last)
        return self._cursor.seq

    async def _append(self, alarms: Sequence[Alarm], own: OwnAlarms, seq: int) -> None:
        for alarm in alarms:
            self.raised += alarm.state is AlarmState.RAISED
            log.log(
                logging.ERROR if alarm.state is AlarmState.RAISED else logging.INFO,
                "alarms: %s %s: %s",
                alarm.key,
                alarm.state,
                alarm.message,
            )
        at_us, state = self._now_us(), json.dumps(own.state(), separators=(",", ":"), ensure_ascii=False)
        entries = [alarm.entry(at_us) for alarm in alarms]
        await self._buffer.append(entries, Stream.EVENTS, [self._cursor.moved(seq, state)])
