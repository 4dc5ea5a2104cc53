"""The performatives of AMQP 1.0: the nine verbs in which a client and a server speak, and their frames.

Each is a tuple of its fields in the order of the standard. They are always sent with all their fields:
azure-eventhub reads fields by position and fails on trailing ones that were left out.
"""

import struct
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from cloud_sync.emulator.amqp import AmqpError, Array, Described, Symbol, UByte, ULong, decode, described

AMQP_FRAME: Final = 0
SASL_FRAME: Final = 1
FRAME_HEAD_BYTES: Final = 8
ERROR_CHARS_MAX: Final = 500
_ERROR: Final = 0x1D


class Open(NamedTuple):
    """Opens a connection."""

    container_id: Any = None
    hostname: Any = None
    max_frame_size: Any = None
    channel_max: Any = None
    idle_timeout_ms: Any = None
    outgoing_locales: Any = None
    incoming_locales: Any = None
    offered_capabilities: Any = None
    desired_capabilities: Any = None
    properties: Any = None


class Begin(NamedTuple):
    """Begins a session."""

    remote_channel: Any = None
    next_outgoing_id: Any = None
    incoming_window: Any = None
    outgoing_window: Any = None
    handle_max: Any = None
    offered_capabilities: Any = None
    desired_capabilities: Any = None
    properties: Any = None


class Attach(NamedTuple):
    """Attaches a link; `is_receiver` is the role of who says it."""

    name: Any = None
    handle: Any = None
    is_receiver: Any = None
    send_settle_mode: Any = None
    receive_settle_mode: Any = None
    source: Any = None
    target: Any = None
    unsettled: Any = None
    incomplete_unsettled: Any = None
    initial_delivery_count: Any = None
    max_message_size: Any = None
    offered_capabilities: Any = None
    desired_capabilities: Any = None
    properties: Any = None


class Flow(NamedTuple):
    """Says how much more may be sent on a session and on a link."""

    next_incoming_id: Any = None
    incoming_window: Any = None
    next_outgoing_id: Any = None
    outgoing_window: Any = None
    handle: Any = None
    delivery_count: Any = None
    link_credit: Any = None
    available: Any = None
    drain: Any = None
    echo: Any = None
    properties: Any = None


class Transfer(NamedTuple):
    """Carries a message or, with `more`, a piece of one."""

    handle: Any = None
    delivery_id: Any = None
    delivery_tag: Any = None
    message_format: Any = None
    settled: Any = None
    more: Any = None
    receive_settle_mode: Any = None
    state: Any = None
    resume: Any = None
    aborted: Any = None
    batchable: Any = None


class Disposition(NamedTuple):
    """Tells the outcome of deliveries."""

    is_receiver: Any = None
    first: Any = None
    last: Any = None
    settled: Any = None
    state: Any = None
    batchable: Any = None


class Detach(NamedTuple):
    """Detaches a link."""

    handle: Any = None
    closed: Any = None
    error: Any = None


class End(NamedTuple):
    """Ends a session."""

    error: Any = None


class Close(NamedTuple):
    """Closes a connection."""

    error: Any = None


Performative: TypeAlias = Open | Begin | Attach | Flow | Transfer | Disposition | Detach | End | Close
_CODES: dict[type[Performative], int] = {
    Open: 0x10, Begin: 0x11, Attach: 0x12, Flow: 0x13, Transfer: 0x14, Disposition: 0x15,
    Detach: 0x16, End: 0x17, Close: 0x18,
}  # fmt: skip
_BY_CODE = {code: kind for kind, code in _CODES.items()}


class Outcome:
    """The outcomes of a delivery."""

    ACCEPTED: ClassVar = Described(ULong(0x24), [])
    RELEASED: ClassVar = Described(ULong(0x26), [])

    @staticmethod
    def rejected(condition: str, text: str) -> Described:
        return Described(ULong(0x25), [error(condition, text)])


def error(condition: str, text: str) -> Described:
    """An AMQP error with all three fields: with fewer, azure-eventhub swallows an IndexError and hangs."""
    return Described(ULong(_ERROR), [Symbol(condition), text[:ERROR_CHARS_MAX], None])


def frame(channel: int, body: bytes, kind: int = AMQP_FRAME) -> bytes:
    """The body of a frame with its head; an empty body makes the frame that only keeps a connection alive."""
    return struct.pack(">IBBH", len(body) + FRAME_HEAD_BYTES, 2, kind, channel) + body


def performative_bytes(performative: Performative) -> bytes:
    return described(_CODES[type(performative)], list(performative))


def parse_performative(body: bytes, start: int) -> tuple[Performative, bytes]:
    """The performative of a frame's body and the payload after it; raises `AmqpError`."""
    value, end = decode(body, start)
    known = isinstance(value, Described) and isinstance(value.descriptor, int) and value.descriptor in _BY_CODE
    if not (known and isinstance(value.value, list)):
        raise AmqpError("a frame holds no performative")
    kind = _BY_CODE[value.descriptor]
    if len(value.value) > len(kind._fields):
        raise AmqpError(f"{kind.__name__} has more fields than it may")
    return kind(*value.value), body[end:]


def sasl_mechanisms() -> bytes:
    """The frame that offers ways to sign in; whichever is taken is answered with `sasl_outcome`."""
    return frame(0, described(0x40, [Array(("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"), Symbol)]), SASL_FRAME)


def sasl_outcome(is_welcome: bool) -> bytes:
    return frame(0, described(0x44, [UByte(0 if is_welcome else 1), None]), SASL_FRAME)
