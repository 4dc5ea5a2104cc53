"""A Connection: one MQTT client on one socket, from CONNECT to the last byte."""

import asyncio
import logging
from dataclasses import replace
from enum import Enum
from time import monotonic
from typing import Protocol, cast

from appliance.broker.codec import decode, decode_publish, encode
from appliance.broker.exchange import QOS_MAX, Exchange
from appliance.broker.frames import Frame, Frames
from appliance.broker.ingest import Incoming, Ingest
from appliance.broker.intake import Intake
from appliance.broker.limits import Counters, Limits
from appliance.broker.outbox import Outbox
from appliance.broker.packets import (
    Ack,
    Answers,
    Connack,
    Connect,
    Farewell,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
)
from appliance.broker.properties import NONE, Kind, Properties, Property
from appliance.broker.wire import MqttError, Reason, Version, protocol_error, uint16

log = logging.getLogger(__name__)

KEEPALIVE_FACTOR = 1.5
SOCKETS_PER_CONNECTION = 2
"""Sockets may be twice as many as clients: those that have not said CONNECT, and those that are closing."""
_CONNECT_BYTE = 0x10
_NO_REASON = Reason.SUCCESS


class State(Enum):
    """Where a connection stands."""

    OPEN = "waits for CONNECT"
    ADMITTING = "is being admitted"
    CONNECTED = "connected"
    CLOSED = "closed"


class House(Protocol):
    """What all connections of one broker share."""

    limits: Limits
    counters: Counters
    exchange: Exchange
    ingest: Ingest
    intake: Intake
    connections: set["Connection"]

    def admit(self, connection: "Connection", connect: Connect) -> None:
        """Decide, soon, by `connection.admitted()` or `connection.refused()`."""


class Connection(asyncio.Protocol):
    """Reads packets, answers them, and hands publishes in; a peer's mistake ends it and nothing else."""

    def __init__(self, house: House, anonymous: bool) -> None:
        self._house, self.anonymous = house, anonymous
        self._transport: asyncio.Transport | None = None
        self._frames = Frames(house.limits.packet_bytes_max)
        self._state = State.OPEN
        self._version = Version.V311
        self._connect: Connect | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._pauses = 0
        self._unanswered = 0
        self._aliases: dict[int, str] = {}
        self._heard_at = self._changed_at = monotonic()
        self._keepalive_s = 0.0
        self._leaves_a_will = True
        self.peer = ""
        self.client_id = ""
        self.outbox = Outbox(self, self._version, 0, 0, house.limits, house.counters)

    # The socket's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.peer = ":".join(map(str, (transport.get_extra_info("peername") or ("?",))[:2]))
        transport.set_write_buffer_limits(high=self._house.limits.unsent_bytes_max // 2)
        if len(self._house.connections) >= self._house.limits.connections_max * SOCKETS_PER_CONNECTION:
            self._house.counters.connections_refused += 1
            self._to(State.CLOSED)
            transport.abort()
        self._house.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._heard_at = monotonic()
        if self._state is not State.CLOSED:
            self._frames.push(data)
            self._process()

    def resume_writing(self) -> None:
        self.outbox.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.connections.discard(self)
        self._leave()
        self._transport = None

    def _process(self) -> None:
        try:
            if self._state is State.OPEN and self._frames.peek() not in (None, _CONNECT_BYTE):
                raise protocol_error("it does not begin with CONNECT")  # HTTP, TLS: no use waiting for more.
            while self._state in (State.OPEN, State.CONNECTED) and (frame := self._frames.pop()) is not None:
                self._handle(frame)
        except MqttError as error:
            self.fail(error.reason, error.text)

    def _handle(self, frame: Frame) -> None:
        if self._state is State.CONNECTED and frame.header >> 4 == Kind.PUBLISH:
            self._on_publish(decode_publish(frame, self._version))
            return
        packet = decode(frame, self._version)
        if (self._state is State.OPEN) is not isinstance(packet, Connect):
            raise protocol_error(f"{type(packet).__name__} came where {self._state.value}")
        match packet:
            case Connect():
                self._on_connect(packet)
            case Ack(Kind.PUBACK):
                self.outbox.acknowledged(packet.packet_id)
            case Ping(Kind.PINGREQ):
                self._send_packet(Ping(Kind.PINGRESP))
            case Subscribe():
                self._on_subscribe(packet)
            case Unsubscribe():
                self._on_unsubscribe(packet)
            case Farewell(Kind.DISCONNECT):
                self._on_disconnect(packet)
            case _:
                raise protocol_error(f"{type(packet).__name__} is nothing a client sends here")

    # Admission

    def _on_connect(self, connect: Connect) -> None:
        self._version, self._connect, self.client_id = connect.version, connect, connect.client_id
        self._to(State.ADMITTING)
        self.pause()
        if connect.will is not None and connect.will.qos > QOS_MAX and self._version is Version.V5:
            self.refused(Reason.QOS_NOT_SUPPORTED, "the will has QoS 2; QoS 1 is the highest here")
        elif Property.AUTHENTICATION_METHOD in connect.properties:
            self.refused(Reason.BAD_AUTHENTICATION_METHOD, "there is no extended authentication here")
        elif len(connect.client_id) > self._house.limits.client_id_chars_max:
            most = self._house.limits.client_id_chars_max
            self.refused(Reason.CLIENT_IDENTIFIER_NOT_VALID, f"the client id is longer than {most} characters")
        elif not connect.client_id and not connect.clean_start and self._version is Version.V311:
            self.refused(Reason.CLIENT_IDENTIFIER_NOT_VALID, "an empty client id needs a clean session")
        else:
            self._house.admit(self, connect)

    def admitted(self, client_id: str, properties: Properties) -> None:
        """The client may stay, under this id."""
        connect = self._connect
        if self._state is not State.ADMITTING or connect is None:
            return
        wishes, limits = connect.properties, self._house.limits
        self.client_id = client_id
        self.outbox = Outbox(
            self,
            self._version,
            _number(wishes, Property.RECEIVE_MAXIMUM, limits.window_max),
            _number(wishes, Property.MAXIMUM_PACKET_SIZE, limits.packet_bytes_max * 2),
            limits,
            self._house.counters,
        )
        self._keepalive_s = connect.keepalive_s * KEEPALIVE_FACTOR
        self._to(State.CONNECTED)
        self._house.exchange.join(self)
        self._send_packet(Connack(Reason.SUCCESS, False, properties))
        self.resume()
        self._process()

    def refused(self, reason: Reason, text: str) -> None:
        """The client may not stay."""
        if self._state is not State.ADMITTING:
            return
        log.warning("broker: %s at %s is not admitted: %s", self.client_id or "a client", self.peer, text)
        self._house.counters.connections_refused += 1
        self._send_packet(Connack(reason, False, {Property.REASON_STRING: text}))
        self._connect = None
        self._end()

    def taken_over(self) -> None:
        """Another connection has come with the same client id."""
        log.info("broker: %s at %s is replaced by a newer connection", self.client_id, self.peer)
        self.disconnect(Reason.SESSION_TAKEN_OVER, "another connection has come with the same client id")

    # Publishing

    def _on_publish(self, publish: Publish) -> None:
        self._house.counters.received += 1
        if publish.qos > QOS_MAX:
            raise MqttError(Reason.QOS_NOT_SUPPORTED, "QoS 1 is the highest here")
        if self._version is Version.V5:
            publish = self._with_topic(publish)
        if not publish.topic:
            raise MqttError(Reason.TOPIC_NAME_INVALID, "a PUBLISH has an empty topic")
        if publish.packet_id:
            self._unanswered += 1
            if self._version is Version.V5 and self._unanswered > self._house.limits.receive_max:
                text = f"more than {self._house.limits.receive_max} publishes wait for their answer"
                raise MqttError(Reason.RECEIVE_MAXIMUM_EXCEEDED, text)
        self._hand_in(self._house.intake.judged(self, publish))

    def _hand_in(self, incoming: Incoming) -> None:
        if incoming.reading is None and self._unanswered <= bool(incoming.packet_id):
            self._house.ingest.settle(incoming)  # Nothing to record, and no earlier publish waits for its answer.
        else:
            self._house.ingest.put(incoming)

    def _with_topic(self, publish: Publish) -> Publish:
        alias = publish.properties.get(Property.TOPIC_ALIAS)
        if Property.SUBSCRIPTION_IDENTIFIER in publish.properties:
            raise protocol_error("a client's PUBLISH has a subscription identifier")
        if not isinstance(alias, int):
            return publish
        if alias > self._house.limits.topic_aliases_max:
            raise MqttError(Reason.TOPIC_ALIAS_INVALID, f"the topic alias {alias} is too high")
        topic = publish.topic or self._aliases.get(alias, "")
        if not topic:
            raise protocol_error(f"the topic alias {alias} stands for no topic")
        self._aliases[alias] = topic
        return replace(publish, topic=topic, properties=_without(Property.TOPIC_ALIAS, publish.properties))

    def answer(self, packet_id: int, reason: Reason, text: str) -> None:
        """Send PUBACK; 3.1.1 has no word for a refusal, there it is only counted and logged."""
        if not packet_id or self._state is not State.CONNECTED:
            return
        self._unanswered -= 1
        if reason is _NO_REASON or self._version is Version.V311:
            self.send(b"\x40\x02" + uint16(packet_id))
            return
        wants_text = self._connect is None or self._connect.properties.get(Property.REQUEST_PROBLEM_INFORMATION) != 0
        self._send_packet(Ack(Kind.PUBACK, packet_id, reason, {Property.REASON_STRING: text} if wants_text else NONE))

    def pause(self) -> None:
        """Read nothing more; each pause wants one resume."""
        self._pauses += 1
        if self._pauses == 1 and self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._pauses -= 1
        if self._pauses == 0 and self._transport is not None and not self._transport.is_closing():
            self._heard_at = monotonic()
            self._transport.resume_reading()

    # Subscribing

    def _on_subscribe(self, packet: Subscribe) -> None:
        numbers = cast(tuple[int, ...], packet.properties.get(Property.SUBSCRIPTION_IDENTIFIER, ()))
        if len(numbers) > 1:
            raise protocol_error("a SUBSCRIBE has two subscription identifiers")
        exchange = self._house.exchange
        granted = [(wish, *exchange.subscribe(self, wish, numbers)) for wish in packet.filters]
        self._send_packet(Answers(Kind.SUBACK, packet.packet_id, tuple(reason for _, reason, _ in granted)))
        for wish, _, wants_retained in granted:
            if wants_retained:
                exchange.send_retained(self, wish, numbers)

    def _on_unsubscribe(self, packet: Unsubscribe) -> None:
        reasons = tuple(self._house.exchange.unsubscribe(self, topic) for topic in packet.topics)
        self._send_packet(Answers(Kind.UNSUBACK, packet.packet_id, reasons))

    # Sending

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were sent but have not left the process."""
        return self._out_bytes + (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    def send(self, data: bytes) -> None:
        """Send at the end of this turn of the loop, together with all else that gathers until then."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)
        self._out_bytes += len(data)

    def _send_packet(self, packet: Packet) -> None:
        self.send(encode(packet, self._version))

    def _flush(self) -> None:
        out, self._out, self._out_bytes = self._out, [], 0
        if self._transport is not None and out and not self._transport.is_closing():
            self._transport.write(b"".join(out))
            self.outbox.pump()

    # Ending

    def _on_disconnect(self, packet: Farewell) -> None:
        self._leaves_a_will = packet.reason == Reason.DISCONNECT_WITH_WILL
        self._end()

    def fail(self, reason: Reason, text: str) -> None:
        """The peer has done what it must not: say so where the protocol has words for it, and close."""
        if self._state is State.CLOSED:
            return
        log.warning("broker: %s at %s is disconnected: %s", self.client_id or "a client", self.peer, text)
        self._house.counters.connections_failed += 1
        if reason is Reason.UNSUPPORTED_PROTOCOL_VERSION:
            self._send_packet(Connack(reason))  # As 3.1.1 says it, which clients of any version understand.
        self.disconnect(reason, text)

    def disconnect(self, reason: Reason, text: str) -> None:
        """Close, with a DISCONNECT that gives the reason to an MQTT 5 client."""
        if self._state is State.CONNECTED and self._version is Version.V5:
            self._send_packet(Farewell(Kind.DISCONNECT, reason, {Property.REASON_STRING: text}))
        self._end()

    def check(self, now: float) -> None:
        """Close when the client has been silent too long; called a few times each second."""
        limits = self._house.limits
        if self._state is State.CONNECTED:
            if self._keepalive_s and not self._pauses and now - self._heard_at > self._keepalive_s:
                self.fail(Reason.KEEP_ALIVE_TIMEOUT, f"silent for {self._keepalive_s:.1f} s")
        elif self._state is State.CLOSED:
            if now - self._changed_at > limits.closing_timeout_s:
                self.abort()
        elif now - self._changed_at > limits.connect_timeout_s:
            self.fail(Reason.KEEP_ALIVE_TIMEOUT, f"no CONNECT within {limits.connect_timeout_s:.0f} s")

    def abort(self) -> None:
        """Cut the connection at once, without a will: the broker stops."""
        self._leaves_a_will = False
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        self._flush()
        self._leave()
        if self._transport is not None:
            self._transport.close()

    def _leave(self) -> None:
        if self._state is State.CLOSED:
            return
        was_connected = self._state is State.CONNECTED
        self._to(State.CLOSED)
        self._house.ingest.forget(self)
        if was_connected:
            self._house.exchange.leave(self)
            will = self._connect.will if self._connect is not None and self._leaves_a_will else None
            if will is not None:
                self._publish_will(will)

    def _publish_will(self, will: Will) -> None:
        # Sessions end with their connection here, so no will is delayed.
        properties = _without(Property.WILL_DELAY, will.properties)
        publish = Publish(will.topic, will.payload, min(will.qos, QOS_MAX), will.retain, properties=properties)
        self._house.ingest.put(self._house.intake.judged(self, publish))

    def _to(self, state: State) -> None:
        self._state, self._changed_at = state, monotonic()


def _number(properties: Properties, name: Property, default: int) -> int:
    value = properties.get(name, default)
    return value if isinstance(value, int) else default


def _without(left_out: Property, properties: Properties) -> Properties:
    return {name: value for name, value in properties.items() if name is not left_out}
