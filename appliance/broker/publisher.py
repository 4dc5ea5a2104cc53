"""A Publisher: a small MQTT 5 client that publishes at QoS 1 within a window, and hears why it is refused."""

import asyncio
from typing import Self

from appliance.broker.codec import decode, encode
from appliance.broker.frames import Frames
from appliance.broker.packets import Ack, Connack, Connect, Farewell, Packet, Ping, Publish
from appliance.broker.properties import Kind, Properties, Property
from appliance.broker.wire import MqttError, Reason, Version

ANSWER_S = 30.0
"""No answer for so long means that the broker is stuck."""
KEEPALIVE_S = 60
_PACKET_BYTES_MAX = 1 << 20
_PACKET_ID_MAX = 65_535
_REFUSED = 0x80


class PublishError(Exception):
    """A broker that refuses, or is gone; the text gives the broker's reason."""


class Publisher(asyncio.Protocol):
    """Connects once and never again: whoever uses it decides what a lost link means.

    gmqtt, the client used elsewhere, does not show the reason with which a PUBACK refuses; this one ends with it.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._frames = Frames(_PACKET_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._in_flight: dict[int, str] = {}
        self._packet_id = 0
        self._out: list[bytes] = []
        self._is_greeted = False
        self._fault = ""
        self._heard = asyncio.Event()
        self._ping: asyncio.TimerHandle | None = None
        self.acknowledged = 0
        """Messages that the broker has acknowledged."""

    @classmethod
    async def connect(cls, host: str, port: int, window: int) -> Self:
        """Connect with an id that the broker assigns; raises OSError or `PublishError`."""
        async with asyncio.timeout(ANSWER_S):
            _, publisher = await asyncio.get_running_loop().create_connection(lambda: cls(window), host, port)
        publisher._send(Connect(Version.V5, "", keepalive_s=KEEPALIVE_S))
        try:
            while not publisher._is_greeted:
                await publisher._wait()
        except PublishError:
            publisher.close()
            raise
        return publisher

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye and close."""
        if self._ping is not None:
            self._ping.cancel()
        if self._transport is not None:
            self._send(Farewell())
            self._flush()
            self._transport.close()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 1; waits while the window is full. Raises `PublishError`, also for earlier messages."""
        self._raise_fault()
        while len(self._in_flight) >= self._window:
            await self._wait()
        packet_id = self._packet_id % _PACKET_ID_MAX + 1
        while packet_id in self._in_flight:
            packet_id = packet_id % _PACKET_ID_MAX + 1
        self._packet_id = packet_id
        self._in_flight[packet_id] = topic
        self._send(Publish(topic, payload, 1, packet_id=packet_id))

    async def drain(self) -> None:
        """Wait until everything is acknowledged; raises `PublishError`."""
        self._raise_fault()
        while self._in_flight:
            await self._wait()

    # The socket's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._schedule_ping()

    def data_received(self, data: bytes) -> None:
        self._frames.push(data)
        try:
            while (frame := self._frames.pop()) is not None:
                self._on_packet(decode(frame, Version.V5))
        except MqttError as error:
            self._fail(f"the broker sends what is no MQTT 5: {error.text}")
        self._heard.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(f"the broker has closed the connection{f' ({exc})' if exc else ''}; look at the broker's log")
        self._heard.set()

    def _on_packet(self, packet: Packet) -> None:
        match packet:
            case Ack(Kind.PUBACK):
                topic = self._in_flight.pop(packet.packet_id, "")
                if packet.reason >= _REFUSED:
                    self._fail(f"the broker refuses {topic}: {_reason(packet.reason, packet.properties)}")
                else:
                    self.acknowledged += 1
            case Connack() if packet.reason >= _REFUSED:
                self._fail(f"the broker refuses the connection: {_reason(packet.reason, packet.properties)}")
            case Connack():
                self._is_greeted = True
                receive_max = packet.properties.get(Property.RECEIVE_MAXIMUM)
                self._window = min(self._window, receive_max) if isinstance(receive_max, int) else self._window
            case Farewell():
                self._fail(f"the broker disconnects: {_reason(packet.reason, packet.properties)}")

    def _fail(self, text: str) -> None:
        self._fault = self._fault or text  # The first fault explains the others.

    def _raise_fault(self) -> None:
        if self._fault:
            raise PublishError(self._fault)

    async def _wait(self) -> None:
        """Wait until the broker has said something."""
        self._raise_fault()
        self._heard.clear()
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._heard.wait()
        except TimeoutError:
            raise PublishError(f"the broker has not answered for {ANSWER_S:.0f} s; is its disk full?") from None
        self._raise_fault()

    def _send(self, packet: Packet) -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(encode(packet, Version.V5))

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and out and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def _schedule_ping(self) -> None:
        def ping() -> None:
            self._send(Ping())
            self._schedule_ping()

        self._ping = asyncio.get_running_loop().call_later(KEEPALIVE_S / 2, ping)


def _reason(code: int, properties: Properties) -> str:
    text = str(properties.get(Property.REASON_STRING, ""))
    try:
        name = Reason(code).name.lower().replace("_", " ")
    except ValueError:
        name = f"reason {code:#04x}"
    return f"{name}: {text}" if text else name
