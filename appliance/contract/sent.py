"""Sent: what of one stream of the log is on its way to the cloud, as the Bridge says it to the Ledger."""

from dataclasses import dataclass

from appliance.contract.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Sent:
    """Numbers of one stream, as ranges with both ends included, in order and disjoint."""

    acknowledged: Ranges
    """Nothing of these is to be sent any more: the hub has taken them, or the log no longer had them."""
    under_way: Ranges
    """Sent, or about to be, and not yet acknowledged."""
