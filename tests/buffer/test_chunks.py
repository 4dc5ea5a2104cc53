"""Chunks: loose entries come back as they were written down, whatever they are, from older files too."""

import marshal
import math
from enum import IntEnum

import google_crc32c
import pytest

from appliance.buffer.chunks import decode, encode
from appliance.contract.columns import encode as encode_json
from appliance.contract.reading import INT64_MAX, INT64_MIN, Quality, Reading

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"


class Text(str):
    """A text of a class of its own, as some libraries give."""


class Level(IntEnum):
    """Numbers with names."""

    LOW = 1


def plain(entries: list[Reading]) -> bytes:
    """A chunk as it was written before times stood side by side."""
    topics, values, qualities, *rest = zip(*entries, strict=True)
    body = marshal.dumps((topics, values, tuple(map(int, qualities)), *rest), 4)
    return b"\x01" + int(google_crc32c.value(body)).to_bytes(4, "big") + body


ENTRIES = [
    Reading(TOPIC, 1.5, 192, 1, 1, 3, "opcua:plant"),
    Reading(TOPIC + "/ü€😀", math.inf, 0, -5, 7, 2**62, "mqtt:client"),
    Reading(TOPIC, INT64_MIN, 192, 1, 1, 3, ""),
    Reading(TOPIC, INT64_MAX, 64, 1, 1, 3, "opcua:plant"),
    Reading(TOPIC, True, 192, 1, 1, 3, "opcua:plant"),
    Reading(TOPIC, "text\0 and\nlines", 192, 1, 1, 3, "opcua:plant"),
    Reading(TOPIC, None, 192, 1, 1, 3, "opcua:plant"),
]


@pytest.mark.parametrize(
    "entries",
    [
        ENTRIES[:1],
        ENTRIES,
        [ENTRIES[0]._replace(topic="two\nlines"), *ENTRIES],
        [ENTRIES[0]._replace(source_us=2**70, arrival_us=-(2**70)), *ENTRIES],
        [ENTRIES[0]._replace(quality=Quality.GOOD), *ENTRIES],
    ],
)
def test_entries_come_back_as_they_were(entries: list[Reading]) -> None:
    """All value types, topics with line breaks and times beyond 64 bits, in chunks of today and of before."""
    for chunk in (encode(entries), plain(entries), encode_json(entries)):
        again = decode(chunk)
        assert again == entries
        assert [type(entry.value) for entry in again] == [type(entry.value) for entry in entries]
    assert {type(entry.quality) for entry in decode(encode(entries))} == {int}


def test_values_of_other_classes_are_refused_and_texts_of_other_classes_are_texts() -> None:
    """What would come back as something else is told to the one who brings it."""
    with pytest.raises(TypeError, match="Level"):
        encode([ENTRIES[0]._replace(value=Level.LOW)])
    with pytest.raises(TypeError):
        encode([ENTRIES[0]._replace(source_us=1.5)])  # type: ignore[arg-type]
    again = decode(encode([ENTRIES[0]._replace(topic=Text(TOPIC), origin=Text("o"))]))
    assert (again[0].topic, type(again[0].topic), type(again[0].origin)) == (TOPIC, str, str)


def test_every_flipped_bit_and_each_truncation_is_noticed() -> None:
    """A chunk is whole, or it is an error."""
    chunk = encode(ENTRIES)
    for length in range(1, len(chunk)):
        with pytest.raises(ValueError):
            decode(chunk[:length])
    for position in range(len(chunk) * 8):
        bad = bytearray(chunk)
        bad[position // 8] ^= 1 << position % 8
        with pytest.raises(ValueError):
            decode(bytes(bad))
