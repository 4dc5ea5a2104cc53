"""Repeats: what a server tells again is dropped, what is new never."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.connectors.repeats import REPEATS_MAX, REWIND_US_MAX, Repeats
from appliance.contract.reading import Quality, Reading, Value

NOW_US = 1_800_000_000_000_000


def reading(at_us: int, value: Value = 1.0, quality: int = Quality.GOOD, topic: str = "t") -> Reading:
    return Reading(topic, value, quality, at_us, at_us, at_us, "opcua:boiler")


def taken(repeats: Repeats, *readings: Reading) -> list[Reading]:
    sifted = repeats.sift(readings)
    repeats.remember(sifted)
    return sifted.readings


def test_the_same_value_of_the_same_moment_is_taken_once() -> None:
    """Equal in time, value and quality: told again. A value that went bad at the same moment is news."""
    repeats = Repeats()
    good, bad = reading(NOW_US), reading(NOW_US, quality=Quality.BAD)
    assert taken(repeats, good, good) == [good]
    assert taken(repeats, good, bad) == [bad]
    assert taken(repeats, reading(NOW_US, value=True, quality=Quality.BAD)) == [reading(NOW_US, True, Quality.BAD)]


def test_nothing_is_remembered_before_the_commit() -> None:
    """The commit failed, so the same readings count as new when they come again."""
    repeats = Repeats()
    assert repeats.sift([reading(NOW_US)]).readings == [reading(NOW_US)]
    assert repeats.sift([reading(NOW_US)]).readings == [reading(NOW_US)]


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    """Without a new subscription older times are news; after one, times beyond the rewind are news as well."""
    repeats = Repeats()
    taken(repeats, reading(NOW_US))
    assert taken(repeats, reading(NOW_US - 5_000_000)) == [reading(NOW_US - 5_000_000)]
    taken(repeats, reading(NOW_US))
    repeats.expect(["t"])
    long_ago = NOW_US - REWIND_US_MAX - 1
    assert taken(repeats, reading(long_ago)) == [reading(long_ago)]


def test_the_patience_with_old_values_ends() -> None:
    """A tag that never catches up after a new subscription is heard again after `REPEATS_MAX` values."""
    repeats = Repeats()
    repeats.know({"t": NOW_US})
    repeats.expect(["t"])
    old = [reading(NOW_US - 1_000_000 + step) for step in range(REPEATS_MAX + 1)]
    assert taken(repeats, *old) == old[-1:]


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30), st.booleans())
def test_a_replay_from_anywhere_leaves_each_sample_once(first: int, back: int, more: int, restarted: bool) -> None:
    """However far a server goes back after a new subscription, the log has every sample once and in order."""
    samples = [reading(NOW_US + step * 1_000_000, float(step)) for step in range(first + 1 + more)]
    repeats = Repeats()
    log = taken(repeats, *samples[: first + 1])
    if restarted:
        repeats = Repeats()
        repeats.know({"t": log[-1].source_us})
    repeats.expect(["t"])
    log += taken(repeats, *samples[max(0, first - back) :])
    assert log == samples
