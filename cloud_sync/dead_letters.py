"""Dead letters: which envelopes could not be opened, and why. The bodies themselves stay in bronze."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from appliance.contract.envelope import Envelope, EnvelopeError, Sealed, open_sealed
from cloud_sync import tables

NUMBER_MAX = 2**62
"""Numbers of entries beyond this fit no column."""


class Letter(NamedTuple):
    """One event of bronze, as silver takes it up."""

    hub: str
    partition: int
    sequence: int
    enqueued_us: int
    properties: str
    body: bytes


class DeadLetter(NamedTuple):
    """A letter that cannot be opened."""

    letter: Letter
    reason: str
    error: str


def open_letter(letter: Letter) -> Envelope | DeadLetter:
    """The envelope, or why there is none."""
    try:
        sealed = Sealed.from_wire(json.loads(letter.properties), letter.body)
        if not is_accountable(sealed):
            raise EnvelopeError("bad-properties", f"epoch {sealed.epoch}, first {sealed.first} or count is no number")
        return open_sealed(sealed)
    except EnvelopeError as error:
        return DeadLetter(letter, error.reason, str(error))


def is_accountable(sealed: Sealed) -> bool:
    """Whether bronze can say by columns which entries the envelope holds."""
    return all(0 <= number < NUMBER_MAX for number in (sealed.epoch, sealed.first, sealed.count))


def rows(dead: Sequence[DeadLetter], found_us: int) -> pa.Table:
    """The rows of `bronze/dead_letters`."""
    return pa.Table.from_pylist(
        [
            {
                "eh_hub": letter.hub,
                "eh_partition": letter.partition,
                "eh_sequence": letter.sequence,
                "enqueued_at": letter.enqueued_us,
                "reason": reason,
                "error": error,
                "found_at": found_us,
            }
            for letter, reason, error in dead
        ],
        schema=tables.DEAD_LETTERS.schema,
    )
