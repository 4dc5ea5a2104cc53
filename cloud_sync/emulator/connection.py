"""One client's connection: each performative and its answer. `Wire` carries frames, `Deliveries` messages."""

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any, Final

from cloud_sync.emulator.amqp import AmqpError, Described, Symbol, UInt, ULong, UShort
from cloud_sync.emulator.deliveries import MESSAGE_BYTES_MAX, Deliveries, Namespace
from cloud_sync.emulator.links import LINK_CREDIT, SESSION_WINDOW, Link, Session, StolenError
from cloud_sync.emulator.nodes import CBS, MANAGEMENT, AddressError, begin, find, path_of, selector
from cloud_sync.emulator.performatives import (
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    Performative,
    Transfer,
    error,
    parse_performative,
)
from cloud_sync.emulator.tokens import UNAUTHORIZED, Tokens, expired
from cloud_sync.emulator.wire import FRAME_BYTES_MAX, IDLE_S, Wire

log = logging.getLogger(__name__)

SESSIONS_MAX: Final = 256
LINKS_MAX: Final = 256
TOKEN_LOOK_S: Final = 0.5
MALFORMED: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)
"""What it raises to handle fields of the wrong type or size; `AmqpError` is a ValueError."""
METRICS: Final = "com.microsoft:enable-receiver-runtime-metric"
EPOCH: Final = "com.microsoft:epoch"


class Connection:
    """Serves one client until either side closes; nothing a client sends reaches beyond its connection."""

    def __init__(self, wire: Wire, shared: Namespace, tokens: Tokens) -> None:
        self._wire, self._tokens = wire, tokens
        self._store, self._receivers = shared.store, shared.receivers
        self._deliveries = Deliveries(wire, shared, tokens)
        self._sessions: dict[int, Session] = {}
        self._tasks = asyncio.TaskGroup()

    async def run(self) -> None:
        """Serve until the connection ends, however it ends."""
        try:
            async with self._tasks:
                keeper = self._tasks.create_task(self._wire.keep_alive(), name="emulator heartbeat")
                watch = self._tasks.create_task(self._watch_tokens(), name="emulator tokens")
                try:
                    await self._converse()
                finally:
                    self._end_sessions()
                    keeper.cancel()
                    watch.cancel()
                    self._deliveries.stop()
        except* (asyncio.IncompleteReadError, OSError):
            log.debug("emulator: a client is gone")
        finally:
            self._wire.close()

    async def _converse(self) -> None:
        try:
            await self._wire.greet(self._tokens)
            closed = False
            while not closed:
                channel, body = await self._wire.frame()
                performative, payload = parse_performative(body, 0)
                closed = self._answer(channel, performative, payload)
                await self._wire.drained()
        except MALFORMED as fault:
            # Types inside a frame are the client's word; whatever does not fit ends this connection only.
            log.info("emulator: connection closed, the client sent what is not AMQP: %r", fault)
            self._wire.send(0, Close(error("amqp:decode-error", str(fault))))

    def _answer(self, channel: int, performative: Performative, payload: bytes) -> bool:
        match performative:
            case Open():
                self._open(performative)
            case Begin():
                self._begin(channel, performative)
            case Attach():
                self._attach(self._sessions[channel], performative)
            case Flow():
                self._flow(self._sessions[channel], performative)
            case Transfer():
                self._transfer(self._sessions[channel], performative, payload)
            case Detach():
                self._detached(channel, performative)
            case End():
                self._end(channel)
            case Close():
                self._wire.send(0, Close())
                return True
            case Disposition():
                pass  # What receivers think of events changes nothing: a hub keeps them.
        return False

    def _open(self, asked: Open) -> None:
        if asked.max_frame_size is not None:
            self._wire.client_frame_bytes = max(512, min(int(asked.max_frame_size), FRAME_BYTES_MAX))
        self._wire.client_idle_s = (asked.idle_timeout_ms or 0) / 1000
        product = {Symbol("product"): "plantward-emulator"}
        idle_ms = UInt(IDLE_S * 1000)
        self._wire.send(0, Open("emulator", None, UInt(FRAME_BYTES_MAX), UShort(255), idle_ms, properties=product))

    def _begin(self, channel: int, asked: Begin) -> None:
        if len(self._sessions) >= SESSIONS_MAX or channel in self._sessions:
            raise AmqpError(f"a session begins on channel {channel}, which cannot be")
        self._sessions[channel] = Session(channel, asked.next_outgoing_id or 0, asked.incoming_window or 0)
        window = UInt(SESSION_WINDOW)
        self._wire.send(channel, Begin(UShort(channel), UInt(1), window, window, UInt(LINKS_MAX - 1)))

    def _attach(self, session: Session, asked: Attach) -> None:
        if int(asked.handle) in session.links or len(session.links) >= LINKS_MAX:
            raise AmqpError(f"a link attaches at handle {asked.handle}, which cannot be")
        sends = bool(asked.is_receiver)
        address = _terminus(asked.source if sends else asked.target)
        link = Link(str(asked.name), int(asked.handle), path_of(address[0] if address else ""), sends)
        try:
            if link.path != CBS and not self._tokens.opens(link.path):
                raise AddressError(UNAUTHORIZED, f"Unauthorized access to '{link.path}': no token opens it.")
            if link.path not in (CBS, MANAGEMENT):
                link.node = find(link.path, self._store.hubs, sends)
                if sends:
                    self._place(session, link, asked, address)
        except (AddressError, StolenError) as refusal:
            self._wire.send(session.channel, _mirror(asked._replace(source=None, target=None, properties=None)))
            self._wire.send(session.channel, _detach(link, refusal.condition, str(refusal)))
            return
        session.links[link.handle] = link
        self._wire.send(session.channel, _mirror(asked))
        if not sends:
            link.credit = LINK_CREDIT
            self._wire.send(session.channel, session.flow(link))
        elif link.node is not None:
            link.pump = self._tasks.create_task(self._deliveries.pump(session, link), name="emulator pump")

    def _place(self, session: Session, link: Link, asked: Attach, source: list[Any]) -> None:
        assert link.node is not None, "a receiver has a place"
        epoch = (asked.properties or {}).get(EPOCH)
        desired = asked.desired_capabilities
        link.epoch = None if epoch is None else int(epoch)
        link.wants_metrics = METRICS in (desired if isinstance(desired, list) else [desired])
        link.next_sequence = begin(self._store, link.node, selector(source))
        self._receivers.enter(link, self._sender_away(session, link))

    def _sender_away(self, session: Session, link: Link) -> Callable[[str, str], None]:
        return lambda condition, text: self._send_away(session, link, condition, text)

    def _send_away(self, session: Session, link: Link, condition: str, text: str) -> None:
        """Detach a link from the server's side."""
        self._forget(session, link)
        self._wire.send(session.channel, _detach(link, condition, text))

    async def _watch_tokens(self) -> None:
        """Send links away whose token has ended."""
        while True:
            await asyncio.sleep(TOKEN_LOOK_S)
            for session in list(self._sessions.values()):
                for link in list(session.links.values()):
                    if link.node is not None and self._tokens.has_ended(link.path):
                        self._send_away(session, link, UNAUTHORIZED, expired(link.path))

    def _flow(self, session: Session, asked: Flow) -> None:
        session.granted(asked)
        link = session.links.get(asked.handle) if asked.handle is not None else None
        if link is not None and link.sends:
            self._deliveries.drain(session, link)
        if asked.echo and link is not None:
            self._wire.send(session.channel, session.flow(link))

    def _transfer(self, session: Session, transfer: Transfer, payload: bytes) -> None:
        session.next_incoming_id += 1
        session.frames_since_flow += 1
        link = session.links.get(transfer.handle)
        if link is None or link.sends:
            return  # Still under way to a link that was detached.
        if session.frames_since_flow > SESSION_WINDOW // 2:
            self._wire.send(session.channel, session.flow(link))
        link.begun = link.begun or transfer
        link.pieces += payload
        if len(link.pieces) > MESSAGE_BYTES_MAX:
            text = f"The message exceeds the limit of {MESSAGE_BYTES_MAX} bytes allowed on the link."
            self._send_away(session, link, "amqp:link:message-size-exceeded", text)
        elif transfer.aborted:
            link.begun, link.pieces = None, bytearray()
        elif not transfer.more:
            arrival = session.arrival(link)
            taking = self._deliveries.take(session, link, arrival, self._sender_away(session, link))
            self._tasks.create_task(taking, name="emulator delivery")

    def _detached(self, channel: int, asked: Detach) -> None:
        session = self._sessions.get(channel)  # azure-eventhub detaches links after it has ended their session.
        link = session.links.get(asked.handle) if session is not None else None
        if session is not None and link is not None:
            self._forget(session, link)
            self._wire.send(channel, Detach(UInt(link.handle), True))

    def _end(self, channel: int) -> None:
        session = self._sessions.pop(channel, None)
        if session is not None:
            for link in list(session.links.values()):
                self._forget(session, link)
            self._wire.send(channel, End())

    def _forget(self, session: Session, link: Link) -> None:
        session.links.pop(link.handle, None)
        self._receivers.left(link)
        if link.pump is not None:
            link.pump.cancel()

    def _end_sessions(self) -> None:
        for session in self._sessions.values():
            for link in list(session.links.values()):
                self._forget(session, link)


def _terminus(value: Any) -> list[Any]:
    return value.value if isinstance(value, Described) and isinstance(value.value, list) else []


def _mirror(asked: Attach) -> Attach:
    """The answer to an attach: the same link, seen from the other side."""
    return asked._replace(
        handle=UInt(asked.handle),
        is_receiver=not asked.is_receiver,
        unsettled=None,
        incomplete_unsettled=None,
        initial_delivery_count=UInt(0) if asked.is_receiver else None,
        max_message_size=ULong(MESSAGE_BYTES_MAX),
        offered_capabilities=None,
        desired_capabilities=None,
        properties=None,
    )


def _detach(link: Link, condition: str, text: str) -> Detach:
    return Detach(UInt(link.handle), True, error(condition, text))
