"""The pace: shares of the lanes, throughput units, and the forecast."""

import pytest

from appliance.bridge.pacing import Forecast, Shares, Throughput
from appliance.contract.envelope import Lane


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_a_waiting_backlog_gets_its_share_of_the_bytes(share: float) -> None:
    """Both lanes always wait, with envelopes of different sizes: the bytes part as configured, events aside."""
    shares, sent = Shares(share), {Lane.LIVE: 0, Lane.BACKLOG: 0}
    sizes = {Lane.LIVE: 7_000, Lane.BACKLOG: 23_000}
    for _ in range(2_000):
        assert shares.order()[0] is Lane.EVENTS
        lane = shares.order()[1]
        shares.sent(lane, sizes[lane], is_contended=True)
        shares.sent(Lane.EVENTS, 900, is_contended=True)
        sent[lane] += sizes[lane]
    assert sent[Lane.BACKLOG] / sum(sent.values()) == pytest.approx(share, abs=0.01)


def test_what_a_lane_sends_while_the_other_is_empty_is_nobodys_debt() -> None:
    shares = Shares(0.5)
    for _ in range(100):
        shares.sent(Lane.BACKLOG, 200_000, is_contended=False)
    shares.sent(Lane.LIVE, 100, is_contended=True)
    assert shares.order()[1] is Lane.BACKLOG


@pytest.mark.parametrize(("units", "body_bytes", "per_s"), [(1, 199_488, 5), (2, 199_488, 10), (1, 100, 1_000)])
def test_throughput_units_bound_bytes_and_events(units: float, body_bytes: int, per_s: float) -> None:
    """Ten seconds of sending as fast as allowed: large envelopes are bounded by bytes, small ones by number."""
    now_s, count, bucket = 100.0, 0, Throughput(units, 100.0)
    while now_s < 110.0:
        if wait_s := bucket.wait_s(now_s):
            now_s += wait_s
        else:
            bucket.take(body_bytes)
            count += 1
    assert 10 * per_s <= count <= 10.5 * per_s + 2  # Half a second's worth is saved up at the start.


def test_without_units_nothing_waits() -> None:
    bucket = Throughput(0, 0.0)
    for _ in range(10_000):
        bucket.take(1_000_000)
        assert bucket.wait_s(0.0) == 0.0


def test_the_forecast_follows_the_last_minute() -> None:
    """10,000 less each second: 100,000 take ten more; a backlog that grows or stands has no end in sight."""
    forecast = Forecast()
    assert forecast.drain_s(0.0, 5) is None
    for second in range(200):
        forecast.saw(float(second), 2_100_000 - 10_000 * second)
    assert forecast.drain_s(200.0, 100_000) == pytest.approx(10.0)
    assert forecast.drain_s(200.0, 0) == 0.0
    assert forecast.drain_s(200.0, 3_000_000) is None
    assert forecast.drain_s(300.0, 100_000) is None
