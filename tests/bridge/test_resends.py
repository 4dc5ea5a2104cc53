"""What is to be sent again: what was acknowledged, once, beside the rest, and up to a bound."""

from appliance.bridge.resends import RESENDS_MAX, Resends
from appliance.contract.envelope import ENTRIES_MAX


def test_only_what_is_acknowledged_and_not_on_its_way_is_sent_again_and_once() -> None:
    """Asked for three times, in pieces that overlap; a part of it is on its way, and comes back."""
    resends, acknowledged = Resends(), [(1, 100), (201, 300)]
    for ranges in ([(10, 20), (15, 30)], [(90, 210)], [(12, 14)]):
        assert resends.ask(ranges, acknowledged) == ()
    assert resends.waiting == ((10, 30), (90, 100), (201, 210))
    resends.leave((10, 30))
    resends.ask([(1, 300)], [(1, 40)])
    assert resends.waiting == ((1, 9), (31, 40), (90, 100), (201, 210))
    resends.returned((10, 30))
    assert resends.waiting == ((1, 40), (90, 100), (201, 210))
    resends.leave((90, 100))
    resends.restart()
    assert (resends.waiting, resends.under_way) == (((1, 40), (90, 100), (201, 210)), ())
    assert resends.entries == 61


def test_every_other_turn_is_that_of_the_rest() -> None:
    """Beside a backlog one envelope in two is sent again; without one all are."""
    resends = Resends()
    resends.ask([(1, 100_000)], [(1, 100_000)])
    turns = [resends.next(has_rest=True) is not None for _ in range(6)]
    assert turns == [True, False] * 3
    assert [resends.next(has_rest=False) for _ in range(2)] == [(1, ENTRIES_MAX)] * 2


def test_there_is_a_bound() -> None:
    """Beyond it the last ones are given back to whoever asks."""
    resends, wanted = Resends(), [(10 * n, 10 * n) for n in range(1, RESENDS_MAX + 11)]
    beyond = resends.ask(wanted, [(1, 1_000_000)])
    assert len(resends.waiting) == RESENDS_MAX
    assert beyond == tuple(wanted[-10:])
