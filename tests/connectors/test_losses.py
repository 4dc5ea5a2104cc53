"""Losses before a number was given: gathered, and told as gaps that name no numbers."""

from appliance.connectors.losses import TELL_S, Losses
from appliance.contract.gap import GapReason


def test_losses_are_gathered_and_told_once_a_minute() -> None:
    """The first at once, the others together; what could not be written down stays to be told."""
    losses = Losses()
    assert losses.due(0.0) == []
    losses.overflowed(["a", "b"], 10, 20)
    assert [gap.count for gap in losses.due(0.0)] == [2]
    losses.overflowed(["a"], 20, 30)
    (gap,) = losses.due(0.0)
    assert (gap.count, gap.topics, gap.from_us, gap.to_us) == (3, ("a", "b"), 10, 30)
    losses.told(0.0)
    assert losses.due(TELL_S) == []
    losses.missed(2, 40, 50)
    losses.overflowed(["c"], 50, 60)
    assert losses.due(TELL_S - 1) == []
    told = {gap.reason: (gap.count, gap.topics, gap.from_us, gap.to_us) for gap in losses.due(TELL_S)}
    assert told == {GapReason.MISSED: (2, (), 40, 50), GapReason.OVERFLOW: (1, ("c",), 50, 60)}
