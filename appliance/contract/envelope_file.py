"""An envelope as a file: one line of JSON with the application properties, then the sealed body."""

import json
from typing import Any, Final

from appliance.contract.envelope import EnvelopeError, Lane, Sealed

SUFFIX: Final = ".envelope"
HEAD_BYTES_MAX: Final = 64 * 1024


def to_bytes(sealed: Sealed, lane: Lane) -> bytes:
    """The bytes of an envelope's file."""
    return json.dumps(sealed.properties(lane)).encode("ascii") + b"\n" + sealed.body


def from_bytes(data: bytes) -> Sealed:
    """The envelope of a file's bytes; raises `EnvelopeError`."""
    return Sealed.from_wire(*split(data))


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The application properties and the body, neither looked into; raises `EnvelopeError`."""
    head, newline, body = data.partition(b"\n")
    try:
        properties = json.loads(head)
    except ValueError as error:
        raise EnvelopeError("bad-properties", f"the first line is not JSON: {error}") from error
    if not newline or not isinstance(properties, dict):
        raise EnvelopeError("bad-properties", "the first line holds no properties")
    return properties, body
