"""The Republisher: shows on the UNS what the log gets from elsewhere: machines, predictions, alarms."""

import asyncio
import logging
from typing import Protocol, Self

from appliance.broker.intake import ORIGIN
from appliance.broker.message import Message
from appliance.broker.payload import to_payload
from appliance.broker.properties import Property
from appliance.buffer.buffer import Buffer
from appliance.buffer.cursor import Cursor
from appliance.contract.reading import Reading, Stream, message_id

log = logging.getLogger(__name__)

CURSOR, EVENTS_CURSOR = "republish", "republish-events"
BATCH_ENTRIES, CATCH_UP_ENTRIES = 500, 2_000
BEHIND_MAX = 10_000
"""Farther behind than this, only the newest value of each topic is published: the UNS shows what is, not what was."""
LOOK_BACK = 20_000
"""So many of the newest entries are read again at the start, since what is retained is lost with the process."""
ADVANCE_ENTRIES = 5_000
ADVANCE_S = 5.0


class Door(Protocol):
    """Where messages are published."""

    def publish(self, message: Message) -> None:
        """Deliver and retain a message; never blocks."""


class Republisher:
    """Follows both streams of the log and publishes each entry on its topic, retained, at QoS 1.

    What MQTT clients have published themselves is left out: it was delivered when it came. Cursors are moved
    only now and then, since publishing a value twice does no harm.
    """

    def __init__(self, buffer: Buffer, door: Door, cursors: tuple[Cursor, ...]) -> None:
        self._buffer, self._door, self._cursors = buffer, door, cursors

    @classmethod
    async def following(cls, buffer: Buffer, door: Door) -> Self:
        """A Republisher with its cursors where they stood."""
        readings = await buffer.cursor(CURSOR, Stream.READINGS)
        return cls(buffer, door, (readings, await buffer.cursor(EVENTS_CURSOR, Stream.EVENTS)))

    async def run(self) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for cursor in self._cursors:
                tasks.create_task(self._follow(cursor), name=cursor.name)

    async def _follow(self, cursor: Cursor) -> None:
        loop = asyncio.get_running_loop()
        stored, advanced_at = cursor.seq, loop.time()
        cursor.moved(max(0, min(cursor.seq, cursor.seq + cursor.behind - LOOK_BACK)))
        await self._catch_up(cursor)
        while True:
            if cursor.behind > BEHIND_MAX:
                await self._catch_up(cursor)
            batch = await cursor.batch(BATCH_ENTRIES)
            for position, entry in enumerate(batch.entries):
                self._publish(cursor.stream, batch.first + position, entry)
            cursor.moved(batch.last)
            if cursor.seq - stored >= ADVANCE_ENTRIES or loop.time() - advanced_at >= ADVANCE_S:
                await cursor.advance(cursor.seq)
                stored, advanced_at = cursor.seq, loop.time()
            await asyncio.sleep(0)  # A long batch must not hold up clients.

    async def _catch_up(self, cursor: Cursor) -> None:
        """Publish only the newest value of each topic in what lies behind."""
        newest: dict[str, tuple[int, Reading]] = {}
        skipped = cursor.behind
        cursor.moved(max(cursor.seq, cursor.seq + cursor.behind - LOOK_BACK))
        end = cursor.seq + cursor.behind
        while cursor.seq < end:
            batch = await cursor.batch(CATCH_UP_ENTRIES)
            newest.update((entry.topic, (batch.first + at, entry)) for at, entry in enumerate(batch.entries))
            cursor.moved(batch.last)
        for seq, entry in newest.values():
            self._publish(cursor.stream, seq, entry)
        if newest:
            log.info("republish: %d topics of %s, the newest of %d entries", len(newest), cursor.stream, skipped)

    def _publish(self, stream: Stream, seq: int, entry: Reading) -> None:
        if entry.origin.startswith(ORIGIN):
            return
        payload = to_payload(entry) if stream is Stream.READINGS else str(entry.value).encode("utf-8")
        name = message_id(self._buffer.plant, self._buffer.epoch, stream, seq)
        properties = {Property.USER_PROPERTY: (("message-id", name),)}
        self._door.publish(Message(entry.topic, payload, 1, True, properties))
