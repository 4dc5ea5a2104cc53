"""What the log says of a link, and how often."""

import logging
import random

import pytest

from appliance.bridge.link import LOG_EVERY_S, Backoff, Link, LinkState
from appliance.bridge.uplink import UplinkError

CUT = UplinkError("the cable is cut", "mend it")


class Clock:
    at_s = 1_000.0

    def now_us(self) -> int:
        return int(self.at_s * 1_000_000)


def test_a_link_that_comes_and_goes_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Each second a break: of a hundred breaks the log tells two, the second with the number of those untold."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    link = Link("eventhubs", clock.now_us)
    link.acknowledged(5)
    for _ in range(100):
        link.lost(CUT, 1.0)
        clock.at_s += 0.5
        link.acknowledged(7)
        clock.at_s += 0.5
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "bridge: link to eventhubs is up, 5 readings to send"
    assert [text.split(" (")[0].split(":")[1] for text in told[1:]] == [
        " link lost to eventhubs",
        " link back after 0 s, 7 readings to send",
        " link lost to eventhubs",
        " link back after 0 s, 7 readings to send",
    ]
    assert told[3].endswith(f"({LOG_EVERY_S - 1:.0f} short breaks before)")
    assert link.state is LinkState.UP


def test_the_state_says_since_when() -> None:
    """A long break counts from its first failure."""
    clock = Clock()
    link = Link("eventhubs", clock.now_us)
    assert (link.state, link.since_us) == (LinkState.UNTRIED, clock.now_us())
    clock.at_s += 1
    link.lost(CUT, 1.0)
    since_us = clock.now_us()
    clock.at_s += 3_660
    link.lost(CUT, 60.0)
    assert (link.state, link.since_us, link.last_error) == (LinkState.DOWN, since_us, "the cable is cut; mend it")


def test_pauses_stay_within_the_cap_for_ever() -> None:
    backoff = Backoff(random.Random(3))
    pauses = [backoff.pause_s(0.0) for _ in range(5_000)]
    assert max(pauses) <= 60.0
    assert min(pauses[10:]) >= 30.0
