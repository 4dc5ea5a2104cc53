"""One OPC UA session whose publish acknowledgements, reconnecting and channel renewal are in our hands.

asyncua's `Client.connect()` would start a supervisor, a watchdog and a publish loop of its own, and that loop
acknowledges a notification even when its handler failed. So the link uses the services one by one, and a
session that starts no loop.
"""

import asyncio
import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from asyncua import ua
from asyncua.client.client import Client
from asyncua.client.ua_session import UaSession
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaerrors import UaStructParsingError

_RENEW_AT = 0.75
_LIFETIME_S = 60.0
"""How long a server keeps our session and subscription while the link is cut."""
NOTIFICATIONS_MAX = 10_000
REJOIN_REFUSED = (
    ua.uaerrors.BadSessionIdInvalid,
    ua.uaerrors.BadSessionClosed,
    ua.uaerrors.BadSessionNotActivated,
    ua.uaerrors.BadSecureChannelIdInvalid,
    ua.uaerrors.BadUserAccessDenied,
    ua.uaerrors.BadIdentityTokenInvalid,
)
_NOT_REPUBLISHED = (ua.uaerrors.BadMessageNotAvailable, UaStructParsingError, struct.error, ValueError, LookupError)
"""Not there any more, or not to be decoded; asking once more would change neither."""


class Joined(Enum):
    """How a link came up."""

    NEW_SESSION = auto()
    SAME_SESSION = auto()
    """The server still had our session, and with it perhaps the subscription."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription as the server granted it."""

    id: int
    keep_alive_s: float


class _HeldSession(UaSession):
    """A session that never publishes by itself, so that an acknowledgement leaves when we say so."""

    def ensure_publish_loop(self) -> None:
        return


class Link:
    """The session with one server; survives cuts of its connection when the server allows it."""

    def __init__(self, endpoint: str, name: str, request_s: float) -> None:
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # the connector tells the story once
        self._client = Client(endpoint, timeout=request_s)
        self._client.name = self._client.description = name
        self._client.application_uri = "urn:plantward:appliance"
        self._client.session_timeout = int(_LIFETIME_S * 1000)
        self._session = _HeldSession(self._client.uaclient)
        self._client.uaclient.session = self._session

    async def open(self) -> Joined:
        """Connect, and rejoin our session when the server still has it; otherwise make a new one."""
        client = self._client
        await client.connect_socket()
        await client.send_hello()
        await client.open_secure_channel()
        if self._session.has_session:
            self._session.rebind_authentication_token()
            try:
                await client.activate_session()
            except REJOIN_REFUSED:
                self._session.reset_authentication_token()
            else:
                return Joined.SAME_SESSION
        await client.create_session()
        await client.activate_session()
        return Joined.NEW_SESSION

    def cut(self) -> None:
        """Drop the connection at once; the server may keep the session for a rejoin."""
        self._client.disconnect_socket()

    async def close(self) -> None:
        """Leave in good manners: the server forgets session and subscription."""
        try:
            await self._client.uaclient.close_session(True)
        finally:
            self.cut()

    async def keep_channel(self) -> None:
        """Renew the secure channel again and again before its token runs out."""
        while True:
            await asyncio.sleep(self._client.secure_channel_timeout / 1000 * _RENEW_AT)
            await self._client.open_secure_channel(renew=True)

    async def subscribe(self, publishing_interval_ms: int, keep_alive_s: float) -> Subscription:
        """Make a subscription, empty as yet."""
        interval = float(publishing_interval_ms)
        keep_alive = max(1, round(keep_alive_s * 1000 / max(interval, 1.0)))
        params = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=interval,
            RequestedLifetimeCount=max(3 * keep_alive, round(_LIFETIME_S * 1000 / max(interval, 1.0))),
            RequestedMaxKeepAliveCount=keep_alive,
            MaxNotificationsPerPublish=NOTIFICATIONS_MAX,
            PublishingEnabled=True,
        )
        granted = await self._session.create_subscription(params, _unused)
        keep_alive_s = max(keep_alive_s, granted.RevisedPublishingInterval * granted.RevisedMaxKeepAliveCount / 1000)
        return Subscription(int(granted.SubscriptionId), keep_alive_s)

    async def unsubscribe(self, subscription: int) -> None:
        """Give a subscription up, whether the server still knows it or not."""
        await self._session.delete_subscriptions([subscription])

    async def publish(self, subscription: int, acknowledged: Sequence[int]) -> ua.PublishResult:
        """Acknowledge these sequence numbers and wait for the next notification or keep-alive."""
        response = await self._session.publish(
            [ua.SubscriptionAcknowledgement(SubscriptionId=subscription, SequenceNumber=seq) for seq in acknowledged]
        )
        result: ua.PublishResult = response.Parameters
        return result

    async def republish(self, subscription: int, seq: int) -> ua.NotificationMessage | None:
        """The notification of this sequence number once more; None when the server no longer has it."""
        try:
            message = await self._session.republish(subscription, seq)
        except _NOT_REPUBLISHED:
            return None
        return message if message.NotificationData and message.SequenceNumber == seq else None

    async def create_items(
        self, subscription: int, requests: list[ua.MonitoredItemCreateRequest]
    ) -> list[ua.MonitoredItemCreateResult]:
        """Ask for monitored items; each has a result of its own."""
        params = ua.CreateMonitoredItemsParameters(
            SubscriptionId=subscription, TimestampsToReturn=ua.TimestampsToReturn.Both, ItemsToCreate=requests
        )
        return await self._session.create_monitored_items(params)

    async def limit(self, object_id: int, default: int) -> int:
        """One of the server's operation limits, or the default where it has none or a higher one."""
        (answer,) = await self._session.read_attributes([standard_node(object_id)], AttributeIds.Value)
        value = answer.Value.Value if answer.Value is not None else None
        return min(default, value) if isinstance(value, int) and value > 0 else default

    async def browse(self, parameters: ua.BrowseParameters) -> list[ua.BrowseResult]:
        return await self._session.browse(parameters)

    async def browse_next(self, parameters: ua.BrowseNextParameters) -> list[ua.BrowseResult]:
        return await self._session.browse_next(parameters)


def standard_node(object_id: int) -> ua.NodeId:
    """A node that the standard itself names, by its number in `ObjectIds`."""
    return ua.NodeId(ua.Int32(object_id))


def _unused(_result: ua.PublishResult) -> None:
    raise AssertionError("the session of a Link has no publish loop")
