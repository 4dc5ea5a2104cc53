"""The Exchange: who is connected, who wants what, what is retained; it hands messages on."""

from typing import Protocol

from appliance.broker.limits import Limits
from appliance.broker.message import Message
from appliance.broker.outbox import Outbox
from appliance.broker.packets import Filter
from appliance.broker.subscriptions import SHARED, Grant, Retained, Subscriptions, is_valid_filter
from appliance.broker.wire import Reason

_ROUTES_MAX = 100_000
QOS_MAX = 1
_RETAINED_NEVER, _RETAINED_WHEN_NEW = 2, 1


class Subscriber(Protocol):
    """A connected client, as the Exchange sees it."""

    @property
    def client_id(self) -> str: ...
    @property
    def outbox(self) -> Outbox: ...
    def taken_over(self) -> None:
        """Another connection has come with the same client id."""


class Exchange:
    """Delivers each message to all whose filters match; knows nothing of sockets."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.clients: dict[str, Subscriber] = {}
        self.subscriptions: Subscriptions[Subscriber] = Subscriptions()
        self.retained: Retained[Message] = Retained(limits.retained_max)
        self._routes: dict[str, tuple[tuple[Subscriber, Grant], ...]] = {}

    def join(self, subscriber: Subscriber) -> None:
        """A client has connected; it takes over from an older connection with its id."""
        older = self.clients.get(subscriber.client_id)
        if older is not None:
            self.leave(older)
            older.taken_over()
        self.clients[subscriber.client_id] = subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """A client has gone, and its subscriptions with it."""
        if self.clients.get(subscriber.client_id) is subscriber:
            del self.clients[subscriber.client_id]
        self.subscriptions.remove_client(subscriber)
        self._routes.clear()

    def publish(self, message: Message) -> None:
        """Retain the message if it says so, and deliver it."""
        if message.retain:
            if message.payload:
                self.retained.keep(message.topic, message)
            else:
                self.retained.forget(message.topic)
        for subscriber, grant in self._route(message.topic):
            if grant.no_local and message.client_id == subscriber.client_id:
                continue
            retain = message.retain and grant.retain_as_published
            subscriber.outbox.deliver(message, min(message.qos, grant.qos), retain, grant.identifiers)

    def subscribe(self, subscriber: Subscriber, wish: Filter, identifiers: tuple[int, ...]) -> tuple[Reason, bool]:
        """Grant a wish or say why not, and whether what is retained is to be sent."""
        if wish.topic.startswith(SHARED):
            return Reason.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, False
        if not is_valid_filter(wish.topic):
            return Reason.TOPIC_FILTER_INVALID, False
        if self.subscriptions.count(subscriber) >= self._limits.subscriptions_max:
            return Reason.QUOTA_EXCEEDED, False
        qos = min(wish.qos, QOS_MAX)
        grant = Grant(qos, wish.no_local, wish.retain_as_published, identifiers)
        is_new = self.subscriptions.add(wish.topic, subscriber, grant)
        self._routes.clear()
        wanted = wish.retain_handling != _RETAINED_NEVER and (is_new or wish.retain_handling != _RETAINED_WHEN_NEW)
        return Reason(qos), wanted

    def send_retained(self, subscriber: Subscriber, wish: Filter, identifiers: tuple[int, ...]) -> None:
        """Send what is retained for a granted wish."""
        for message in self.retained.match(wish.topic):
            qos = min(message.qos, wish.qos, QOS_MAX)
            subscriber.outbox.deliver(message, qos, True, identifiers)

    def unsubscribe(self, subscriber: Subscriber, topic_filter: str) -> Reason:
        """Withdraw a wish."""
        existed = self.subscriptions.remove(topic_filter, subscriber)
        self._routes.clear()
        return Reason.SUCCESS if existed else Reason.NO_SUBSCRIPTION_EXISTED

    def _route(self, topic: str) -> tuple[tuple[Subscriber, Grant], ...]:
        route = self._routes.get(topic)
        if route is None:
            if len(self._routes) >= _ROUTES_MAX:
                self._routes.clear()
            route = self._routes[topic] = self.subscriptions.match(topic)
        return route
