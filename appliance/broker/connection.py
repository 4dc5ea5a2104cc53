"""A Connection: one socket, from CONNECT to the last byte."""

import asyncio
import logging
from enum import Enum
from time import monotonic
from typing import Protocol

from appliance.broker.client import Client, Rooms
from appliance.broker.codec import decode, decode_publish, encode
from appliance.broker.exchange import QOS_MAX
from appliance.broker.frames import Frame, Frames
from appliance.broker.packets import Connack, Connect, Farewell, Packet
from appliance.broker.properties import Kind, Properties, Property
from appliance.broker.seldom import Seldom
from appliance.broker.wire import MqttError, Reason, Version, protocol_error

log = logging.getLogger(__name__)

KEEPALIVE_FACTOR = 1.5
SOCKETS_PER_CONNECTION = 2
"""Sockets may be twice as many as clients: those that have not said CONNECT, and those that are closing."""
_CONNECT_BYTE = 0x10


class State(Enum):
    """Where a connection stands."""

    OPEN = "waits for CONNECT"
    ADMITTING = "is being admitted"
    CONNECTED = "connected"
    CLOSED = "closed"


class House(Rooms, Protocol):
    """What all connections of one broker share."""

    connections: set["Connection"]
    seldom: Seldom

    def admit(self, connection: "Connection", connect: Connect) -> None:
        """Decide, soon, by `connection.admitted()` or `connection.refused()`."""


class Connection(asyncio.Protocol):
    """Reads packets and gathers what is to be sent; a peer's mistake ends it and nothing else."""

    def __init__(self, house: House, anonymous: bool) -> None:
        self._house, self.anonymous = house, anonymous
        self._transport: asyncio.Transport | None = None
        self._frames = Frames(house.limits.packet_bytes_max)
        self._state = State.OPEN
        self._version = Version.V311
        self._connect: Connect | None = None
        self._client: Client | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._pauses = 0
        self._heard_at = self._changed_at = monotonic()
        self._keepalive_s = 0.0
        self._leaves_a_will = True
        self.peer = ""

    @property
    def is_connected(self) -> bool:
        return self._state is State.CONNECTED

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
        if self._client is not None:
            self._client.outbox.pump()

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
        if self._client is not None and frame.header >> 4 == Kind.PUBLISH:
            self._client.published(decode_publish(frame, self._version))
            return
        packet = decode(frame, self._version)
        if (self._client is None) is not isinstance(packet, Connect):
            raise protocol_error(f"{type(packet).__name__} came on a connection that {self._state.value}")
        if isinstance(packet, Connect):
            self._on_connect(packet)
        elif isinstance(packet, Farewell) and packet.kind is Kind.DISCONNECT:
            self._leaves_a_will = packet.reason == Reason.DISCONNECT_WITH_WILL
            self._end()
        elif self._client is not None:
            self._client.handle(packet)

    # Admission

    def _on_connect(self, connect: Connect) -> None:
        self._version, self._connect = connect.version, connect
        self._to(State.ADMITTING)
        self.pause()
        most = self._house.limits.client_id_chars_max
        if connect.will is not None and connect.will.qos > QOS_MAX and self._version is Version.V5:
            self.refused(Reason.QOS_NOT_SUPPORTED, "the will has QoS 2; QoS 1 is the highest here")
        elif Property.AUTHENTICATION_METHOD in connect.properties:
            self.refused(Reason.BAD_AUTHENTICATION_METHOD, "there is no extended authentication here")
        elif len(connect.client_id) > most:
            self.refused(Reason.CLIENT_IDENTIFIER_NOT_VALID, f"the client id is longer than {most} characters")
        elif not connect.client_id and not connect.clean_start and self._version is Version.V311:
            self.refused(Reason.CLIENT_IDENTIFIER_NOT_VALID, "an empty client id needs a clean session")
        else:
            self._house.admit(self, connect)

    def admitted(self, client_id: str, properties: Properties) -> None:
        """The client may stay, under this id."""
        if self._state is not State.ADMITTING or self._connect is None:
            return
        self._client = Client(self._house, self, self._connect, client_id)
        self._keepalive_s = self._connect.keepalive_s * KEEPALIVE_FACTOR
        self._to(State.CONNECTED)
        self._house.exchange.join(self._client)
        self._send_packet(Connack(Reason.SUCCESS, False, properties))
        self.resume()
        self._process()

    def refused(self, reason: Reason, text: str) -> None:
        """The client may not stay."""
        if self._state is not State.ADMITTING:
            return
        self._log("not admitted", text)
        self._house.counters.connections_refused += 1
        self._send_packet(Connack(reason, False, {Property.REASON_STRING: text}))
        self._end()

    # Reading and sending

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
            self.resume_writing()

    # Ending

    def fail(self, reason: Reason, text: str) -> None:
        """The peer has done what it must not: say so where the protocol has words for it, and close."""
        if self._state is State.CLOSED:
            return
        self._log("disconnected", text)
        self._house.counters.connections_failed += 1
        if reason is Reason.UNSUPPORTED_PROTOCOL_VERSION:
            self._send_packet(Connack(reason))  # As 3.1.1 says it, which clients of any version understand.
        self.disconnect(reason, text)

    def disconnect(self, reason: Reason, text: str) -> None:
        """Close, with a DISCONNECT that gives the reason to an MQTT 5 client."""
        if self.is_connected and self._version is Version.V5:
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
        self._to(State.CLOSED)
        if self._client is not None:
            self._client.gone(self._leaves_a_will)

    def _log(self, what: str, text: str) -> None:
        left_out = self._house.seldom.due()
        if left_out is not None:
            name = self._client.client_id if self._client else self._connect.client_id if self._connect else ""
            fields = (name or "a client", self.peer, what, text, left_out)
            log.warning("broker: %s at %s is %s: %s (%d such lines left out)", *fields)

    def _to(self, state: State) -> None:
        self._state, self._changed_at = state, monotonic()
