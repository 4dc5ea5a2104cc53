"""Sessions and links of one connection: who may send how much, and what is under way."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cloud_sync.emulator.amqp import UInt
from cloud_sync.emulator.nodes import Node
from cloud_sync.emulator.performatives import Flow, Transfer

SESSION_WINDOW: Final = 5_000
LINK_CREDIT: Final = 300
LINK_CREDIT_LOW: Final = 100
RECEIVERS_MAX: Final = 5
"""Receivers without an epoch that one consumer group may have at a partition."""
_WRAP: Final = 2**32


@dataclass(frozen=True, slots=True)
class Arrival:
    """A whole message from a client, and how it is to be answered."""

    delivery: UInt
    message_format: int
    is_settled: bool
    body: bytes


@dataclass(slots=True)
class Link:
    """One direction of messages within a session; `sends` is said from the server's side."""

    name: str
    handle: int
    path: str
    sends: bool
    node: Node | None = None
    """The place of a hub it leads to; None for the services every namespace has."""
    delivery_count: int = 0
    credit: int = 0
    # a message that arrives in pieces
    begun: Transfer | None = None
    pieces: bytearray = field(default_factory=bytearray)
    # where a receiver stands
    next_sequence: int = 0
    is_draining: bool = False
    """Whether the client wants what there is now, and the rest of its credit back."""
    epoch: int | None = None
    wants_metrics: bool = False
    pump: "asyncio.Task[None] | None" = None


@dataclass(slots=True)
class Session:
    """A channel's windows, and its links by the handle the client gave them (the server uses the same)."""

    channel: int
    next_incoming_id: int
    outgoing_window: int
    links: dict[int, Link] = field(default_factory=dict)
    next_outgoing_id: int = 1
    next_delivery_id: int = 1
    frames_since_flow: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def granted(self, flow: Flow) -> None:
        """Take in what the client now allows."""
        begin = 1 if flow.next_incoming_id is None else int(flow.next_incoming_id)
        self.outgoing_window = begin + int(flow.incoming_window) - self.next_outgoing_id
        link = self.links.get(flow.handle) if flow.handle is not None else None
        if link is not None and link.sends and flow.link_credit is not None:
            link.credit = int(flow.delivery_count or 0) + int(flow.link_credit) - link.delivery_count
            link.is_draining = bool(flow.drain)
        self.changed.set()

    async def room(self, link: Link | None = None) -> None:
        """Return once the client allows a frame on the session and, if given, a message on the link."""
        while self.outgoing_window <= 0 or (link is not None and link.credit <= 0):
            self.changed.clear()
            await self.changed.wait()

    def flow(self, link: Link) -> Flow:
        """What the server allows the client on the session and on a link it receives from."""
        self.frames_since_flow = 0
        return Flow(
            next_incoming_id=UInt(self.next_incoming_id % _WRAP),
            incoming_window=UInt(SESSION_WINDOW),
            next_outgoing_id=UInt(self.next_outgoing_id % _WRAP),
            outgoing_window=UInt(SESSION_WINDOW),
            handle=UInt(link.handle),
            delivery_count=UInt(link.delivery_count % _WRAP),
            link_credit=UInt(max(0, link.credit)),
        )

    def drained(self, link: Link) -> Flow:
        """Give back the credit that the client wants back."""
        link.delivery_count += max(0, link.credit)
        link.credit, link.is_draining = 0, False
        return self.flow(link)._replace(drain=True)

    def arrival(self, link: Link) -> Arrival:
        """The message whose last piece has come to the link."""
        first, body = link.begun or Transfer(), bytes(link.pieces)
        link.begun, link.pieces = None, bytearray()
        delivery = UInt(int(first.delivery_id or 0) % _WRAP)
        return Arrival(delivery, int(first.message_format or 0), bool(first.settled), body)

    def delivery(self) -> UInt:
        """A number for the next delivery."""
        self.next_delivery_id += 1
        return UInt((self.next_delivery_id - 1) % _WRAP)


class StolenError(Exception):
    """A receiver that may not be where it wants; `condition` is the AMQP name of why."""

    def __init__(self, condition: str, text: str) -> None:
        super().__init__(text)
        self.condition = condition


class Receivers:
    """Who receives from which partition for which consumer group, on all connections: the rule of epochs.

    The receiver with the highest epoch is alone at its partition; without epochs up to five share it.
    """

    def __init__(self) -> None:
        self._at: dict[Node, list[tuple[Link, Callable[[str, str], None]]]] = defaultdict(list)

    def enter(self, link: Link, leave: Callable[[str, str], None]) -> None:
        """Let a receiver in and send away those it displaces through their `leave`; raises `StolenError`."""
        assert link.node is not None, "a receiver has a place"
        there = self._at[link.node]
        highest = max((other.epoch for other, _ in there if other.epoch is not None), default=None)
        if highest is not None and (link.epoch is None or link.epoch < highest):
            raise StolenError("amqp:link:stolen", f"A receiver with the higher epoch {highest} exists.")
        if link.epoch is None and len(there) >= RECEIVERS_MAX:
            text = f"A consumer group may have {RECEIVERS_MAX} receivers at a partition."
            raise StolenError("amqp:resource-limit-exceeded", text)
        if link.epoch is not None:
            for _, others_leave in list(there):
                others_leave("amqp:link:stolen", f"New receiver with higher epoch of '{link.epoch}' is created.")
        there.append((link, leave))

    def left(self, link: Link) -> None:
        """Forget a receiver; does nothing for a link that is none."""
        if link.node in self._at:
            self._at[link.node] = [(other, leave) for other, leave in self._at[link.node] if other is not link]
