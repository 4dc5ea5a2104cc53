"""A Receipt: what of one stream of a plant's log stands in the lake, as the cloud says it."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from appliance.contract.ranges import Ranges
from appliance.contract.reading import Stream

SCHEMA: Final = "plantward.receipt/1"
RANGES_MAX: Final = 4_000
"""Ranges in one receipt; beyond them it says up to where it speaks."""


class ReceiptError(ValueError):
    """A body that is no receipt."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What stands in silver of `(plant, epoch, stream)`. A later receipt takes the place of all earlier ones."""

    plant: str
    epoch: int
    stream: Stream
    at_us: int
    """When the cloud looked, by its clock. Later receipts have later times."""
    complete_to_us: int
    """All that the hub had taken when the receipt of this `at_us` was made has been opened in this one; 0 when unknown.

    So whatever was acknowledged before anything held in that earlier receipt was even sent, and is not held in
    this one, got lost behind the hub. No clock of the plant is compared with one of the cloud.
    """
    speaks_to: int
    """Nothing is said of numbers beyond."""
    held: Ranges
    """The numbers that stand in silver, both ends included, in order, disjoint."""
    differing: tuple[int, ...] = ()
    """Starts of windows whose counts or fingerprints in silver are not those the plant has written down."""

    def to_body(self) -> bytes:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """Raises `ReceiptError`."""
        try:
            said: dict[str, Any] = json.loads(body)
            if said["schema"] != SCHEMA:
                raise ReceiptError(f"receipt: schema is {said['schema']!r}, {SCHEMA!r} is known")
            receipt = cls(
                plant=str(said["plant"]),
                epoch=int(said["epoch"]),
                stream=Stream(said["stream"]),
                at_us=int(said["at_us"]),
                complete_to_us=int(said["complete_to_us"]),
                speaks_to=int(said["speaks_to"]),
                held=tuple((int(first), int(last)) for first, last in said["held"]),
                differing=tuple(map(int, said["differing"])),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise error if isinstance(error, ReceiptError) else ReceiptError(f"receipt: {error!r}") from error
        ends = [end for part in receipt.held for end in part]
        if ends != sorted(ends) or any(low == high for low, high in zip(ends[1::2], ends[2::2], strict=False)):
            raise ReceiptError("receipt: the ranges overlap or stand in no order")
        return receipt
