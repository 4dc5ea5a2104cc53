"""The Event Hubs uplink: one envelope is one event, sent by the azure-eventhub client.

What the client gets wrong is answered here: it can hang (a lost answer, a `released` outcome, a peer that
says nothing while connecting), so each call has a deadline of ours; it retries a throttled send at once, so
its retries are off and the pauses are the Bridge's; after an error, after many sends and after hours it is
built anew. Its buffered mode is never used: the plant's log is the buffer.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Self

import google_crc32c
from azure.core.exceptions import AzureError
from azure.eventhub import EventData, TransportType, parse_connection_string
from azure.eventhub.aio import EventHubProducerClient
from azure.eventhub.exceptions import AuthenticationError, EventHubError

from appliance.bridge import leftovers
from appliance.bridge.uplink import UplinkError
from appliance.contract.envelope import Lane, Sealed

log = logging.getLogger(__name__)

EVENT_BYTES_MAX: Final = 1024 * 1024 - 8 * 1024
"""Event Hubs takes 1 MiB; the rest is for properties and framing."""
BUSY_PAUSE_S_MIN: Final = 4.0
TRANSPORTS: Final = {"amqp": TransportType.Amqp, "websocket": TransportType.AmqpOverWebsocket}

_EXPECTED: Final = (EventHubError, AzureError, OSError, TimeoutError, KeyError, AttributeError)
"""What the client raises when its link breaks; the last two when the link goes away under its hands."""


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


class _Client:
    """One client of the SDK, with a producer for each partition, and the sends that are under way on it."""

    def __init__(self, sdk: EventHubProducerClient, credential: Any, partitions: Sequence[str]) -> None:
        self.sdk, self._credential = sdk, credential
        self.born_s, self.sends = monotonic(), 0
        self.is_let_go = False
        self.deadlines: set[asyncio.Timeout] = set()
        self.idle = asyncio.Event()
        self._partitions = [(name, asyncio.Lock()) for name in partitions]
        self._asking = asyncio.Lock()

    async def send(self, data: EventData, key: str) -> None:
        """Send over the partition that the key prefers, or over the next one that has nothing under way."""
        async with self._asking:
            if not self._partitions:
                self._partitions = [(name, asyncio.Lock()) for name in await self.sdk.get_partition_ids()]
        start = google_crc32c.value(key.encode()) % len(self._partitions)
        turns = self._partitions[start:] + self._partitions[:start]
        name, producer = next((turn for turn in turns if not turn[1].locked()), turns[0])
        async with producer:
            await self.sdk.send_batch([data], partition_id=name)
        self.sends += 1

    @property
    def partitions(self) -> list[str]:
        """Their names, as the hub said; none before the first send."""
        return [name for name, _ in self._partitions]

    async def close(self) -> None:
        await self.sdk.close()
        if self._credential is not None:
            await self._credential.close()

    def has_outlived(self, lifetime: Lifetime) -> bool:
        return self.sends >= lifetime.sends_max or monotonic() - self.born_s >= lifetime.age_s_max


class EventHubsUplink:
    """Sends envelopes to one hub at `address` (host, or host:port), several at once over its partitions.

    `connect` builds an unconnected client, and the credential of its own that it signs in with, if any.
    """

    name = "eventhubs"

    def __init__(
        self,
        address: str,
        connect: Callable[[], tuple[EventHubProducerClient, Any]],
        deadlines: Deadlines | None = None,
        lifetime: Lifetime | None = None,
    ) -> None:
        self._address, self._connect = address, connect
        self._deadlines, self._lifetime = deadlines or Deadlines(), lifetime or Lifetime()
        self._client: _Client | None = None
        self._partitions: list[str] = []
        """Known from the client before, so that a new one need not ask; whoever is refused asks again."""
        self._changing = asyncio.Lock()
        self.clients = 0
        """How many clients have been built."""
        _quieten()

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

        return cls(parsed.fully_qualified_namespace, connect, deadlines, lifetime)

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

        return cls(namespace, connect)

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        """Deliver one envelope; raises `UplinkError` for whatever goes wrong, before the deadline has passed twice."""
        if len(sealed.body) > EVENT_BYTES_MAX:
            text = f"an envelope of {len(sealed.body)} bytes is more than Event Hubs takes ({EVENT_BYTES_MAX})"
            raise UplinkError(text, "look for a tag that sends very large values", retryable=False)
        client, deadline = await self._under_way()
        try:
            async with deadline:
                await client.send(event(sealed, lane), sealed.partition_key)
        except _EXPECTED as error:
            self._ended(client, deadline)
            self._partitions = client.partitions if isinstance(error, TimeoutError) else []
            failure = _explained(error, self._deadlines.send_s, was_let_go=client.is_let_go)
            await self._let_go(client)
            raise failure from error
        except asyncio.CancelledError:
            self._ended(client, deadline)
            await self._let_go(client)
            raise
        self._ended(client, deadline)

    async def close(self) -> None:
        """Let go of the client, whose sends fail, and cut what it leaves behind or cannot close in time."""
        if self._client is not None:
            await self._let_go(self._client)

    async def _under_way(self) -> tuple[_Client, asyncio.Timeout]:
        """A client for one more send, and the send's deadline. One that has lived long enough is built anew."""
        async with self._changing:
            client = self._client
            if client is not None and client.has_outlived(self._lifetime):
                if client.deadlines:
                    await client.idle.wait()
                self._partitions = client.partitions
                await self._close(client)
                client = self._client = None
            if client is None:
                client = self._client = self._connected()
            deadline = asyncio.timeout(self._deadlines.send_s)
            client.deadlines.add(deadline)
            client.idle.clear()
            return client, deadline

    def _connected(self) -> _Client:
        try:
            client = _Client(*self._connect(), self._partitions)
        except (OSError, ValueError) as error:  # Such as a certificate that cannot be read.
            raise UplinkError(str(error), "`plantward check` says what the identity needs") from error
        self.clients += 1
        return client

    @staticmethod
    def _ended(client: _Client, deadline: asyncio.Timeout) -> None:
        client.deadlines.discard(deadline)
        if not client.deadlines:
            client.idle.set()

    async def _let_go(self, client: _Client) -> None:
        """Use this client no more: what is under way on it fails now, and the next send builds another."""
        if client.is_let_go:
            return
        client.is_let_go = True
        for deadline in client.deadlines:
            deadline.reschedule(0.0)
        async with self._changing:
            if self._client is client:
                self._client = None
            await self._close(client)

    async def _close(self, client: _Client) -> None:
        try:
            async with asyncio.timeout(self._deadlines.close_s):
                await client.close()
        except _EXPECTED as error:
            log.debug("bridge: the Event Hubs client did not close properly: %r", error)
        finally:
            left_behind = leftovers.cut(self._address)
            log.debug("bridge: %d connections were left behind and are cut", left_behind)


def event(sealed: Sealed, lane: Lane) -> EventData:
    """The envelope as an event. Numbers travel as text: the client takes no integer above 31 bits."""
    data = EventData(sealed.body)
    data.properties = {name: str(value) for name, value in sealed.properties(lane).items()}
    data.content_type = "application/octet-stream"
    return data


def _explained(error: Exception, send_s: float, *, was_let_go: bool) -> UplinkError:
    text = " ".join(str(error).split()) or type(error).__name__
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


def _quieten() -> None:
    """The client logs each frame and each retry of its own; the Bridge tells the story once."""
    for name in ("azure", "uamqp"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger(name).level))
