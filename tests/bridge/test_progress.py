"""Progress: whatever the order of plans and acknowledgements, each number is in exactly one plan."""

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.bridge.progress import AHEAD_MAX, LIVE_ENTRIES_MAX, Plan, Progress
from appliance.contract.envelope import ENTRIES_MAX, Lane


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_number_is_planned_once_and_the_rest_survives_a_restart(data: st.DataObject) -> None:
    """Arrivals, lanes, acknowledgements, restarts in any order: plans never overlap, and none is missing."""
    progress, last, plans = Progress(), 0, list[Plan]()

    def plan(lane: Lane) -> bool:
        wanted = progress.newest(last) if lane is Lane.LIVE else progress.oldest()
        if wanted is None:
            return False
        plans.append(Plan(*wanted, lane))
        progress.plan(plans[-1])
        return True

    for step in data.draw(st.lists(st.sampled_from("arrive live backlog acknowledge restart".split()), max_size=60)):
        if step == "arrive":
            last += data.draw(st.integers(1, 3 * LIVE_ENTRIES_MAX))
        elif step == "acknowledge" and progress.planned:
            progress.acknowledge(data.draw(st.sampled_from(progress.planned)))
        elif step == "restart":
            progress = Progress.from_state(progress.floor, progress.to_state(7), 7)
        elif step in ("live", "backlog"):
            plan(Lane(step))
        assert 0 <= progress.waiting(last) <= last - progress.floor
    while plan(Lane.BACKLOG) or plan(Lane.LIVE):
        assert all(1 <= one.last - one.first + 1 <= ENTRIES_MAX for one in plans)
    numbers = [number for one in sorted(plans) for number in (one.first, one.last)]
    assert numbers == sorted(numbers)
    assert sum(one.last - one.first + 1 for one in plans) == last
    for one in list(progress.planned):
        progress.acknowledge(one)
    assert (progress.floor, progress.ahead, progress.waiting(last)) == (last, (), 0)


def test_a_live_lane_far_behind_jumps_and_at_the_bound_goes_on_in_order() -> None:
    """Each jump leaves a hole; so many are remembered, and beyond that nothing is lost but freshness."""
    progress, last = Progress(), 0
    for _ in range(2 * AHEAD_MAX):
        last += LIVE_ENTRIES_MAX + 1
        wanted = progress.newest(last)
        assert wanted is not None
        progress.plan(Plan(*wanted, Lane.LIVE))
        progress.acknowledge(progress.planned[-1])
    assert len(progress.ahead) == AHEAD_MAX
    assert progress.newest(last) == (progress.frontier + 1, progress.frontier + ENTRIES_MAX)
    assert len(progress.to_state(7)) < 8_000


def test_a_state_of_another_epoch_or_version_is_passed_over() -> None:
    """The floor stands in the cursor; the rest is sent again, and the cloud counts it once."""
    state = Progress(3, [(10, 20)], [Plan(21, 22, Lane.LIVE)]).to_state(7)
    assert Progress.from_state(3, state, 7).frontier == 22
    for bad in (state.replace("live", "fast"), "{", "[]", '{"epoch": 7, "ends": [5]}', ""):
        assert Progress.from_state(3, bad, 7).frontier == 3
    assert Progress.from_state(3, state, 8).frontier == 3
