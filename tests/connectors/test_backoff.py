"""Backoff: pauses double up to their cap and start over after a healthy link."""

import pytest

from appliance.connectors.backoff import JITTER, Backoff


def test_pauses_double_up_to_the_cap_and_start_over() -> None:
    """1, 2, 4 ... 60 s with jitter, never above the cap; a link that held 10 s resets them."""
    backoff = Backoff(1.0, 60.0, healthy_s=10.0)
    pauses = [backoff.next(0.1) for _ in range(9)]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60], rel=JITTER)
    assert max(pauses) <= 60.0
    assert backoff.next(12.0) == pytest.approx(1.0, rel=JITTER)
