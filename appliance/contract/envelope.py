"""An Envelope: consecutive entries of one stream of one plant's log as they cross the wire."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import google_crc32c
import zstandard

from appliance.contract.columns import dumps, from_columns, to_columns
from appliance.contract.packed import pack, unpack
from appliance.contract.reading import Reading, Stream, message_id

SCHEMA = "plantward.envelope/1"
ENTRIES_MAX = 5_000
BODY_BYTES_MAX = 200_000
OPENED_BYTES_MAX = 64 * 1024 * 1024
PACKED_ENTRIES_MIN = 32
"""Fewer are sealed and opened quicker as JSON, and are no larger."""
_LEVEL = 3
_PACKED_MARK = b"\x02"
"""How packed bodies begin; those of JSON begin like every zstd frame."""
_BAD_BODY = (zstandard.ZstdError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError)


class Codec(StrEnum):
    """How a body is written. All are read; JSON is written for few entries, and for times beyond 64 bits."""

    PACKED = "packed-columns+zstd"
    JSON = "json-columns+zstd"


class Lane(StrEnum):
    """The order of sending; it changes nothing in an envelope."""

    EVENTS = "events"
    LIVE = "live"
    BACKLOG = "backlog"


class EnvelopeError(ValueError):
    """A body that cannot be opened: `reason` is a short code for dead letters, the text says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"envelope: {reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Envelope:
    """Entries `first` to `first + count - 1` of `(plant, epoch, stream)`."""

    plant: str
    epoch: int
    stream: Stream
    first: int
    entries: tuple[Reading, ...]

    @property
    def last(self) -> int:
        return self.first + len(self.entries) - 1

    def message_id(self, position: int) -> str:
        """The message id of the entry at this position, counted from 0."""
        return message_id(self.plant, self.epoch, self.stream, self.first + position)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An envelope as bytes, with what the cloud needs to account for it unopened."""

    plant: str
    epoch: int
    stream: Stream
    first: int
    count: int
    crc32c: int
    body: bytes

    def properties(self, lane: Lane) -> dict[str, str | int]:
        """The application properties of the Event Hubs event."""
        return {
            "schema": SCHEMA,
            "plant": self.plant,
            "epoch": self.epoch,
            "stream": str(self.stream),
            "first": self.first,
            "count": self.count,
            "lane": str(lane),
            "codec": str(self.codec),
            "crc32c": self.crc32c,
        }

    @property
    def codec(self) -> Codec:
        """The body says it by its first byte."""
        return Codec.PACKED if self.body[:1] == _PACKED_MARK else Codec.JSON

    @property
    def partition_key(self) -> str:
        return f"{self.plant}/{self.stream}"

    @classmethod
    def from_wire(cls, properties: Mapping[str, Any], body: bytes) -> Self:
        """Read the application properties (text may come as bytes); raises `EnvelopeError`."""
        plain = {_text(key): _text(value) for key, value in properties.items()}
        if plain.get("schema") != SCHEMA:
            raise EnvelopeError("unknown-schema", f"schema is {plain.get('schema')!r}, {SCHEMA!r} is known")
        if plain.get("codec") not in set(Codec):
            raise EnvelopeError("unknown-codec", f"codec is {plain.get('codec')!r}, {' and '.join(Codec)} are known")
        try:
            return cls(
                plant=str(plain["plant"]),
                epoch=int(plain["epoch"]),
                stream=Stream(plain["stream"]),
                first=int(plain["first"]),
                count=int(plain["count"]),
                crc32c=int(plain["crc32c"]),
                body=bytes(body),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise EnvelopeError("bad-properties", repr(error)) from error


def seal(envelope: Envelope) -> Sealed:
    """Pack an envelope of 1 to `ENTRIES_MAX` entries."""
    count = len(envelope.entries)
    assert 0 < count <= ENTRIES_MAX, f"an envelope holds 1 to {ENTRIES_MAX} entries, not {count}"
    head = {"plant": envelope.plant, "epoch": envelope.epoch, "stream": str(envelope.stream), "first": envelope.first}
    body = b""
    if count >= PACKED_ENTRIES_MIN:
        with suppress(OverflowError):
            body = _PACKED_MARK + _compressed(pack(head, envelope.entries))
    body = body or zstandard.compress(dumps({**head, **to_columns(envelope.entries)}), _LEVEL)
    crc = google_crc32c.value(body)
    return Sealed(envelope.plant, envelope.epoch, envelope.stream, envelope.first, count, crc, body)


def open_sealed(sealed: Sealed) -> Envelope:
    """Unpack; raises `EnvelopeError` for anything but exactly what was sealed."""
    return Envelope(sealed.plant, sealed.epoch, sealed.stream, sealed.first, tuple(entries_of(sealed)))


def entries_of(sealed: Sealed, topic: str = "") -> list[Reading]:
    """The entries in their order, or those of one topic for a third of the work; raises what `open_sealed` raises."""
    if google_crc32c.value(sealed.body) != sealed.crc32c:
        raise EnvelopeError("bad-checksum", f"CRC-32C of {len(sealed.body)} bytes is not {sealed.crc32c}")
    try:
        head, entries = _opened(sealed, topic)
    except _BAD_BODY as error:
        raise EnvelopeError("bad-body", repr(error)) from error
    says = tuple(map(head.get, ("plant", "epoch", "stream", "first", "count")))
    if says != (sealed.plant, sealed.epoch, sealed.stream, sealed.first, sealed.count):
        raise EnvelopeError("bad-properties", f"the body says {says}, the properties say otherwise")
    return entries


def _compressed(parts: Sequence[bytes]) -> bytes:
    """One zstd frame in which each part is coded for itself: noise does not spoil what is even."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj(size=sum(map(len, parts)))
    coded = [compressor.compress(part) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for part in parts]
    return b"".join((*coded, compressor.flush()))


def _opened(sealed: Sealed, topic: str) -> tuple[dict[str, Any], list[Reading]]:
    frame = sealed.body.removeprefix(_PACKED_MARK)
    if zstandard.frame_content_size(frame) > OPENED_BYTES_MAX:
        raise ValueError(f"the body would open to more than {OPENED_BYTES_MAX} bytes")
    data = zstandard.ZstdDecompressor().decompress(frame, max_output_size=OPENED_BYTES_MAX)
    if sealed.codec is Codec.PACKED:
        return unpack(data, topic)
    columns = json.loads(data)
    return columns, [entry for entry in from_columns(columns) if topic in ("", entry.topic)]


def envelopes(plant: str, epoch: int, stream: Stream, first: int, entries: Sequence[Reading]) -> list[Sealed]:
    """Seal entries of any number, in envelopes that respect both bounds."""
    sealed: list[Sealed] = []
    step = ENTRIES_MAX
    while entries:
        part = seal(Envelope(plant, epoch, stream, first, tuple(entries[:step])))
        if len(part.body) > BODY_BYTES_MAX and part.count > 1:
            step = max(1, part.count // 2)
            continue
        sealed.append(part)
        entries, first = entries[part.count :], first + part.count
    return sealed


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
