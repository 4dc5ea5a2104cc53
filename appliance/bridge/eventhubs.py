"""The Event Hubs uplink: one envelope is one event, sent by the azure-eventhub client.

What the client gets wrong is answered here: it can hang (a lost answer, a `released` outcome, a peer that
says nothing while connecting), so each call has a deadline of ours; it retries a throttled send at once, so
its retries are off and the pauses are the Bridge's; after an error, after many sends and after hours it is
built anew. Its buffered mode is never used: the plant's log is the buffer.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Self

from azure.eventhub import EventData, parse_connection_string
from azure.eventhub.aio import EventHubProducerClient
from azure.eventhub.exceptions import AuthenticationError

from appliance.bridge.deadline import Deadline
from appliance.bridge.producer import Producer
from appliance.bridge.sdk import BROKEN, TRANSPORTS, quieten, said
from appliance.bridge.uplink import UplinkError
from appliance.contract.envelope import Lane, Sealed

log = logging.getLogger(__name__)

EVENT_BYTES_MAX: Final = 1024 * 1024 - 8 * 1024
"""Event Hubs takes 1 MiB; the rest is for properties and framing."""
BUSY_PAUSE_S_MIN: Final = 4.0


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a call may take: an envelope on its way to the acknowledgement (connecting included), and closing."""

    send_s: float = 60.0
    close_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a client is used: its session window only ever shrinks, and its links keep what they have seen."""

    sends_max: int = 10_000
    age_s_max: float = 6 * 3_600.0

    def is_over(self, client: Producer) -> bool:
        return client.sends >= self.sends_max or monotonic() - client.born_s >= self.age_s_max


class EventHubsUplink:
    """Sends envelopes to one hub, several at once over its partitions.

    `connect` builds an unconnected client, and the credential of its own that it signs in with, if any.
    """

    name = "eventhubs"

    def __init__(
        self,
        connect: Callable[[], tuple[EventHubProducerClient, Any]],
        deadlines: Deadlines | None = None,
        lifetime: Lifetime | None = None,
    ) -> None:
        self._connect = connect
        self._deadlines, self._lifetime = deadlines or Deadlines(), lifetime or Lifetime()
        self._client: Producer | None = None
        self._partitions: list[str] = []
        """Known from the client before, so that a new one need not ask; whoever is refused asks again."""
        self._changing = asyncio.Lock()
        self.clients = 0
        """How many clients have been built."""
        quieten()

    @classmethod
    def from_connection_string(
        cls,
        text: str,
        hub: str,
        deadlines: Deadlines | None = None,
        lifetime: Lifetime | None = None,
        transport: str = "amqp",
    ) -> Self:
        """For development: a connection string holds a secret. Raises `ValueError` when it is malformed.

        A hub named in the string by `EntityPath` goes before `hub`.
        """
        parsed = parse_connection_string(text)

        def connect() -> tuple[EventHubProducerClient, None]:
            sdk = EventHubProducerClient.from_connection_string(
                text,
                eventhub_name=parsed.eventhub_name or hub,
                retry_total=0,
                transport_type=TRANSPORTS[transport],
            )
            return sdk, None

        return cls(connect, deadlines, lifetime)

    @classmethod
    def from_credential(
        cls, namespace: str, hub: str, credential: Callable[[], Any], transport: str = "amqp", **options: Any
    ) -> Self:
        """With an identity, and no secret on this machine; `options` go to the SDK's client."""

        def connect() -> tuple[EventHubProducerClient, Any]:
            its_own = credential()
            sdk = EventHubProducerClient(
                namespace, hub, its_own, retry_total=0, transport_type=TRANSPORTS[transport], **options
            )
            return sdk, its_own

        return cls(connect)

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        """Deliver one envelope; raises `UplinkError` for whatever goes wrong, before the deadline has passed twice."""
        if len(sealed.body) > EVENT_BYTES_MAX:
            text = f"an envelope of {len(sealed.body)} bytes is more than Event Hubs takes ({EVENT_BYTES_MAX})"
            raise UplinkError(text, "look for a tag that sends very large values", retryable=False)
        client, deadline = await self._under_way()
        try:
            async with deadline:
                await client.send(event(sealed, lane), sealed.partition_key)
        except BROKEN as error:
            client.ended(deadline)
            self._partitions = client.partitions if isinstance(error, TimeoutError) else []
            failure = _explained(error, self._deadlines.send_s, was_let_go=client.is_let_go)
            await self._let_go(client)
            raise failure from error
        except asyncio.CancelledError:
            client.ended(deadline)
            await self._let_go(client)
            raise
        client.ended(deadline)

    async def close(self) -> None:
        """Let go of the client, whose sends fail, and cut what it leaves behind or cannot close in time."""
        if self._client is not None:
            await self._let_go(self._client)

    async def _under_way(self) -> tuple[Producer, Deadline]:
        """A client for one more send, and the send's deadline. One that has lived long enough is built anew."""
        async with self._changing:
            client = self._client
            if client is not None and self._lifetime.is_over(client):
                if client.deadlines:
                    await client.idle.wait()
                self._partitions = client.partitions
                await self._close(client)
                client = self._client = None
            if client is None:
                client = self._client = self._connected()
            deadline = Deadline(self._deadlines.send_s)
            client.deadlines.add(deadline)
            client.idle.clear()
            return client, deadline

    def _connected(self) -> Producer:
        try:
            client = Producer(*self._connect(), self._partitions)
        except (OSError, ValueError) as error:  # Such as a certificate that cannot be read.
            raise UplinkError(str(error), "`plantward check` says what the identity needs") from error
        self.clients += 1
        return client

    async def _let_go(self, client: Producer) -> None:
        """Use this client no more: what is under way on it fails now, and the next send builds another."""
        if client.is_let_go:
            return
        client.is_let_go = True
        for deadline in client.deadlines:
            deadline.expire()
        async with self._changing:
            if self._client is client:
                self._client = None
            await self._close(client)

    async def _close(self, client: Producer) -> None:
        try:
            async with Deadline(self._deadlines.close_s):
                await client.close()
        except BROKEN as error:
            log.debug("bridge: the Event Hubs client did not close properly: %r", error)
        finally:
            left_behind = client.leftovers.cut()
            log.debug("bridge: %d connections were left behind and are cut", left_behind)


def event(sealed: Sealed, lane: Lane) -> EventData:
    """The envelope as an event. Numbers travel as text: the client takes no integer above 31 bits."""
    data = EventData(sealed.body)
    data.properties = {name: str(value) for name, value in sealed.properties(lane).items()}
    data.content_type = "application/octet-stream"
    return data


def _explained(error: Exception, send_s: float, *, was_let_go: bool) -> UplinkError:
    text = said(error)
    if was_let_go:
        return UplinkError("the link was given up for another envelope's failure", "look at the message before")
    if isinstance(error, TimeoutError):
        return UplinkError(f"no acknowledgement within {send_s:.0f} s", "check the network and firewall to Event Hubs")
    if isinstance(error, AuthenticationError):
        return UplinkError(text, "check the identity and its role Azure Event Hubs Data Sender on the hub")
    if "server-busy" in text or "throttled" in text:
        hint = "the throughput units are used up; add some, or set [uplink] throughput_units to those you have"
        return UplinkError(text, hint, pause_s_min=BUSY_PAUSE_S_MIN)
    return UplinkError(text, "check the network to Event Hubs and the name of the hub")
