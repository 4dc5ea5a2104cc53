"""Receipts from Event Hubs, read by the azure-eventhub client.

Receipts take the place of each other, so nothing is kept of where the reader stood: after a start it begins an
hour back, or at a partition's newest event when that is older.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final, Self

from azure.core.exceptions import AzureError
from azure.eventhub import EventData, parse_connection_string
from azure.eventhub.aio import EventHubConsumerClient
from azure.eventhub.exceptions import EventHubError

from appliance.bridge import leftovers
from appliance.bridge.eventhubs import TRANSPORTS
from appliance.bridge.receipts import ReceiptsStatus, Story, Take

log = logging.getLogger(__name__)

GROUP: Final = "$Default"
BACK: Final = timedelta(hours=1)
CALL_S_MAX: Final = 30.0
CLOSE_S_MAX: Final = 2.0
WAIT_S: Final = 5.0
SILENCE_S_MAX: Final = 120.0
"""The client calls back with an empty list each `WAIT_S`; when even that stops, the link is dead."""
PAUSE_S_MIN, PAUSE_S_MAX = 1.0, 300.0
EVENTS_MAX, AGE_S_MAX = 5_000, 6 * 3_600.0
"""The client never forgets a delivery tag, so it is built anew."""
_BROKEN: Final = (EventHubError, AzureError, OSError, TimeoutError, KeyError, AttributeError)
"""What the client raises when its link breaks; the last two when the link goes away under its hands."""


class EventHubsReceipts:
    """Reads the hub at `address` (host, or host:port); `connect` builds an unconnected client and its credential."""

    def __init__(
        self,
        address: str,
        hub: str,
        connect: Callable[[], tuple[EventHubConsumerClient, Any]],
        take: Take,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._address, self._hub, self._connect, self._sleep = address, hub, connect, sleep
        self._story = Story(take)
        self._seen: dict[str, int] = {}
        """The newest sequence number of each partition that was handed over."""
        self._heard_s = self._pause_s = 0.0
        self._events = 0

    @classmethod
    def from_connection_string(cls, text: str, hub: str, take: Take, transport: str = "amqp") -> Self:
        """For development: a connection string holds a secret. Raises `ValueError` when it is malformed."""

        def connect() -> tuple[EventHubConsumerClient, None]:
            sdk = EventHubConsumerClient.from_connection_string(
                text, GROUP, eventhub_name=hub, retry_total=0, transport_type=TRANSPORTS[transport]
            )
            return sdk, None

        return cls(parse_connection_string(text).fully_qualified_namespace, hub, connect, take)

    @classmethod
    def from_credential(
        cls,
        namespace: str,
        hub: str,
        credential: Callable[[], Any],
        take: Take,
        transport: str = "amqp",
        **options: Any,
    ) -> Self:
        """With an identity that has the role Azure Event Hubs Data Receiver; `options` go to the SDK's client."""

        def connect() -> tuple[EventHubConsumerClient, Any]:
            its_own = credential()
            kind = TRANSPORTS[transport]
            sdk = EventHubConsumerClient(namespace, hub, GROUP, its_own, retry_total=0, transport_type=kind, **options)
            return sdk, its_own

        return cls(namespace, hub, connect, take)

    def status(self) -> ReceiptsStatus:
        return self._story.status()

    async def run(self) -> None:
        """Follow until cancelled."""
        self._pause_s = PAUSE_S_MIN
        while True:
            error: BaseException | None = None
            try:
                await self._one_client()
            except* (ValueError, *_BROKEN) as group:
                error = group.exceptions[0]
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
            if error is not None:
                text = str(error).partition("\n")[0] or type(error).__name__
                hint = f"the hub {self._hub} must exist, and the identity needs the role Data Receiver on it"
                self._story.failed(text, f"{hint}; trying again, at most every {PAUSE_S_MAX:.0f} s")
                if isinstance(error, OSError):
                    leftovers.cut(self._address)
                await self._sleep(self._pause_s * random.uniform(0.5, 1.0))
                self._pause_s = min(self._pause_s * 2, PAUSE_S_MAX)

    async def _one_client(self) -> None:
        """Follow all partitions for as long as one client is good."""
        client, credential = self._connect()
        failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def fail(_: Any, error: Exception) -> None:
            if not failed.done():
                failed.set_result(error)

        try:
            async with asyncio.timeout(CALL_S_MAX):
                starts = {name: await self._start(client, name) for name in await client.get_partition_ids()}
            self._heard_s, self._events, born_s = monotonic(), 0, monotonic()
            async with asyncio.TaskGroup() as tasks:
                following = [tasks.create_task(self._follow(client, name, at, fail)) for name, at in starts.items()]
                try:
                    await self._watch(failed, born_s)
                finally:
                    for task in following:
                        task.cancel()
        finally:
            failed.cancel()
            await self._close(client, credential)

    async def _start(self, client: EventHubConsumerClient, partition: str) -> dict[str, Any]:
        """Behind the last one seen; at first an hour back, or at the newest when that is older."""
        if partition in self._seen:
            return {"starting_position": self._seen[partition], "starting_position_inclusive": False}
        properties = await client.get_partition_properties(partition)
        back = datetime.now(UTC) - BACK
        newest = properties["last_enqueued_time_utc"]
        if properties["is_empty"] or (newest.replace(tzinfo=newest.tzinfo or UTC) >= back):
            return {"starting_position": back}
        number = properties["last_enqueued_sequence_number"]
        return {"starting_position": number, "starting_position_inclusive": True}

    async def _follow(self, client: EventHubConsumerClient, partition: str, start: dict[str, Any], fail: Any) -> None:
        async def take(_: Any, batch: Sequence[EventData]) -> None:
            self._heard_s, self._pause_s = monotonic(), PAUSE_S_MIN
            self._story.well()
            for event in batch:
                self._seen[partition] = int(event.sequence_number or 0)
                self._events += 1
                self._story.came(_body(event))

        await client.receive_batch(
            take, partition_id=partition, max_batch_size=100, max_wait_time=WAIT_S, on_error=fail, **start
        )

    async def _watch(self, failed: "asyncio.Future[Exception]", born_s: float) -> None:
        while self._events < EVENTS_MAX and monotonic() - born_s < AGE_S_MAX:
            done, _ = await asyncio.wait({failed}, timeout=WAIT_S)
            if done:
                raise failed.result()
            if (waited_s := monotonic() - self._heard_s) > SILENCE_S_MAX:
                raise TimeoutError(f"nothing heard for {waited_s:.0f} s")

    async def _close(self, client: EventHubConsumerClient, credential: Any) -> None:
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                await client.close()
                if credential is not None:
                    await credential.close()
        except _BROKEN as error:
            log.debug("receipts: the client did not close properly: %r", error)


def _body(event: EventData) -> bytes:
    """The bytes of the event; of one whose body is no bytes, its text, which is no receipt."""
    body: Any = event.body
    try:
        return b"".join(body)
    except TypeError:
        return repr(body).encode()
