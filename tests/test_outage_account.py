"""The account that judges the outages: it notices each thing that must never happen."""

import pytest
from chaos.account import Balance, Row, balance
from chaos.publisher import START_US, Diary, Published

from appliance.contract.gap import Gap, GapReason
from appliance.contract.reading import Stream, Value

TOPIC = "acme/northfield/hall/line-1/cell/pmp-1/flow"
VALUES: tuple[Value, ...] = (1.5, -3, True, "é", None)


def diary(count: int = 20, silent: frozenset[int] = frozenset()) -> Diary:
    published = [Published(TOPIC, VALUES[n % 5], 192, START_US + n) for n in range(count)]
    return Diary(published, set(range(count)) - silent)


def silver(of: Diary, *without: int, epoch: int = 1) -> list[Row]:
    return [
        Row(epoch, n + 1, one.topic, one.source_us, one.value, one.quality)
        for n, one in enumerate(of.published)
        if n + 1 not in without
    ]


def gap(first: int, last: int, unread: int | None = None, reason: GapReason = GapReason.SIZE, epoch: int = 1) -> Gap:
    count = last - first + 1
    return Gap(epoch, Stream.READINGS, first, last, count, count if unread is None else unread, reason, (), 0, 0, 0)


def faults(found: Balance) -> str:
    return "\n".join(found.faults)


def test_a_plant_that_lost_nothing_balances() -> None:
    of = diary()
    assert balance(of, silver(of), [], {1: 20}) == Balance(20, 20, 20, 0, 0, ())


def test_what_was_never_acknowledged_may_be_there_or_not() -> None:
    of = diary(silent=frozenset({18, 19}))
    assert balance(of, silver(of, 19, 20), [], {1: 18}).faults == ()
    assert balance(of, silver(of), [], {1: 20}).faults == ()


def test_a_lost_reading_is_noticed() -> None:
    """Also when its number was given to another: then there is no hole, and the reading is lost all the same."""
    of = diary()
    assert "1 acknowledged readings are lost" in faults(balance(of, silver(of, 7), [], {1: 20}))
    shifted = [row if row.seq < 7 else row._replace(seq=row.seq - 1) for row in silver(of, 7)]
    found = faults(balance(of, shifted, [], {1: 19}))
    assert "1 acknowledged readings are lost" in found
    assert "hole" not in found
    assert "1 acknowledged readings are lost" in faults(balance(of, silver(of, 20), [], {1: 19}))


def test_a_doubled_reading_is_noticed() -> None:
    """Under the same number, under another, and under another epoch."""
    of = diary()
    rows = silver(of)
    assert "1 numbers stand twice" in faults(balance(of, [*rows, rows[3]], [], {1: 20}))
    for other in (rows[3]._replace(seq=21), rows[3]._replace(epoch=2, seq=1)):
        assert "1 readings stand twice" in faults(balance(of, [*rows, other], [], {1: 21}))


@pytest.mark.parametrize(
    "change", [{"value": 1.5000001}, {"value": "1.5"}, {"quality": 0}, {"topic": TOPIC + "2"}], ids=str
)
def test_a_changed_reading_is_noticed(change: dict[str, object]) -> None:
    of = diary()
    rows = silver(of)
    rows[0] = rows[0]._replace(**change)  # type: ignore[arg-type]
    assert "1 readings have another content" in faults(balance(of, rows, [], {1: 20}))


def test_an_unexplained_hole_is_noticed() -> None:
    """Even when nobody had been promised what should stand there."""
    of = diary(silent=frozenset({6}))
    assert "1 unexplained holes: [7]" in faults(balance(of, silver(of, 7), [], {1: 20}))
    assert "1 unexplained holes: [21]" in faults(balance(of, silver(of), [], {1: 21}))


def test_a_number_beyond_the_newest_is_noticed() -> None:
    of = diary()
    assert "numbers above the newest, 19: [20]" in faults(balance(of, silver(of), [], {1: 19}))


def test_a_reading_that_nobody_published_is_noticed() -> None:
    of = diary()
    foreign = Row(1, 21, TOPIC, START_US + 99, 1.0, 192)
    assert "1 readings that nobody published" in faults(balance(of, [*silver(of), foreign], [], {1: 21}))


def test_readings_out_of_order_are_noticed() -> None:
    of = diary()
    rows = silver(of)
    rows[3], rows[4] = rows[3]._replace(seq=5), rows[4]._replace(seq=4)
    assert "1 readings out of order" in faults(balance(of, rows, [], {1: 20}))


def test_a_gap_explains_what_it_names_and_nothing_else() -> None:
    of = diary()
    found = balance(of, silver(of, 7, 8), [gap(6, 8, unread=2)], {1: 20})
    assert (found.faults, found.gaps, found.lost) == ((), 2, 2)
    assert "lost" in faults(balance(of, silver(of, 7, 12), [gap(6, 8)], {1: 20}))
    assert "2 missing, it says 1" in faults(balance(of, silver(of, 7, 8), [gap(6, 8, unread=1)], {1: 20}))


def test_an_epoch_that_was_given_up_is_looked_for_by_content() -> None:
    """Ten were sent, five were lost with their gap, five came over to a new epoch under new numbers."""
    of = diary()
    old = silver(of)[:10]
    new = [row._replace(epoch=2, seq=row.seq - 5) for row in silver(of)[15:]]
    carried, damaged = gap(1, 10, 0, GapReason.CARRIED, epoch=2), gap(11, 15, 0, GapReason.DAMAGED)
    found = balance(of, [*old, *new], [carried, damaged], {2: 15})
    assert (found.faults, found.lost) == ((), 5)
    assert "lost" in faults(balance(of, [*old, *new], [carried], {2: 15}))
    assert "10 are said to stand in the epoch before, 9 do" in faults(
        balance(of, [*old[1:], *new], [carried, damaged], {2: 15})
    )


def test_a_gap_of_an_old_epoch_explains_what_lay_between_readings_that_were_renumbered() -> None:
    """Ten were sent; of the ten that were not, three were damaged in their midst, under the old numbers 14 to 16."""
    of = diary()
    old, rest = silver(of)[:10], [row for row in silver(of)[10:] if not 14 <= row.seq <= 16]
    new = [row._replace(epoch=2, seq=number) for number, row in enumerate(rest, 1)]
    damaged = gap(14, 16, 0, GapReason.DAMAGED)
    found = balance(of, [*old, *new], [damaged], {2: 7})
    assert (found.faults, found.lost) == ((), 3)
    assert "1 acknowledged readings are lost" in faults(balance(of, [*old, *new[:-1]], [damaged], {2: 6}))
