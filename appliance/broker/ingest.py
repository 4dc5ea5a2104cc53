"""Ingest: publishes wait here for their commit. Who published is answered after it, never before."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.broker.limits import Counters, Limits
from appliance.broker.message import Message
from appliance.broker.wire import Reason
from appliance.contract.reading import Reading

COMMIT_MESSAGES_MAX = 2_000


class Log(Protocol):
    """Where readings are written down."""

    async def append(self, entries: Sequence[Reading], /) -> int:
        """Make the entries durable; returns when they are."""


class Publisher(Protocol):
    """Who published, and waits for an answer."""

    def answer(self, packet_id: int, reason: Reason, text: str) -> None:
        """Answer the publish with this id, in the order in which publishes came; 0 wants no answer."""

    def pause(self) -> None:
        """Read nothing more from the publisher."""

    def resume(self) -> None:
        """Read on."""


@dataclass(frozen=True, slots=True, eq=False)
class Incoming:
    """One publish on its way: the reading to record, if any, and the answer to give."""

    publisher: Publisher
    packet_id: int
    message: Message
    reading: Reading | None = None
    reason: Reason = Reason.SUCCESS
    text: str = ""

    @property
    def is_refused(self) -> bool:
        return self.reason >= Reason.UNSPECIFIED_ERROR


class Ingest:
    """One queue and one task for the whole broker; each commit takes what has gathered since the last."""

    def __init__(self, log: Log, publish: Callable[[Message], None], limits: Limits, counters: Counters) -> None:
        self._log, self._publish, self._limits, self._counters = log, publish, limits, counters
        self._waiting: deque[Incoming] = deque()
        self._waiting_bytes = 0
        self._committing = 0
        self._arrived = asyncio.Event()
        self._paused: set[Publisher] = set()

    def __len__(self) -> int:
        """How many publishes wait for their commit, those included that are being committed."""
        return len(self._waiting) + self._committing

    def put(self, incoming: Incoming) -> None:
        """Take a publish; its publisher is paused while too much waits."""
        self._waiting.append(incoming)
        self._waiting_bytes += incoming.message.size_bytes
        self._arrived.set()
        if self._is_full() and incoming.publisher not in self._paused:
            self._paused.add(incoming.publisher)
            incoming.publisher.pause()

    def forget(self, publisher: Publisher) -> None:
        """The publisher is gone; what it has published is still recorded."""
        self._paused.discard(publisher)

    def settle(self, incoming: Incoming) -> None:
        """Deliver what is accepted, and answer."""
        if not incoming.is_refused:
            self._publish(incoming.message)
        incoming.publisher.answer(incoming.packet_id, incoming.reason, incoming.text)

    async def run(self) -> None:
        """Commit, deliver and answer until cancelled; an error of the log ends it, and nobody is answered."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._commit([self._taken() for _ in range(min(len(self._waiting), COMMIT_MESSAGES_MAX))])
                self._resume()

    def clear(self) -> None:
        """Drop what waits: its publishers were not answered, and are gone."""
        self._waiting.clear()
        self._waiting_bytes = self._committing = 0
        self._paused.clear()

    async def _commit(self, batch: list[Incoming]) -> None:
        readings = [incoming.reading for incoming in batch if incoming.reading is not None]
        if readings:
            self._committing = len(batch)
            await self._log.append(readings)
            self._committing = 0
            self._counters.recorded += len(readings)
        for incoming in batch:
            self.settle(incoming)
        if not readings:
            await asyncio.sleep(0)

    def _taken(self) -> Incoming:
        incoming = self._waiting.popleft()
        self._waiting_bytes -= incoming.message.size_bytes
        return incoming

    def _is_full(self) -> bool:
        limits = self._limits
        return len(self._waiting) > limits.ingest_messages_max or self._waiting_bytes > limits.ingest_bytes_max

    def _resume(self) -> None:
        limits = self._limits
        is_half_empty = (
            len(self._waiting) <= limits.ingest_messages_max // 2
            and self._waiting_bytes <= limits.ingest_bytes_max // 2
        )
        if self._paused and is_half_empty:
            paused, self._paused = self._paused, set()
            for publisher in paused:
                publisher.resume()
