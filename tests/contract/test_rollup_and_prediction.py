"""Rollups merge in any order; predictions and alarms travel as entries of the log."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from appliance.contract.prediction import Alarm, AlarmState, Prediction, Sign
from appliance.contract.rollup import Rollup

points = st.lists(
    st.tuples(st.integers(-1000, 1000).map(float), st.integers(0, 50), st.booleans()), min_size=1, max_size=30
)


@given(points, st.randoms(use_true_random=False))
def test_any_order_of_merging_gives_the_same_rollup(values: list[tuple[float, int, bool]], random: object) -> None:
    """Late values, halves and shuffles end in one and the same rollup."""
    whole = reduce(Rollup.merge, [Rollup.of(*value) for value in values])
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    half = len(shuffled) // 2
    parts = [shuffled[:half], shuffled[half:]]
    merged = [reduce(Rollup.merge, [Rollup.of(*value) for value in part]) for part in parts if part]
    assert reduce(Rollup.merge, merged) == whole
    assert (whole.minimum, whole.maximum) == (min(v for v, *_ in values), max(v for v, *_ in values))
    assert (whole.count, whole.good) == (len(values), sum(good for *_, good in values))
    assert whole.first_us == min(at for _, at, _ in values)


def test_a_prediction_is_an_entry_and_back() -> None:
    """Nothing of a prediction is lost on its way through the log."""
    sign = Sign("vibration_de mean 10 min", "vibration_de", 6.8, "mm/s", 1.5, 3.5, 0.4)
    prediction = Prediction("a/b/c/d/e/f", 60_000_000, 0.71, 86_400, 14_400, None, 38, "m 1", "bearing wear", (sign,))
    entry = prediction.entry(arrival_us=99)
    assert (entry.topic, entry.origin, entry.source_us) == ("a/b/c/d/e/f/_prediction", "prediction", 60_000_000)
    assert Prediction.from_entry(entry) == prediction


def test_an_alarm_is_an_entry_and_back() -> None:
    """Nothing of an alarm is lost on its way through the log."""
    alarm = Alarm("a/b/c/d/e/f", "limit/x", AlarmState.RAISED, 1, "x above 6.3", 6.84, 6.3, 5, 5)
    assert alarm.entry(9).topic == "a/b/c/d/e/f/_alarm"
    assert Alarm.from_entry(alarm.entry(9)) == alarm
