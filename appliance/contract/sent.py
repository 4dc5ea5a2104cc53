"""Sent: what of one stream of the log is on its way to the cloud, as the Bridge says it to the Ledger."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sent:
    """Numbers of one stream, as ranges with both ends included, in order and disjoint."""

    acknowledged: tuple[tuple[int, int], ...]
    """Nothing of these is to be sent any more: the hub has taken them, or the log no longer had them."""
    under_way: tuple[tuple[int, int], ...]
    """Sent, or about to be, and not yet acknowledged."""
