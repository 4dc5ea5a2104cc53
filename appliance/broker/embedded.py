"""The EmbeddedBroker: the plant's UNS door for MQTT clients, inside the appliance."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from secrets import token_hex
from time import monotonic
from typing import Any, Protocol

from amqtt.broker import Broker
from amqtt.contexts import ListenerType
from amqtt.session import Session

from appliance.broker.connection import Connection
from appliance.broker.exchange import QOS_MAX, Exchange
from appliance.broker.ingest import Ingest, Log
from appliance.broker.intake import Intake
from appliance.broker.limits import BrokerStatistics, Counters, Limits
from appliance.broker.message import Message
from appliance.broker.namespace import Enforcement, Namespace
from appliance.broker.packets import Connect
from appliance.broker.properties import Properties, Property, PropertyValue
from appliance.broker.seldom import Seldom
from appliance.broker.wire import Reason
from appliance.supervisor import now_us as wall_clock_us

log = logging.getLogger(__name__)

CHECK_S = 0.25
_BACKLOG = 512
_LIMITS = Limits()


class Listener(Protocol):
    """One address on which the broker listens."""

    @property
    def bind(self) -> str: ...
    @property
    def anonymous(self) -> bool: ...


class BrokerSettings(Protocol):
    """The broker's section of the configuration."""

    @property
    def listener(self) -> Sequence[Listener]: ...


class EmbeddedBroker(Broker):  # type: ignore[misc]
    """amqtt's broker, with its configuration, plugins and listeners, and our own protocol on its sockets.

    What clients publish is appended to the log before they are answered; everybody who subscribes gets it then.
    QoS 2, sessions that outlive their connection and shared subscriptions are not offered yet, and MQTT 5 clients
    are told so.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        log_of_plant: Log,
        namespace_root: str,
        enforce: str,
        now_us: Callable[[], int] = wall_clock_us,
        limits: Limits = _LIMITS,
    ) -> None:
        self._listeners = {_name(number): listener for number, listener in enumerate(settings.listener)}
        super().__init__(_amqtt_config(self._listeners))
        self._servers: dict[str, Any] = {}
        self.limits, self.counters = limits, Counters()
        self.exchange = Exchange(limits)
        self.ingest = Ingest(log_of_plant, self.exchange.publish, limits, self.counters)
        self.intake = Intake(Namespace(namespace_root, Enforcement(enforce)), self.counters, now_us)
        self.connections: set[Connection] = set()
        self.seldom = Seldom()
        self.addresses: tuple[tuple[str, int], ...] = ()
        """Where the broker listens, in the order of its listeners; empty while it does not."""
        self._sockets: dict[str, socket.socket] = {}
        self._admissions: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Serve until cancelled, then close the ports; raises OSError when a port is taken."""
        self._init_states()  # A broker that has stopped may be started again.
        self._sockets = _bound(self._listeners)
        try:
            await self.start()
            self.addresses = tuple(its.getsockname()[:2] for its in self._sockets.values())
            for host, port in self.addresses:
                log.info("broker: listening on %s:%d", host, port)
            async with asyncio.TaskGroup() as tasks:
                self._admissions = tasks
                tasks.create_task(self.ingest.run(), name="broker ingest")
                tasks.create_task(self._watch(), name="broker watch")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await self._stop()

    def publish(self, message: Message) -> None:
        """Publish what the appliance itself has to say: to all who want it, past the log it comes from."""
        self.counters.republished += 1
        self.exchange.publish(message)

    def statistics(self) -> BrokerStatistics:
        """What the broker has done, and what is there now."""
        counters = self.counters
        return BrokerStatistics(
            connections=len(self.exchange.clients),
            connections_refused=counters.connections_refused,
            connections_failed=counters.connections_failed,
            subscriptions=len(self.exchange.subscriptions),
            retained=len(self.exchange.retained),
            waiting=len(self.ingest),
            received=counters.received,
            recorded=counters.recorded,
            passed=counters.passed,
            reported=counters.reported,
            refused=counters.refused,
            delivered=counters.delivered,
            dropped=counters.dropped,
            republished=counters.republished,
        )

    # What connections ask

    def admit(self, connection: Connection, connect: Connect) -> None:
        """Decide, soon, whether the client may stay."""
        if self._admissions is None:
            connection.refused(Reason.SERVER_SHUTTING_DOWN, "the broker is stopping")
        elif (
            len(self.exchange.clients) >= self.limits.connections_max and connect.client_id not in self.exchange.clients
        ):
            connection.refused(Reason.QUOTA_EXCEEDED, f"{self.limits.connections_max} clients are connected already")
        elif not connection.anonymous:
            # Names and certificates come with roles; until then a listener either trusts all or nobody.
            connection.refused(Reason.NOT_AUTHORIZED, "this listener admits no anonymous clients")
        else:
            self._admissions.create_task(self._admit(connection, connect), name="broker admission")

    async def _admit(self, connection: Connection, connect: Connect) -> None:
        session = Session()
        session.client_id = client_id = connect.client_id or f"plantward-{token_hex(8)}"
        session.username = connect.username
        session.password = None if connect.password is None else connect.password.decode("utf-8", "replace")
        session.clean_session, session.keep_alive = connect.clean_start, connect.keepalive_s
        if await self._authenticate(session, None):
            connection.admitted(client_id, self._welcome(connect, client_id))
        else:
            connection.refused(Reason.NOT_AUTHORIZED, "the client's name or password is not known")

    def _welcome(self, connect: Connect, client_id: str) -> Properties:
        limits = self.limits
        welcome: dict[Property, PropertyValue] = {
            Property.MAXIMUM_QOS: QOS_MAX,
            Property.RECEIVE_MAXIMUM: limits.receive_max,
            Property.MAXIMUM_PACKET_SIZE: limits.packet_bytes_max,
            Property.TOPIC_ALIAS_MAXIMUM: limits.topic_aliases_max,
            Property.SHARED_AVAILABLE: 0,
        }
        if connect.properties.get(Property.SESSION_EXPIRY):
            welcome[Property.SESSION_EXPIRY] = 0
        if not connect.client_id:
            welcome[Property.ASSIGNED_CLIENT_ID] = client_id
        return welcome

    # What amqtt asks

    async def _create_server_instance(
        self,
        listener_name: str,
        listener_type: ListenerType,
        address: str | None,
        port: int,
        ssl_context: ssl.SSLContext | None,
    ) -> Any:
        if listener_type is not ListenerType.TCP:
            return await super()._create_server_instance(listener_name, listener_type, address, port, ssl_context)
        anonymous = self._listeners[listener_name].anonymous
        return await asyncio.get_running_loop().create_server(
            lambda: Connection(self, anonymous), sock=self._sockets[listener_name], ssl=ssl_context, backlog=_BACKLOG
        )

    async def internal_message_broadcast(self, topic: str, data: bytes, qos: int | None = None) -> None:
        """Publish what an amqtt plugin has to say."""
        self.exchange.publish(Message(topic, data, min(qos or 0, QOS_MAX)))

    async def retain_message(
        self, source_session: Session | None, topic_name: str | None, data: bytes | None, qos: int | None = None
    ) -> None:
        """Retain what an amqtt plugin has to say."""
        if topic_name is not None:
            self.exchange.publish(Message(topic_name, bytes(data or b""), min(qos or 0, QOS_MAX), True))

    # Watching and stopping

    async def _watch(self) -> None:
        while True:
            now = monotonic()
            for connection in tuple(self.connections):
                connection.check(now)
            await asyncio.sleep(CHECK_S)

    async def _stop(self) -> None:
        self.addresses, self._admissions = (), None
        for server in self._servers.values():
            server.instance.close()
        for connection in tuple(self.connections):
            connection.abort()
        self.ingest.clear()
        if self.transitions.state == "started":
            await self.shutdown()
        for its in self._sockets.values():
            its.close()
        self._servers, self._sockets = {}, {}


def _name(number: int) -> str:
    """amqtt wants one listener to be called `default`."""
    return f"listener-{number + 1}" if number else "default"


def _amqtt_config(listeners: dict[str, Listener]) -> dict[str, Any]:
    return {
        "listeners": {name: {"type": "tcp", "bind": listener.bind} for name, listener in listeners.items()},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }


def _bound(listeners: dict[str, Listener]) -> dict[str, socket.socket]:
    bound: dict[str, socket.socket] = {}
    for name, listener in listeners.items():
        host, _, port = listener.bind.rpartition(":")
        host = host.strip("[]")
        its = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        bound[name] = its
        try:
            if hasattr(socket, "SO_REUSEPORT"):  # Not on Windows, where SO_REUSEADDR means something else.
                its.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            its.setblocking(False)
            its.bind((host, int(port)))
            its.listen(_BACKLOG)
        except OSError as error:
            for opened in bound.values():
                opened.close()
            hint = "stop the program that uses it, or change bind of [[broker.listener]]"
            raise OSError(error.errno, f"broker: cannot listen on {listener.bind}: {error.strerror}; {hint}") from error
    return bound
