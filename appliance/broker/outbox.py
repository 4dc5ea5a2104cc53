"""An Outbox: what one subscriber is still to receive. It never holds more than its limits."""

from collections import deque
from typing import NamedTuple, Protocol

from appliance.broker.limits import Counters, Limits
from appliance.broker.message import Message
from appliance.broker.wire import Version

_PACKET_ID_MAX = 65_535


class Link(Protocol):
    """The way to the subscriber."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were sent but have not left the process."""

    def send(self, data: bytes) -> None:
        """Send bytes, soon, in order; never blocks."""


class _Delivery(NamedTuple):
    message: Message
    retain: bool
    identifiers: tuple[int, ...]


class Outbox:
    """QoS 0 is sent or dropped; QoS 1 is sent within the client's window, else it waits in a bounded queue."""

    def __init__(
        self, link: Link, version: Version, window: int, packet_bytes_max: int, limits: Limits, counters: Counters
    ) -> None:
        self._link, self._version, self._limits, self._counters = link, version, limits, counters
        self._window = min(window, limits.window_max)
        self._packet_bytes_max = packet_bytes_max
        self._in_flight: dict[int, _Delivery] = {}
        self._waiting: deque[_Delivery] = deque()
        self._waiting_bytes = 0
        self._packet_id = 0

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> None:
        """Send a message, now or as soon as the subscriber keeps up."""
        if qos:
            self._deliver_acknowledged(_Delivery(message, retain, identifiers))
        elif self._link.unsent_bytes > self._limits.unsent_bytes_max:
            self._counters.dropped += 1
        else:
            self._send(_Delivery(message, retain, identifiers), 0)

    def acknowledged(self, packet_id: int) -> None:
        """The subscriber has the message with this id; an unknown id changes nothing."""
        if self._in_flight.pop(packet_id, None) is not None:
            self.pump()

    def pump(self) -> None:
        """Send what waits, as far as the subscriber takes it."""
        while self._waiting and self._has_room():
            delivery = self._waiting.popleft()
            self._waiting_bytes -= delivery.message.size_bytes
            self._send(delivery, self._next_id())

    def _deliver_acknowledged(self, delivery: _Delivery) -> None:
        if not self._waiting and self._has_room():
            self._send(delivery, self._next_id())
            return
        size = delivery.message.size_bytes
        limits = self._limits
        if len(self._waiting) >= limits.queue_messages_max or self._waiting_bytes + size > limits.queue_bytes_max:
            self._counters.dropped += 1
            return
        self._waiting.append(delivery)
        self._waiting_bytes += size

    def _has_room(self) -> bool:
        return len(self._in_flight) < self._window and self._link.unsent_bytes <= self._limits.unsent_bytes_max

    def _send(self, delivery: _Delivery, packet_id: int) -> None:
        packet = delivery.message.encoded(self._version, packet_id, delivery.retain, delivery.identifiers)
        if len(packet) > self._packet_bytes_max:
            self._counters.dropped += 1  # The client has said that it cannot take it (3.1.2.11.4).
            return
        if packet_id:
            self._in_flight[packet_id] = delivery
        self._link.send(packet)
        self._counters.delivered += 1

    def _next_id(self) -> int:
        packet_id = self._packet_id
        while True:
            packet_id = packet_id % _PACKET_ID_MAX + 1
            if packet_id not in self._in_flight:
                self._packet_id = packet_id
                return packet_id
