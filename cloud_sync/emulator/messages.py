"""Messages as they lie in a transfer: split into events, annotated for receivers, read as requests.

An event keeps the bytes its sender gave it; only its annotations are added to on the way out.
"""

from dataclasses import dataclass
from typing import Any, Final

from cloud_sync.emulator.amqp import AmqpError, Described, Int, Symbol, Timestamp, decode, described

BATCH_FORMAT: Final = 0x80013700
"""The message format of an Event Hubs batch: data sections, each a whole encoded message."""
PARTITION_KEY: Final = "x-opt-partition-key"

_HEADER, _DELIVERY_ANNOTATIONS, _ANNOTATIONS = 0x70, 0x71, 0x72
_PROPERTIES, _APPLICATION_PROPERTIES, _DATA, _VALUE = 0x73, 0x74, 0x75, 0x77


def split(body: bytes, message_format: int) -> list[bytes]:
    """The events of a transfer, each as its own encoded message; raises `AmqpError`."""
    if message_format != BATCH_FORMAT:
        _annotations(body)
        return [body]
    events, position = [], 0
    while position < len(body):
        section, position = _section(body, position)
        if section.descriptor == _DATA and isinstance(section.value, bytes):
            _annotations(section.value)
            events.append(section.value)
    if not events:
        raise AmqpError("a batch holds no events")
    return events


def partition_key(body: bytes) -> bytes | None:
    """The key that chooses the partition, if the sender gave one."""
    _, annotations, _ = _annotations(body)
    key = annotations.get(PARTITION_KEY)
    if key is None:
        return None
    return key if isinstance(key, bytes) else str(key).encode()


def annotated(event: bytes, sequence: int, offset: str, enqueued_ms: int, metrics: dict[str, Any] | None) -> bytes:
    """The event as a receiver gets it: with its place in the partition and, if wanted, metrics of the partition."""
    head, annotations, rest = _annotations(event)
    place = {
        "x-opt-sequence-number": sequence,
        "x-opt-offset": offset,
        "x-opt-enqueued-time": Timestamp(enqueued_ms),
    }
    merged = {Symbol(key): value for key, value in {**annotations, **place}.items()}
    wanted = {Symbol(key): value for key, value in (metrics or {}).items()}
    delivery = described(_DELIVERY_ANNOTATIONS, wanted) if wanted else b""
    return head + delivery + described(_ANNOTATIONS, merged) + rest


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks of `$cbs` or `$management`."""

    message_id: Any
    properties: dict[str, Any]
    value: Any = None

    @classmethod
    def parse(cls, body: bytes) -> "Request":
        properties: list[Any] = []
        application: dict[str, Any] = {}
        value: Any = None
        position = 0
        while position < len(body):
            section, position = _section(body, position)
            if section.descriptor == _PROPERTIES:
                properties = section.value
            elif section.descriptor == _APPLICATION_PROPERTIES:
                application = section.value
            elif section.descriptor == _VALUE:
                value = section.value
        if not (isinstance(properties, list) and isinstance(application, dict)):
            raise AmqpError("the properties of a request are malformed")
        return cls(properties[0] if properties else None, application, value)

    def text(self, name: str) -> str:
        value = self.properties.get(name)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def answer(self, status: int, text: str, value: dict[str, Any] | None = None) -> bytes:
        """The encoded message that answers this request."""
        correlation = [None, None, None, None, None, self.message_id, *[None] * 7]
        return (
            described(_PROPERTIES, correlation)
            + described(_APPLICATION_PROPERTIES, {"status-code": Int(status), "status-description": text})
            + described(_VALUE, value)
        )


def _section(body: bytes, position: int) -> tuple[Described, int]:
    section, position = decode(body, position)
    if not isinstance(section, Described):
        raise AmqpError("a message holds something that is no section")
    return section, position


def _annotations(event: bytes) -> tuple[bytes, dict[str, Any], bytes]:
    """The header's bytes, the message annotations, and the bytes of everything after them."""
    head, annotations, position = b"", {}, 0
    while position < len(event):
        section, end = _section(event, position)
        if section.descriptor == _HEADER:
            head = event[position:end]
        elif section.descriptor == _ANNOTATIONS:
            if not isinstance(section.value, dict):
                raise AmqpError("message annotations are no map")
            annotations = {_name(key): value for key, value in section.value.items()}
        elif section.descriptor != _DELIVERY_ANNOTATIONS:
            break
        position = end
    if not all(name.isascii() for name in annotations):
        raise AmqpError("the name of a message annotation is no symbol")
    return head, annotations, event[position:]


def _name(key: Any) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
