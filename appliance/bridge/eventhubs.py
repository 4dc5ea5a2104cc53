"""The Event Hubs uplink: one envelope is one event, sent by the azure-eventhub client.

What the client gets wrong is answered here: it can hang (a lost answer, a `released` outcome, a peer that
says nothing while connecting), so each call has a deadline of ours; it retries a throttled send at once, so
its retries are off and the pauses are the Bridge's; after an error, and after many sends, it is built anew.
Its buffered mode is never used: the plant's log is the buffer.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from azure.eventhub import EventData, parse_connection_string
from azure.eventhub.aio import EventHubProducerClient
from azure.eventhub.exceptions import AuthenticationError, EventHubError

from appliance.bridge import leftovers
from appliance.bridge.uplink import UplinkError
from appliance.contract.envelope import Lane, Sealed

log = logging.getLogger(__name__)

EVENT_BYTES_MAX: Final = 1024 * 1024 - 8 * 1024
"""Event Hubs takes 1 MiB; the rest is for properties and framing."""
SENDS_PER_CLIENT_MAX: Final = 10_000
"""The client's session window only ever shrinks, so it is built anew long before that can matter."""
BUSY_PAUSE_S_MIN: Final = 4.0

_EXPECTED: Final = (EventHubError, OSError, TimeoutError, KeyError, AttributeError)
"""What the client raises when its link breaks; the last two when the link goes away under its hands."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a call may take: an envelope on its way to the acknowledgement (connecting included), and closing."""

    send_s: float = 60.0
    close_s: float = 2.0


class EventHubsUplink:
    """Sends envelopes to one hub at `address` (host, or host:port).

    `connect` builds an unconnected client, with whatever credential it holds.
    """

    name = "eventhubs"

    def __init__(
        self, address: str, connect: Callable[[], EventHubProducerClient], deadlines: Deadlines | None = None
    ) -> None:
        self._address, self._connect = address, connect
        self._deadlines = deadlines or Deadlines()
        self._client: EventHubProducerClient | None = None
        self._sends = 0

    @classmethod
    def from_connection_string(cls, text: str, hub: str, deadlines: Deadlines | None = None) -> Self:
        """For development: a connection string holds a secret. Raises `ValueError` when it is malformed.

        A hub named in the string by `EntityPath` goes before `hub`.
        """
        parsed = parse_connection_string(text)

        def connect() -> EventHubProducerClient:
            return EventHubProducerClient.from_connection_string(
                text, eventhub_name=parsed.eventhub_name or hub, retry_total=0
            )

        _quieten()
        return cls(parsed.fully_qualified_namespace, connect, deadlines)

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        """Deliver one envelope; raises `UplinkError` for whatever goes wrong, before the deadline has passed twice."""
        if len(sealed.body) > EVENT_BYTES_MAX:
            text = f"an envelope of {len(sealed.body)} bytes is more than Event Hubs takes ({EVENT_BYTES_MAX})"
            raise UplinkError(text, "look for a tag that sends very large values", retryable=False)
        if self._sends >= SENDS_PER_CLIENT_MAX:
            await self.close()
        try:
            await asyncio.wait_for(self._send(event(sealed, lane), sealed.partition_key), self._deadlines.send_s)
        except _EXPECTED as error:
            await self.close()
            raise _explained(error, self._deadlines.send_s) from error
        except asyncio.CancelledError:
            await self.close()
            raise
        self._sends += 1

    async def close(self) -> None:
        """Let go of the client, and cut what it leaves behind or cannot close in time."""
        client, self._client, self._sends = self._client, None, 0
        if client is None:
            return
        try:
            await asyncio.wait_for(client.close(), self._deadlines.close_s)
        except _EXPECTED as error:
            log.debug("bridge: the Event Hubs client did not close properly: %r", error)
        finally:
            left_behind = leftovers.cut(self._address)
            log.debug("bridge: %d connections were left behind and are cut", left_behind)

    async def _send(self, data: EventData, partition_key: str) -> None:
        if self._client is None:
            self._client = self._connect()
        await self._client.send_batch([data], partition_key=partition_key)


def event(sealed: Sealed, lane: Lane) -> EventData:
    """The envelope as an event. Numbers travel as text: the client takes no integer above 31 bits."""
    data = EventData(sealed.body)
    data.properties = {name: str(value) for name, value in sealed.properties(lane).items()}
    data.content_type = "application/octet-stream"
    return data


def _explained(error: Exception, send_s: float) -> UplinkError:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TimeoutError):
        return UplinkError(f"no acknowledgement within {send_s:.0f} s", "check the network and firewall to Event Hubs")
    if isinstance(error, AuthenticationError):
        return UplinkError(text, "check the connection string and its rights to send")
    if "server-busy" in text or "throttled" in text:
        return UplinkError(text, "the throughput units are used up; add some", pause_s_min=BUSY_PAUSE_S_MIN)
    return UplinkError(text, "check the network to Event Hubs and the name of the hub")


def _quieten() -> None:
    """The client logs each frame and each retry of its own; the Bridge tells the story once."""
    for name in ("azure", "uamqp"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger(name).level))
