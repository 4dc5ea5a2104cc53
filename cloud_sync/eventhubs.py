"""Event Hubs as a Source: one receiver for each partition, with deadlines and back-off of our own around the SDK."""

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cloud_sync.source import HubEvent, SourceError, Take

if TYPE_CHECKING:
    from azure.eventhub import EventData
    from azure.eventhub.aio import EventHubConsumerClient

log = logging.getLogger(__name__)

CALL_S_MAX = 20.0
CLOSE_S_MAX = 1.5
SILENCE_S_MAX = 60.0
"""The SDK calls back with an empty list each `WAIT_S`; when even that stops, the link is dead."""
WAIT_S = 1.0
PAUSE_S_MIN, PAUSE_S_MAX = 0.5, 30.0
EVENTS_PER_LINK_MAX = 20_000
"""The SDK never forgets a delivery tag, so links are renewed."""
_BROKEN = (TimeoutError, OSError, KeyError, AttributeError)
"""What the SDK raises beside its own errors; the last two when the link goes away under its hands."""


class EventHubs:
    """The hub behind a connection string."""

    def __init__(self, connection_string: str, hub: str, group: str) -> None:
        from azure.eventhub import parse_connection_string

        try:
            namespace = parse_connection_string(connection_string).fully_qualified_namespace
        except ValueError as error:
            raise SourceError(f"hub: the connection string cannot be read ({error}); copy it again") from error
        self.hub = f"{namespace}/{hub}"
        self.group = group
        self._connection_string = connection_string
        self._name = hub

    async def ends(self) -> Mapping[int, int]:
        from azure.eventhub.exceptions import EventHubError

        client = self.client()
        try:
            async with asyncio.timeout(CALL_S_MAX):
                found = {}
                for partition in await client.get_partition_ids():
                    properties = await client.get_partition_properties(partition)
                    found[int(partition)] = (
                        -1 if properties["is_empty"] else properties["last_enqueued_sequence_number"]
                    )
                return found
        except (EventHubError, *_BROKEN) as error:
            raise SourceError(f"hub {self.hub}: not reached ({_said(error)}); is it running?") from error
        finally:
            await _close(client)

    async def follow(self, after: Mapping[int, int], take: Take) -> None:
        async with asyncio.TaskGroup() as group:
            for partition, sequence in after.items():
                group.create_task(_Follower(self, partition, sequence, take).run())

    def client(self) -> "EventHubConsumerClient":
        from azure.eventhub.aio import EventHubConsumerClient

        return EventHubConsumerClient.from_connection_string(
            self._connection_string, consumer_group=self.group, eventhub_name=self._name, retry_total=0
        )


class _Follower:
    """Follows one partition for ever."""

    def __init__(self, hub: EventHubs, partition: int, after: int, take: Take) -> None:
        self._hub, self._partition, self._hand_over = hub, partition, take
        self._after = after
        self._heard, self._received, self._is_handing_over = 0.0, 0, False
        self._writers: set[asyncio.StreamWriter] = set()
        self._pauses = _Pauses(f"hub {hub.hub}, partition {partition}")

    async def run(self) -> None:
        from azure.eventhub.exceptions import EventHubError

        while True:
            error: BaseException | None = None
            try:
                await self._one_link()
            except* (EventHubError, *_BROKEN) as group:
                error = group.exceptions[0]
            if error is not None:
                await self._pauses.lost(error)

    async def _one_link(self) -> None:
        client = self._hub.client()
        self._heard, self._received = time.monotonic(), 0
        failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def fail(_: Any, error: Exception) -> None:
            if not failed.done():
                failed.set_result(error)

        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(
                    client.receive_batch(
                        self._take,
                        partition_id=str(self._partition),
                        starting_position=self._after if self._after >= 0 else "-1",
                        starting_position_inclusive=False,
                        max_batch_size=100,
                        max_wait_time=WAIT_S,
                        prefetch=300,
                        on_error=fail,
                    )
                )
                try:
                    await self._watch(client, failed)
                finally:
                    task.cancel()
        finally:
            failed.cancel()
            self._writers |= _writers(client)
            await _close(client)
            for writer in self._writers:
                writer.transport.abort()
            self._writers.clear()

    async def _watch(self, client: "EventHubConsumerClient", failed: "asyncio.Future[Exception]") -> None:
        while self._received < EVENTS_PER_LINK_MAX:
            done, _ = await asyncio.wait({failed}, timeout=WAIT_S)
            self._writers |= _writers(client)
            if done:
                raise ConnectionError(_said(failed.result()))
            waited_s = time.monotonic() - self._heard
            if waited_s > SILENCE_S_MAX and not self._is_handing_over:
                raise TimeoutError(f"nothing heard for {waited_s:.0f} s")

    async def _take(self, _: Any, batch: "Sequence[EventData]") -> None:
        self._heard = time.monotonic()
        self._pauses.back()
        events = [event for event in (_event(self._partition, data) for data in batch) if event.sequence > self._after]
        if events:
            self._is_handing_over = True
            try:
                await self._hand_over(events)
            finally:
                self._is_handing_over = False
            self._after = events[-1].sequence
            self._received += len(events)


class _Pauses:
    """Back-off with jitter, and one log line when the link is lost and one when it is back."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lost_at: float | None = None
        self._pause_s = PAUSE_S_MIN

    async def lost(self, error: BaseException) -> None:
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            log.warning("drain: %s lost (%s), trying again", self._name, _said(error))
        await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))
        self._pause_s = min(self._pause_s * 2, PAUSE_S_MAX)

    def back(self) -> None:
        if self._lost_at is not None:
            log.info("drain: %s back after %.0f s", self._name, time.monotonic() - self._lost_at)
        self._lost_at, self._pause_s = None, PAUSE_S_MIN


async def _close(client: "EventHubConsumerClient") -> None:
    from azure.eventhub.exceptions import EventHubError

    with suppress(EventHubError, *_BROKEN):
        async with asyncio.timeout(CLOSE_S_MAX):
            await client.close()


def _writers(client: "EventHubConsumerClient") -> set[asyncio.StreamWriter]:
    """The client's open connections. Its own `close` skips those that the far side has cut or never answered."""
    found = set()
    for processor in list(getattr(client, "_event_processors", {}).values()):
        for place in list(getattr(processor, "_consumers", {}).values()):
            for step in ("_handler", "_connection", "_transport", "writer"):
                place = getattr(place, step, None)
            if isinstance(place, asyncio.StreamWriter):
                found.add(place)
    return found


def _event(partition: int, data: "EventData") -> HubEvent:
    key = data.partition_key
    enqueued_at = data.enqueued_time
    return HubEvent(
        partition=partition,
        sequence=int(data.sequence_number or 0),
        offset=str(data.offset or ""),
        enqueued_us=int(enqueued_at.timestamp() * 1_000_000) if enqueued_at else 0,
        partition_key=key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key or ""),
        properties={_text(name): value for name, value in (data.properties or {}).items()},
        body=_body(data),
    )


def _body(data: "EventData") -> bytes:
    """The bytes of the event; one whose body is no bytes is kept as text, and ends among the dead letters."""
    from azure.eventhub.amqp import AmqpMessageBodyType

    body: Any = data.body
    return b"".join(body) if data.body_type is AmqpMessageBodyType.DATA else repr(body).encode()


def _text(name: str | bytes) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


def _said(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
