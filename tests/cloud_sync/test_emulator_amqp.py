"""The AMQP types: what goes in comes out, and bytes that are no AMQP are refused by name."""

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.emulator.amqp import (
    AmqpError,
    Array,
    Described,
    Int,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    decode,
    encode,
)
from cloud_sync.emulator.performatives import Attach, Flow, Open, parse_performative, performative_bytes

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.uuids()
    | st.builds(UByte, st.integers(0, 2**8 - 1))
    | st.builds(UShort, st.integers(0, 2**16 - 1))
    | st.builds(UInt, st.integers(0, 2**32 - 1))
    | st.builds(ULong, st.integers(0, 2**64 - 1))
    | st.builds(Timestamp, st.integers(-(2**63), 2**63 - 1))
    | st.builds(Symbol, st.text(st.characters(max_codepoint=127), max_size=300))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(st.text(max_size=5), inner, max_size=20)
        | st.builds(Described, st.builds(ULong, st.integers(0, 255)), inner)
    ),
    max_leaves=30,
)


@given(VALUES)
def test_a_value_comes_back_equal_with_its_type(value: Any) -> None:
    again, end = decode(encode(value))
    assert (again, type(again)) == (value, type(value))
    assert end == len(encode(value))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_amqp_error(data: bytes) -> None:
    for read in (decode, parse_performative):
        try:
            read(data, 0)
        except AmqpError:
            continue


@given(VALUES, st.data())
def test_a_cut_value_is_an_amqp_error(value: Any, data: Any) -> None:
    encoded = encode(value)
    with pytest.raises(AmqpError):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 100_000,  # descriptors of descriptors
        b"\xc0\x02\x01" * 50_000,  # lists in lists
        b"\xd0\x00\x00\x00\x10\xff\xff\xff\xff" + b"\x40" * 12,  # four thousand million nulls promised
        b"\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40",  # the same in an array, whose nulls take no bytes
        b"\xc1\x02\x01\x40",  # a key without a value
        b"\xc1\x04\x02\x45\x40\x40",  # a list as a key
        b"\xa1\x02\xff\xff",  # no UTF-8
        b"\xb0\xff\xff\xff\xff",
    ],
)
def test_malice_is_an_amqp_error(data: bytes) -> None:
    with pytest.raises(AmqpError):
        decode(data)


def test_wire_forms_are_those_of_the_standard() -> None:
    """Examples by hand from OASIS AMQP 1.0 part 1, so that an error does not cancel out on the way back."""
    assert encode(UInt(0)) == b"\x43"
    assert encode(ULong(255)) == b"\x53\xff"
    assert encode(-1) == b"\x55\xff"
    assert encode(Int(202)) == b"\x71\x00\x00\x00\xca"
    assert encode(Symbol("hi")) == b"\xa3\x02hi"
    assert encode([True, None]) == b"\xc0\x03\x02\x41\x40"
    assert encode(uuid.UUID(int=1)) == b"\x98" + b"\x00" * 15 + b"\x01"
    assert decode(encode(Array(("0", "1"), str))) == (["0", "1"], 20)


@pytest.mark.parametrize("said", [Open("me", idle_timeout_ms=UInt(5)), Attach("a", UInt(1), True), Flow()])
def test_performatives_come_back_with_all_their_fields(said: Any) -> None:
    assert parse_performative(performative_bytes(said) + b"payload", 0) == (said, b"payload")
