"""What the log says of a link, and how often."""

import logging
import random

import pytest

from appliance.bridge.link import LOG_EVERY_S, Backoff, Link, LinkState
from appliance.bridge.uplink import UplinkError

CUT = UplinkError("the cable is cut", "mend it")


class Clock:
    """A clock that only rises, and a wall clock that shows as much and is set by so many seconds."""

    at_s = 1_000.0
    set_by_s = 1_780_000_000

    def now_us(self) -> int:
        return round((self.at_s + self.set_by_s) * 1_000_000)

    def now_s(self) -> float:
        return self.at_s


def test_a_link_that_comes_and_goes_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Each second a break: of a hundred breaks the log tells two, the second with the number of those untold."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    link = Link("eventhubs", clock.now_us, clock.now_s)
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
    link = Link("eventhubs", clock.now_us, clock.now_s)
    assert (link.state, link.since_us) == (LinkState.UNTRIED, clock.now_us())
    clock.at_s += 1
    link.lost(CUT, 1.0)
    since_us = clock.now_us()
    clock.at_s += 3_660
    link.lost(CUT, 60.0)
    assert (link.state, link.since_us, link.last_error) == (LinkState.DOWN, since_us, "the cable is cut; mend it")


@pytest.mark.parametrize("step_s", [-365 * 86_400, 5 * 86_400])
def test_a_wall_clock_that_is_set_changes_no_length(step_s: int, caplog: pytest.LogCaptureFixture) -> None:
    """Amid an outage of 30 s, and between two: the lengths are true, and the page reckons with the new time."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    link = Link("eventhubs", clock.now_us, clock.now_s)
    for _ in range(2):
        link.lost(CUT, 1.0)
        clock.at_s += 10
        clock.set_by_s += step_s
        assert clock.now_us() - link.since_us == 10_000_000
        clock.at_s += 20
        link.acknowledged(5)
        clock.set_by_s -= step_s // 2
        clock.at_s += LOG_EVERY_S
    told = [record.getMessage() for record in caplog.records]
    assert [text for text in told if "back" in text] == ["bridge: link back after 30 s, 5 readings to send"] * 2
    assert len(told) == 4 and "short breaks" not in "".join(told)
    assert clock.now_us() - link.since_us == LOG_EVERY_S * 1_000_000


def test_pauses_stay_within_the_cap_for_ever() -> None:
    backoff = Backoff(random.Random(3))
    pauses = [backoff.pause_s(0.0) for _ in range(5_000)]
    assert max(pauses) <= 60.0
    assert min(pauses[10:]) >= 30.0
