"""Messages on their way: events from senders into the store, requests to their answers, events out to receivers."""

import asyncio
import itertools
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cloud_sync.emulator import services
from cloud_sync.emulator.amqp import AmqpError, UInt
from cloud_sync.emulator.faults import Faults
from cloud_sync.emulator.links import LINK_CREDIT, LINK_CREDIT_LOW, Arrival, Link, Receivers, Session
from cloud_sync.emulator.messages import Request, annotated, partition_key, split
from cloud_sync.emulator.nodes import CBS, Node
from cloud_sync.emulator.performatives import Disposition, Outcome, Transfer
from cloud_sync.emulator.store import Event, Store
from cloud_sync.emulator.throughput import BUSY, BUSY_TEXT, Throughput
from cloud_sync.emulator.tokens import UNAUTHORIZED, Tokens, expired
from cloud_sync.emulator.wire import Wire

MESSAGE_BYTES_MAX: Final = 1024 * 1024
READ_EVENTS_MAX: Final = 100
_FRAME_OVERHEAD_BYTES: Final = 64
"""Room for the head and the performative of a transfer."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """What all connections share."""

    store: Store
    faults: Faults
    throughput: Throughput
    receivers: Receivers = field(default_factory=Receivers)
    turns: "itertools.count[int]" = field(default_factory=itertools.count)


SendAway = Callable[[str, str], None]


class Deliveries:
    """The messages of one connection."""

    def __init__(self, wire: Wire, shared: Namespace, tokens: Tokens) -> None:
        self._wire, self._shared, self._tokens = wire, shared, tokens
        self._store, self._faults = shared.store, shared.faults
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End: deliveries that wait for their delayed answer are let go."""
        self._stopped.set()

    async def take(self, session: Session, link: Link, arrival: Arrival, away: SendAway) -> None:
        """Store one delivery, or answer one request, and settle it."""
        self._renew_credit(session, link)
        if link.node is None:
            outcome: Any = self._request(session, link, arrival.body)
        else:
            outcome = self._refusal(link, away)
            if outcome is _CUT:
                return
            if outcome is None:
                outcome = await self._store_events(link.node, arrival)
                if self._faults.struck("drop_after_store"):
                    self._wire.cut()
                    return
                await self._late()
        if not arrival.is_settled:
            self._wire.send(session.channel, Disposition(True, arrival.delivery, arrival.delivery, True, outcome))

    async def pump(self, session: Session, link: Link) -> None:
        """Deliver the events of the link's partition, as the client gives credit, until cancelled."""
        node = link.node
        assert node is not None and node.number is not None, "a receiver stands at a partition"
        while True:
            await session.room(link)
            await self._store.wait(node.hub, node.number, link.next_sequence)
            limit = min(link.credit, READ_EVENTS_MAX)
            for event in self._store.read(node.hub, node.number, link.next_sequence, limit):
                await session.room(link)
                message = self._as_received(link, node, event)
                await self._deliver(session, link, message)
                if pause_s := self._shared.throughput.pause_s(len(message)):
                    await asyncio.sleep(pause_s)
                link.next_sequence = event.sequence + 1
            self.drain(session, link)

    def drain(self, session: Session, link: Link) -> None:
        """Give credit back where it is wanted back, once there is nothing more to send."""
        node = link.node
        if link.is_draining and node is not None and node.number is not None:
            if link.credit <= 0 or self._store.extent(node.hub, node.number).next <= link.next_sequence:
                self._wire.send(session.channel, session.drained(link))

    def _as_received(self, link: Link, node: Node, event: Event) -> bytes:
        metrics = None
        if link.wants_metrics and node.number is not None:
            metrics = services.metrics(self._store, node.hub, node.number, time.time_ns() // 1_000_000)
        return annotated(event.message, event.sequence, event.offset, event.enqueued_ms, metrics)

    async def _deliver(self, session: Session, link: Link, message: bytes) -> None:
        """Send one message, in as many frames as it needs."""
        link.delivery_count += 1
        link.credit -= 1
        piece_bytes = self._wire.client_frame_bytes - _FRAME_OVERHEAD_BYTES
        tag = struct.pack(">I", link.delivery_count % 2**32)
        delivery = session.delivery()
        for start in range(0, len(message), piece_bytes):
            await session.room()
            more = start + piece_bytes < len(message)
            head = Transfer(UInt(link.handle), delivery, tag, UInt(0), False, more)
            self._send_piece(session, head, message[start : start + piece_bytes])
            await self._wire.drained()

    def _send_piece(self, session: Session, head: Transfer, piece: bytes) -> None:
        session.next_outgoing_id += 1
        session.outgoing_window -= 1
        self._wire.send(session.channel, head, piece)

    def _renew_credit(self, session: Session, link: Link) -> None:
        link.delivery_count += 1
        link.credit -= 1
        if link.credit < LINK_CREDIT_LOW:
            link.credit = LINK_CREDIT
            self._wire.send(session.channel, session.flow(link))

    def _refusal(self, link: Link, away: SendAway) -> Any:
        """What a fault makes of a delivery before it is stored; None when none strikes."""
        if self._faults.struck("server_busy"):
            return Outcome.rejected(BUSY, BUSY_TEXT)
        if self._faults.struck("released"):
            return Outcome.RELEASED
        if self._faults.struck("detach"):
            away("amqp:link:detach-forced", "The link is force detached: idle timeout.")
            return _CUT
        if self._faults.struck("expired_token"):
            away(UNAUTHORIZED, expired(link.path))
            return _CUT
        if self._faults.struck("drop_before_store"):
            self._wire.cut()
            return _CUT
        if self._faults.struck("forget"):
            return Outcome.ACCEPTED
        return None

    async def _late(self) -> None:
        if self._faults.latency_s > 0:
            try:
                await asyncio.wait_for(self._stopped.wait(), self._faults.latency_s)
            except TimeoutError:
                return

    async def _store_events(self, node: Node, arrival: Arrival) -> Any:
        try:
            count = len(split(arrival.body, arrival.message_format))
            number = self._partition(node, arrival.body)
            if not self._shared.throughput.admits(count, len(arrival.body)):
                return Outcome.rejected(BUSY, BUSY_TEXT)
            await self._store.append(node.hub, number, arrival.message_format, arrival.body, count)
        except AmqpError as error:
            return Outcome.rejected("amqp:decode-error", str(error))
        except sqlite3.Error as error:
            return Outcome.rejected("amqp:internal-error", f"The events could not be stored: {error}")
        return Outcome.ACCEPTED

    def _partition(self, node: Node, body: bytes) -> int:
        if node.number is not None:
            return node.number
        key = partition_key(body)
        turn = next(self._shared.turns) if key is None else zlib.crc32(key)
        return turn % self._store.hubs[node.hub]

    def _request(self, session: Session, link: Link, body: bytes) -> Any:
        """Answer on the link that the client has attached from the same service."""
        try:
            request = Request.parse(body)
            if link.path == CBS:
                message = services.take_token(self._tokens, self._faults, request)
            else:
                message = services.tell(self._store, request)
        except AmqpError as error:
            return Outcome.rejected("amqp:decode-error", str(error))
        for other in session.links.values():
            if other.sends and other.path == link.path:
                other.delivery_count += 1
                other.credit -= 1
                tag = struct.pack(">I", other.delivery_count % 2**32)
                self._send_piece(session, Transfer(UInt(other.handle), session.delivery(), tag, UInt(0), True), message)
                break
        return Outcome.ACCEPTED


_CUT: Final = object()
"""Stands for: no outcome is to be told."""
