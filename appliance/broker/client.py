"""A Client: who is connected, what it publishes, and what it is to get."""

from dataclasses import replace
from typing import Protocol, cast

from appliance.broker.codec import encode
from appliance.broker.exchange import QOS_MAX, Exchange
from appliance.broker.ingest import Incoming, Ingest
from appliance.broker.intake import Intake
from appliance.broker.limits import Counters, Limits
from appliance.broker.outbox import Link, Outbox
from appliance.broker.packets import Ack, Answers, Connect, Packet, Ping, Publish, Subscribe, Unsubscribe, Will
from appliance.broker.properties import NONE, Kind, Properties, Property
from appliance.broker.wire import MqttError, Reason, Version, protocol_error, uint16


class Rooms(Protocol):
    """What all clients of one broker share."""

    limits: Limits
    counters: Counters
    exchange: Exchange
    ingest: Ingest
    intake: Intake


class Line(Link, Protocol):
    """The connection a client is on."""

    @property
    def is_connected(self) -> bool:
        """Whether packets can still be sent."""

    def pause(self) -> None:
        """Read nothing more; each pause wants one resume."""

    def resume(self) -> None:
        """Read on."""

    def disconnect(self, reason: Reason, text: str) -> None:
        """Close, giving the reason."""


class Client:
    """Handles the packets of one client between CONNACK and the end of its connection."""

    def __init__(self, rooms: Rooms, line: Line, connect: Connect, client_id: str) -> None:
        self._rooms, self._line, self.client_id = rooms, line, client_id
        self._version, self._will = connect.version, connect.will
        self._wants_text = connect.properties.get(Property.REQUEST_PROBLEM_INFORMATION) != 0
        self._aliases: dict[int, str] = {}
        self._unanswered = 0
        wishes, limits = connect.properties, rooms.limits
        window = cast(int, wishes.get(Property.RECEIVE_MAXIMUM, limits.window_max))
        # The broker's own limit leaves room for the properties it adds to what it accepts.
        packet_bytes_max = cast(int, wishes.get(Property.MAXIMUM_PACKET_SIZE, limits.packet_bytes_max * 2))
        self.outbox = Outbox(line, connect.version, window, packet_bytes_max, limits, rooms.counters)

    def handle(self, packet: Packet) -> None:
        """Take any packet but PUBLISH; raises `MqttError` for what a client must not send."""
        match packet:
            case Ack(Kind.PUBACK):
                self.outbox.acknowledged(packet.packet_id)
            case Ping(Kind.PINGREQ):
                self._send(Ping(Kind.PINGRESP))
            case Subscribe():
                self._subscribe(packet)
            case Unsubscribe():
                reasons = tuple(self._rooms.exchange.unsubscribe(self, topic) for topic in packet.topics)
                self._send(Answers(Kind.UNSUBACK, packet.packet_id, reasons))
            case _:
                raise protocol_error(f"{type(packet).__name__} is nothing a client sends here")

    def published(self, publish: Publish) -> None:
        """Take a PUBLISH; it is answered after its commit."""
        limits = self._rooms.limits
        self._rooms.counters.received += 1
        if publish.qos > QOS_MAX:
            raise MqttError(Reason.QOS_NOT_SUPPORTED, "QoS 1 is the highest here")
        if publish.properties:
            publish = self._with_topic(publish)
        if not publish.topic:
            raise MqttError(Reason.TOPIC_NAME_INVALID, "a PUBLISH has an empty topic")
        if publish.packet_id:
            self._unanswered += 1
            if self._version is Version.V5 and self._unanswered > limits.receive_max:
                text = f"more than {limits.receive_max} publishes wait for their answer"
                raise MqttError(Reason.RECEIVE_MAXIMUM_EXCEEDED, text)
        self._hand_in(self._rooms.intake.judged(self, publish))

    def gone(self, leaves_a_will: bool) -> None:
        """The connection has ended: unsubscribe, and publish the will if there is to be one."""
        self._rooms.ingest.forget(self)
        self._rooms.exchange.leave(self)
        if leaves_a_will and self._will is not None:
            self._publish_will(self._will)

    def taken_over(self) -> None:
        """Another connection has come with the same client id."""
        self._line.disconnect(Reason.SESSION_TAKEN_OVER, "another connection has come with the same client id")

    # What the Ingest asks

    def answer(self, packet_id: int, reason: Reason, text: str) -> None:
        """Send PUBACK; 3.1.1 has no word for a refusal, there it is only counted and logged."""
        if not packet_id or not self._line.is_connected:
            return
        self._unanswered -= 1
        if reason is Reason.SUCCESS or self._version is Version.V311:
            self._line.send(b"\x40\x02" + uint16(packet_id))
        else:
            properties: Properties = {Property.REASON_STRING: text} if self._wants_text else NONE
            self._send(Ack(Kind.PUBACK, packet_id, reason, properties))

    def pause(self) -> None:
        """Read nothing more from this client."""
        self._line.pause()

    def resume(self) -> None:
        """Read on."""
        self._line.resume()

    def _hand_in(self, incoming: Incoming) -> None:
        if incoming.reading is None and self._unanswered <= bool(incoming.packet_id):
            self._rooms.ingest.settle(incoming)  # Nothing to record, and no earlier publish waits for its answer.
        else:
            self._rooms.ingest.put(incoming)

    def _with_topic(self, publish: Publish) -> Publish:
        """The publish with its topic in place of an alias."""
        alias = publish.properties.get(Property.TOPIC_ALIAS)
        if Property.SUBSCRIPTION_IDENTIFIER in publish.properties:
            raise protocol_error("a client's PUBLISH has a subscription identifier")
        if not isinstance(alias, int):
            return publish
        if alias > self._rooms.limits.topic_aliases_max:
            raise MqttError(Reason.TOPIC_ALIAS_INVALID, f"the topic alias {alias} is too high")
        topic = publish.topic or self._aliases.get(alias, "")
        if not topic:
            raise protocol_error(f"the topic alias {alias} stands for no topic")
        self._aliases[alias] = topic
        return replace(publish, topic=topic, properties=_without(Property.TOPIC_ALIAS, publish.properties))

    def _subscribe(self, packet: Subscribe) -> None:
        numbers = cast(tuple[int, ...], packet.properties.get(Property.SUBSCRIPTION_IDENTIFIER, ()))
        if len(numbers) > 1:
            raise protocol_error("a SUBSCRIBE has two subscription identifiers")
        exchange = self._rooms.exchange
        granted = [(wish, *exchange.subscribe(self, wish, numbers)) for wish in packet.filters]
        self._send(Answers(Kind.SUBACK, packet.packet_id, tuple(reason for _, reason, _ in granted)))
        for wish, _, wants_retained in granted:
            if wants_retained:
                exchange.send_retained(self, wish, numbers)

    def _publish_will(self, will: Will) -> None:
        # Sessions end with their connection here, so no will is delayed.
        properties = _without(Property.WILL_DELAY, will.properties)
        publish = Publish(will.topic, will.payload, min(will.qos, QOS_MAX), will.retain, properties=properties)
        self._rooms.ingest.put(self._rooms.intake.judged(self, publish))

    def _send(self, packet: Packet) -> None:
        self._line.send(encode(packet, self._version))


def _without(left_out: Property, properties: Properties) -> Properties:
    return {name: value for name, value in properties.items() if name is not left_out}
