"""What OPC UA clients acknowledged: the truth against which the lake is compared."""

import json
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

from asyncua import ua
from asyncua.server.internal_server import InternalServer
from asyncua.server.subscription_service import SubscriptionService

FILE_BYTES_MAX = 32 * 1024 * 1024


class Delivered(NamedTuple):
    """One value that a client acknowledged."""

    topic: str
    source_us: int
    value: float | bool


class DeliveryLog:
    """A JSON line for each acknowledged notification, in one file and its predecessor, each bounded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def write(self, subscription: int, seq: int, values: list[Delivered]) -> None:
        line = {"subscription": subscription, "seq": seq, "values": values}
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()
        if self._file.tell() >= FILE_BYTES_MAX:
            self._file.close()
            self._path.replace(self._path.with_suffix(".1.jsonl"))
            self._file = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        self._file.close()


class WitnessedSubscriptions(SubscriptionService):
    """asyncua's subscriptions, with a word when one begins and when a client acknowledges.

    A republished notification is kept until it is acknowledged, as the standard wants it (asyncua drops it).
    """

    def __init__(
        self,
        server: InternalServer,
        before_first: Callable[[], Awaitable[None]],
        on_acknowledged: Callable[[int, int, list[Delivered]], None],
    ) -> None:
        super().__init__(server.aspace, server)
        self._before_first, self._on_acknowledged = before_first, on_acknowledged
        self._begun_at: dict[int, float] = {}

    async def create_subscription(
        self,
        params: ua.CreateSubscriptionParameters,
        callback: Callable[..., Any],
        session_id: ua.NodeId,
        request_callback: Callable[..., Any] | None = None,
    ) -> ua.CreateSubscriptionResult:
        connected = self._connected()
        await self.delete_subscriptions(
            [id for id, sub in self.subscriptions.items() if sub.session_id not in connected]
        )
        if not self.subscriptions:
            await self._before_first()
        granted = await super().create_subscription(params, callback, session_id, request_callback)
        self._begun_at = {id: at for id, at in self._begun_at.items() if id in self.subscriptions}
        self._begun_at[granted.SubscriptionId] = time.monotonic()
        return granted

    def publish(self, acks: Iterable[ua.SubscriptionAcknowledgement]) -> tuple[int, list[ua.StatusCode]]:
        for ack in acks:
            sub = self.subscriptions.get(ack.SubscriptionId)
            result = sub._not_acknowledged_results.get(ack.SequenceNumber) if sub else None
            if result is not None:
                values = self._values(ack.SubscriptionId, result.NotificationMessage)
                self._on_acknowledged(ack.SubscriptionId, ack.SequenceNumber, values)
        return super().publish(acks)

    def republish(self, params: ua.RepublishParameters) -> ua.NotificationMessage:
        sub = self.subscriptions.get(params.SubscriptionId)
        kept = sub._not_acknowledged_results.get(params.RetransmitSequenceNumber) if sub else None
        message = super().republish(params)
        if sub is not None and kept is not None:
            sub._not_acknowledged_results[params.RetransmitSequenceNumber] = kept
        return message

    def is_listened_to(self, items: int, settle_s: float) -> bool:
        """Whether a connected client has a subscription with all items, or has had its time to choose."""
        connected, now = self._connected(), time.monotonic()
        return any(
            sub.session_id in connected
            and (len(sub.monitored_item_srv._monitored_items) >= items or now - self._begun_at.get(id, now) > settle_s)
            for id, sub in self.subscriptions.items()
        )

    def _connected(self) -> set[ua.NodeId]:
        """Sessions with an open connection; asyncua keeps a session with subscriptions for a while without one."""
        assert self.iserver is not None
        return {
            protocol.processor.session.session_id
            for protocol in self.protocols()
            if protocol.processor is not None and protocol.processor.session is not None
        }

    protocols: Callable[[], list[Any]] = staticmethod(list)
    """The open connections; set once the server listens."""

    def _values(self, subscription: int, message: ua.NotificationMessage) -> list[Delivered]:
        items = self.subscriptions[subscription].monitored_item_srv._monitored_items.values()
        topics = {item.client_handle: str(item.read_value_id.NodeId.Identifier) for item in items if item.read_value_id}
        return [
            Delivered(topic, round(notified.Value.SourceTimestamp.timestamp() * 1e6), notified.Value.Value.Value)
            for data in message.NotificationData
            if isinstance(data, ua.DataChangeNotification)
            for notified in data.MonitoredItems
            if (topic := topics.get(notified.ClientHandle)) and notified.Value.SourceTimestamp and notified.Value.Value
        ]
