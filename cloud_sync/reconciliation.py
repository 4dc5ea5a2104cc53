"""Reconciliation: one look at silver, as a person wants to read it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from appliance.contract.ledger import WINDOW_US
from appliance.contract.receipt import Receipt
from cloud_sync import tables
from cloud_sync.lake import Lake
from cloud_sync.ranges import Ranges
from cloud_sync.receipts import Look, missing

RANGES_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Balance:
    """What silver holds of one stream of one epoch of a plant's log, below the highest number it holds."""

    plant: str
    epoch: int
    stream: str
    held: int
    explained: int
    """Numbers not held of which a gap says why."""
    missing: tuple[tuple[int, int], ...]
    """Numbers neither held nor explained."""
    differing: tuple[int, ...]
    """Starts of windows whose readings are not what the plant wrote down, in microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """All balances."""

    balances: tuple[Balance, ...]
    windows_equal: int
    doubled: int

    @property
    def is_fine(self) -> bool:
        return not self.doubled and not any(balance.missing or balance.differing for balance in self.balances)

    def to_json(self) -> str:
        return json.dumps({"is_fine": self.is_fine, **asdict(self)}, indent=2)

    def to_text(self) -> str:
        lines = [line for balance in self.balances for line in _lines(balance)]
        lines.append(f"windows that plants told and silver holds alike: {self.windows_equal:,}")
        if self.doubled:
            lines.append(f"numbers that stand in silver more than once: {self.doubled:,}")
        return "\n".join(lines)


def of(lake: Lake) -> Reconciliation:
    """Look at the lake as it stands."""
    found = Look(lake).findings()
    gaps = _gaps(lake)
    balances = tuple(_balance(receipt, gaps) for receipt in found.receipts)
    return Reconciliation(balances, found.equal, found.doubled)


def _balance(receipt: Receipt, gaps: dict[tuple[str, int, str], list[tuple[int, int]]]) -> Balance:
    name = (receipt.plant, receipt.epoch, str(receipt.stream))
    known = Ranges()
    for part in receipt.held:
        known.take(*part)
    explained = 0
    for first, last in gaps.get(name, []):
        new = known.take(first, min(last, receipt.speaks_to)) if first <= receipt.speaks_to else []
        explained += _size(new)
    return Balance(*name, _size(receipt.held), explained, tuple(missing(tuple(known))), receipt.differing)


def _gaps(lake: Lake) -> dict[tuple[str, int, str], list[tuple[int, int]]]:
    found: dict[tuple[str, int, str], list[tuple[int, int]]] = {}
    columns = ["plant", "gap_epoch", "gap_stream", "first", "last"]
    rows = lake.table(tables.GAPS.name).to_pyarrow_table(columns=columns)
    for plant, epoch, stream, first, last in zip(*(rows[name].to_pylist() for name in columns), strict=True):
        if first <= last:
            found.setdefault((plant, epoch, stream), []).append((first, last))
    return found


def _lines(balance: Balance) -> list[str]:
    head = f"plant {balance.plant}, epoch {balance.epoch}, {balance.stream}: {balance.held:,} held"
    if balance.explained:
        head += f", {balance.explained:,} explained by gaps"
    lines = [head]
    if balance.missing:
        shown = ", ".join(f"{first}-{last}" for first, last in balance.missing[:RANGES_SHOWN_MAX])
        lines.append(f"  missing: {_size(balance.missing):,} in {len(balance.missing)} ranges: {shown}")
    for start_us in balance.differing[:RANGES_SHOWN_MAX]:
        lines.append(f"  the {WINDOW_US // 60_000_000} minutes from {start_us} us are not what the plant wrote down")
    return lines


def _size(ranges: Sequence[tuple[int, int]]) -> int:
    return sum(last - first + 1 for first, last in ranges)
