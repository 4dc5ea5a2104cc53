"""Receipts from Event Hubs, read by the azure-eventhub client.

Receipts take the place of each other, so nothing is kept of where the reader stood: after a start it begins an
hour before each partition's newest event. A link says nothing while no receipt comes, and the client calls back
whether it stands or not; the cloud says each receipt once a minute, so after some minutes of quiet a new client
is built, as it is after many events and after hours.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any, Final, Self

from azure.core.exceptions import ClientAuthenticationError
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubConsumerClient
from azure.eventhub.exceptions import AuthenticationError

from appliance.bridge.deadline import Deadline
from appliance.bridge.leftovers import Leftovers
from appliance.bridge.link import Backoff
from appliance.bridge.receipts import ReceiptsStatus, Story, Take
from appliance.bridge.sdk import BROKEN, TRANSPORTS, quieten, said

log = logging.getLogger(__name__)

GROUP: Final = "$Default"
BACK: Final = timedelta(hours=1)
EVENTS_MAX, AGE_S_MAX = 5_000, 6 * 3_600.0
"""The client never forgets a delivery tag, so it is built anew."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the reader waits: for an answer, for a client to close, for a failure before it says that all is
    well, for a receipt before it builds another client, and between its tries."""

    call_s: float = 30.0
    close_s: float = 2.0
    settled_s: float = 5.0
    quiet_s: float = 300.0
    pause_s_min: float = 1.0
    pause_s_max: float = 60.0


class EventHubsReceipts:
    """Reads `hub`; `connect` builds an unconnected client, and the credential it signs in with, if any."""

    def __init__(
        self,
        hub: str,
        connect: Callable[[], tuple[EventHubConsumerClient, Any]],
        take: Take,
        patience: Patience | None = None,
    ) -> None:
        self._hub, self._connect, self._patience = hub, connect, patience or Patience()
        self._backoff = Backoff(random.Random(), self._patience.pause_s_min, self._patience.pause_s_max)
        self._story = Story(take)
        self._seen: dict[str, int] = {}
        """The newest sequence number of each partition that was handed over."""
        self._heard_s, self._events = 0.0, 0
        self.clients = 0
        """How many clients have been built."""
        quieten()

    @classmethod
    def from_connection_string(
        cls, text: str, hub: str, take: Take, transport: str = "amqp", patience: Patience | None = None
    ) -> Self:
        """For development: a connection string holds a secret. Raises `ValueError` when it is malformed."""

        def connect() -> tuple[EventHubConsumerClient, None]:
            sdk = EventHubConsumerClient.from_connection_string(
                text, GROUP, eventhub_name=hub, retry_total=0, transport_type=TRANSPORTS[transport]
            )
            return sdk, None

        return cls(hub, connect, take, patience)

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

        return cls(hub, connect, take)

    def status(self) -> ReceiptsStatus:
        return self._story.status()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            error: BaseException | None = None
            try:
                await self._one_client()
            except* (ValueError, *BROKEN) as group:
                error = group
            if error is not None:
                self._story.failed(*_explained(error, self._hub, self._patience))
                await asyncio.sleep(self._backoff.pause_s(0.0))

    async def _one_client(self) -> None:
        """Follow all partitions for as long as one client is good."""
        client, credential = self._connect()
        leftovers = Leftovers(client)
        self.clients += 1
        try:
            async with Deadline(self._patience.call_s):
                starts = {name: await self._start(client, name) for name in await client.get_partition_ids()}
            await self._follow_all(client, leftovers, starts)
        finally:
            await self._close(client, credential)
            left_behind = leftovers.cut()
            log.debug("receipts: %d connections were left behind and are cut", left_behind)

    async def _start(self, client: EventHubConsumerClient, partition: str) -> dict[str, Any]:
        """Behind the last one seen; at first, or when the hub counts anew, an hour before the newest one."""
        properties = await client.get_partition_properties(partition)
        if properties["is_empty"]:
            return {"starting_position": "-1"}
        if self._seen.get(partition, -1) in range(properties["last_enqueued_sequence_number"] + 1):
            return {"starting_position": self._seen[partition], "starting_position_inclusive": False}
        return {"starting_position": properties["last_enqueued_time_utc"] - BACK}

    async def _follow_all(
        self, client: EventHubConsumerClient, leftovers: Leftovers, starts: dict[str, dict[str, Any]]
    ) -> None:
        failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def fail(_: Any, error: Exception) -> None:
            if not failed.done():
                failed.set_result(error)

        self._heard_s, self._events = monotonic(), 0
        async with asyncio.TaskGroup() as tasks:
            following = [tasks.create_task(self._follow(client, name, at, fail)) for name, at in starts.items()]
            try:
                await self._watch(failed)
            finally:
                failed.cancel()
                await self._end(following, leftovers)

    async def _follow(self, client: EventHubConsumerClient, partition: str, start: dict[str, Any], fail: Any) -> None:
        async def take(_: Any, batch: Sequence[EventData]) -> None:
            self._well()
            self._heard_s = monotonic()
            for event in batch:
                self._seen[partition] = int(event.sequence_number or 0)
                self._events += 1
                self._story.came(_body(event))

        await client.receive_batch(take, partition_id=partition, max_batch_size=100, on_error=fail, **start)

    async def _watch(self, failed: "asyncio.Future[Exception]") -> None:
        """Until a new client is due; raises what the client's links fail with."""
        born_s = monotonic()
        while self._events < EVENTS_MAX and monotonic() - born_s < AGE_S_MAX:
            done, _ = await asyncio.wait({failed}, timeout=self._patience.settled_s)
            if done:
                raise failed.result()
            self._well()
            if monotonic() - self._heard_s >= self._patience.quiet_s:
                log.debug("receipts: none for %.0f s, the client is built anew", self._patience.quiet_s)
                return

    def _well(self) -> None:
        self._story.well()
        self._backoff.reset()

    async def _end(self, following: Sequence["asyncio.Task[None]"], leftovers: Leftovers) -> None:
        """The client ends its tasks one by one, and for a mute peer it may wait for ever."""
        for task in following:
            task.cancel()
        if following:
            await asyncio.wait(following, timeout=self._patience.close_s)
        leftovers.cut()
        for task in following:
            task.cancel()

    async def _close(self, client: EventHubConsumerClient, credential: Any) -> None:
        try:
            async with Deadline(self._patience.close_s):
                await client.close()
                if credential is not None:
                    await credential.close()
        except BROKEN as error:
            log.debug("receipts: the client did not close properly: %r", error)


def _explained(error: BaseException, hub: str, patience: Patience) -> tuple[str, str]:
    """What went wrong, and what an operator can do."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text, again = said(error), f"trying again, at most every {patience.pause_s_max:g} s"
    if isinstance(error, TimeoutError):
        text = f"no answer within {patience.call_s:g} s"
    if isinstance(error, (ValueError, FileNotFoundError, PermissionError)):  # Such as a certificate that is not there.
        return text, f"`plantward check` says what the identity needs; {again}"
    if isinstance(error, (AuthenticationError, ClientAuthenticationError)):
        return text, f"give the identity the role Azure Event Hubs Data Receiver on the hub {hub}; {again}"
    if any(word in text for word in ("not-found", "NotFound")):
        return text, f"there is no hub {hub}: create it, or set [uplink] receipts to empty for none; {again}"
    return text, f"check the network and firewall to Event Hubs; {again}"


def _body(event: EventData) -> bytes:
    """The bytes of the event; of one whose body is no bytes, its text, which is no receipt."""
    body: Any = event.body
    try:
        return b"".join(body)
    except TypeError:
        return repr(body).encode()
