"""The AMQP 1.0 type system: values to bytes and back (OASIS AMQP 1.0, part 1).

Python types stand for AMQP types where one is the natural choice (`str`, `bytes`, `bool`, `float`, `dict`,
`list`, and `int` for long); the others have a small class of their own, so that a value keeps its type on
the way through. Decoding keeps those classes, except that every signed integer becomes `int`.
"""

import struct
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple

NESTING_MAX: Final = 16
"""How deep values may stand in each other; Event Hubs clients need 4."""


class AmqpError(ValueError):
    """Bytes that are not AMQP."""


class Symbol(str):
    """A name from a fixed vocabulary."""

    __slots__ = ()


class UByte(int):
    """An unsigned integer of 8 bits."""

    __slots__ = ()


class UShort(int):
    """An unsigned integer of 16 bits."""

    __slots__ = ()


class UInt(int):
    """An unsigned integer of 32 bits."""

    __slots__ = ()


class ULong(int):
    """An unsigned integer of 64 bits."""

    __slots__ = ()


class Int(int):
    """A signed integer of 32 bits, for encoding."""

    __slots__ = ()


class Timestamp(int):
    """Milliseconds since 1970 in UTC."""

    __slots__ = ()


class Array(NamedTuple):
    """An array of strings or symbols, for encoding; an array that is read becomes a list."""

    items: tuple[str, ...]
    of: type[str]


class Described(NamedTuple):
    """A value with a descriptor that says what it is."""

    descriptor: Any
    value: Any


def decode(data: bytes, position: int = 0) -> tuple[Any, int]:
    """The value that begins at the position, and the position after it; raises `AmqpError`."""
    try:
        return _decode(data, position, 0)
    except (IndexError, struct.error, UnicodeDecodeError, TypeError) as error:
        raise AmqpError(f"no AMQP value at byte {position}: {error}") from error


def encode(value: Any) -> bytes:
    """The value in the shortest form of its type."""
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        raise TypeError(f"no AMQP type for {type(value).__name__}")
    return encoder(value)


def described(code: int, value: Any) -> bytes:
    """A value described by a small code, as performatives, outcomes and sections are."""
    return b"\x00\x53" + bytes((code,)) + encode(value)


# ---- decoding: one reader for each constructor byte ----

_Reader = Callable[[bytes, int, int], tuple[Any, int]]


def _decode(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    if depth > NESTING_MAX:
        raise AmqpError(f"values nest deeper than {NESTING_MAX}")
    return _reader(data[position])(data, position + 1, depth)


def _reader(code: int) -> _Reader:
    reader = _READERS.get(code)
    if reader is None:
        raise AmqpError(f"0x{code:02x} is no known type")
    return reader


def _described(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    descriptor, position = _decode(data, position, depth + 1)
    value, position = _decode(data, position, depth + 1)
    return Described(descriptor, value), position


def _constant(value: Any) -> _Reader:
    return lambda data, position, depth: (value, position)


def _fixed(layout: str, build: Callable[[Any], Any]) -> _Reader:
    shape = struct.Struct(layout)

    def read(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        return build(shape.unpack_from(data, position)[0]), position + shape.size

    return read


def _variable(width: int, build: Callable[[bytes], Any]) -> _Reader:
    def read(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        start = position + width
        end = start + int.from_bytes(data[position:start], "big")
        if end > len(data):
            raise AmqpError("a value ends beyond its frame")
        return build(data[start:end]), end

    return read


def _head(data: bytes, position: int, width: int) -> tuple[int, int, int]:
    """Count, position of the first item and end of a compound value; a count is never above its bytes."""
    start = position + 2 * width
    size = int.from_bytes(data[position : position + width], "big")
    count = int.from_bytes(data[position + width : start], "big")
    end = position + width + size
    if end > len(data) or count > size:
        raise AmqpError("a compound value ends beyond its frame")
    return count, start, end


def _list(width: int) -> _Reader:
    def read(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        count, position, end = _head(data, position, width)
        items = []
        for _ in range(count):
            item, position = _decode(data, position, depth + 1)
            items.append(item)
        return items, end

    return read


def _map(width: int) -> _Reader:
    read_list = _list(width)

    def read(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        items, end = read_list(data, position, depth)
        if len(items) % 2:
            raise AmqpError("a map has a key without a value")
        return dict(zip(items[::2], items[1::2], strict=True)), end

    return read


def _array(width: int) -> _Reader:
    def read(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        count, position, end = _head(data, position, width)
        code = data[position]
        position += 1
        if code == 0:
            _, position = _decode(data, position, depth + 1)
            code, position = data[position], position + 1
        reader, items = _reader(code), []
        for _ in range(count):
            item, position = reader(data, position, depth + 1)
            items.append(item)
        return items, end

    return read


def _symbol(data: bytes) -> Symbol:
    return Symbol(data.decode("ascii"))


_READERS: dict[int, _Reader] = {
    0x00: _described,
    0x40: _constant(None), 0x41: _constant(True), 0x42: _constant(False), 0x56: _fixed(">?", bool),
    0x43: _constant(UInt(0)), 0x44: _constant(ULong(0)), 0x45: lambda data, position, depth: ([], position),
    0x50: _fixed(">B", UByte), 0x52: _fixed(">B", UInt), 0x53: _fixed(">B", ULong),
    0x60: _fixed(">H", UShort), 0x70: _fixed(">I", UInt), 0x80: _fixed(">Q", ULong),
    0x51: _fixed(">b", int), 0x54: _fixed(">b", int), 0x55: _fixed(">b", int),
    0x61: _fixed(">h", int), 0x71: _fixed(">i", int), 0x81: _fixed(">q", int),
    0x72: _fixed(">f", float), 0x82: _fixed(">d", float), 0x83: _fixed(">q", Timestamp),
    0x98: _fixed(">16s", lambda data: uuid.UUID(bytes=data)),
    0xA0: _variable(1, bytes), 0xA1: _variable(1, bytes.decode), 0xA3: _variable(1, _symbol),
    0xB0: _variable(4, bytes), 0xB1: _variable(4, bytes.decode), 0xB3: _variable(4, _symbol),
    0xC0: _list(1), 0xC1: _map(1), 0xD0: _list(4), 0xD1: _map(4), 0xE0: _array(1), 0xF0: _array(4),
}  # fmt: skip


# ---- encoding: one writer for each Python type ----


def _unsigned(zero: int, small: int, wide: int, layout: str) -> Callable[[int], bytes]:
    def write(value: int) -> bytes:
        if value == 0:
            return bytes((zero,))
        return bytes((small, value)) if value < 256 else bytes((wide,)) + struct.pack(layout, value)

    return write


def _long(value: int) -> bytes:
    return b"\x55" + struct.pack(">b", value) if -128 <= value < 128 else b"\x81" + struct.pack(">q", value)


def _sized(small: int, data: bytes) -> bytes:
    if len(data) < 256:
        return bytes((small, len(data))) + data
    return bytes((small + 0x10,)) + struct.pack(">I", len(data)) + data


def _compound(small: int, items: list[Any]) -> bytes:
    body = b"".join(map(encode, items))
    if len(body) < 255 and len(items) < 256:
        return bytes((small, len(body) + 1, len(items))) + body
    return bytes((small + 0x10,)) + struct.pack(">II", len(body) + 4, len(items)) + body


def _array_of_text(array: Array) -> bytes:
    body = b"".join(struct.pack(">I", len(item.encode())) + item.encode() for item in array.items)
    constructor = b"\xb3" if array.of is Symbol else b"\xb1"
    return b"\xf0" + struct.pack(">II", len(body) + 5, len(array.items)) + constructor + body


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"\x40",
    bool: lambda value: b"\x41" if value else b"\x42",
    UByte: lambda value: struct.pack(">BB", 0x50, value),
    UShort: lambda value: struct.pack(">BH", 0x60, value),
    UInt: _unsigned(0x43, 0x52, 0x70, ">I"),
    ULong: _unsigned(0x44, 0x53, 0x80, ">Q"),
    Int: lambda value: struct.pack(">Bi", 0x71, value),
    int: _long,
    Timestamp: lambda value: struct.pack(">Bq", 0x83, value),
    float: lambda value: struct.pack(">Bd", 0x82, value),
    uuid.UUID: lambda value: b"\x98" + value.bytes,
    Symbol: lambda value: _sized(0xA3, value.encode("ascii")),
    str: lambda value: _sized(0xA1, value.encode()),
    bytes: lambda value: _sized(0xA0, value),
    list: lambda value: b"\x45" if not value else _compound(0xC0, value),
    dict: lambda value: _compound(0xC1, [part for item in value.items() for part in item]),
    Array: _array_of_text,
    Described: lambda value: b"\x00" + encode(value.descriptor) + encode(value.value),
}
