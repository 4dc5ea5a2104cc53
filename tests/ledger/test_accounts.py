"""Accounts: every number has exactly one fate, and the equipment's counts add up to the window's."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.contract.ledger import WINDOW_US
from appliance.contract.ranges import Ranges, normal, size, union
from appliance.contract.reading import Reading
from appliance.ledger import closing
from appliance.ledger.accounts import UNKNOWN, Fates, WindowState, split, state_of
from appliance.ledger.pieces import Equipment, Piece, Stretch, packed, pieces

NUMBERS_MAX = 60
SETS = st.sets(st.integers(1, NUMBERS_MAX))
START_US = WINDOW_US * 5_000


def ranges(numbers: set[int]) -> Ranges:
    return normal((number, number) for number in numbers)


def members(parts: Ranges) -> set[int]:
    return {number for first, last in parts for number in range(first, last + 1)}


FATES = st.builds(
    lambda acknowledged, under_way, held, lost, size_gap, carried: Fates(
        ranges(acknowledged),
        ranges(under_way),
        ranges(held),
        NUMBERS_MAX,
        ranges(lost),
        {"size": ranges(size_gap), "carried": ranges(carried)},
    ),
    *[SETS] * 6,
)


@given(SETS, FATES)
def test_every_number_has_one_fate(numbers: set[int], fates: Fates) -> None:
    """In the lake, missing, dropped or waiting: together they are all numbers, and no two hold the same one."""
    parts = split(ranges(numbers), fates)
    sets = [parts.in_lake, parts.missing, *parts.dropped.values(), parts.waiting]
    assert sum(map(size, sets)) == len(numbers)
    assert members(union(*sets)) == numbers
    state = state_of(parts, is_differing=False, is_said=True)
    assert (state is WindowState.GREEN) == (numbers <= members(fates.held))
    assert (state is WindowState.MISSING) == bool(parts.missing)
    assert state_of(parts, is_differing=True, is_said=True) is WindowState.MISSING


OWNERS = st.lists(st.integers(0, 3), min_size=1, max_size=NUMBERS_MAX - 10)


@given(OWNERS, st.integers(0, 9), st.integers(1, 20), FATES)
def test_accounts_add_up_for_any_part(owners: list[int], hole: int, cut: int, fates: Fates) -> None:
    """Each equipment's numbers are counted one by one, whatever part of a window they are, however it was gathered."""
    entries = [Reading(f"a/b/c/d/e/m{owner}/t", 1.0, 192, 0, 0, START_US, "") for owner in owners]
    equipment = Equipment({})
    kept, stretches = [Piece(1, START_US, 1, hole, is_hole=True)] if hole else [], []
    for at in range(0, len(entries), cut):
        for piece, whose in pieces(1, hole + 1 + at, entries[at : at + cut], equipment, 0):
            kept.append(piece)
            stretches.append(Stretch(piece.first, piece.last, packed(whose)))
    window, parts = closing.window(kept, stretches, equipment.names, fates, is_said=True)

    owner_of = {number: UNKNOWN for number in range(1, hole + 1)}
    owner_of |= {hole + 1 + place: f"a/b/c/d/e/m{owner}" for place, owner in enumerate(owners)}
    assert {account.equipment for account in window.accounts} == set(owner_of.values())
    acknowledged = members(fates.acknowledged) | members(fates.held)
    for account in window.accounts:
        mine = {number for number, name in owner_of.items() if name == account.equipment}
        assert account.produced == len(mine)
        assert account.stored == (0 if account.equipment == UNKNOWN else len(mine))
        assert account.in_lake == len(mine & members(fates.held))
        assert account.acknowledged == len(mine & acknowledged)
        assert account.sent == len(mine & (acknowledged | members(fates.under_way)))
        assert account.missing == len(mine & members(window.missing))
        assert dict(account.dropped) == {
            reason: count for reason, part in parts.dropped.items() if (count := len(mine & members(part)))
        }
        waiting = len(mine & members(parts.waiting))
        assert account.produced == account.in_lake + sum(account.dropped.values()) + account.missing + waiting


@given(OWNERS, FATES)
def test_a_settled_window_reads_as_it_was(owners: list[int], fates: Fates) -> None:
    """The row that takes the place of the pieces says the same; what the lake loses afterwards is named."""
    entries = [Reading(f"a/b/c/d/e/m{owner}/t", 1.0, 192, 0, 0, START_US, "") for owner in owners]
    equipment = Equipment({})
    ((piece, whose),) = pieces(1, 1, entries, equipment, 0)
    settled = Fates(fates.acknowledged, (), fates.held, NUMBERS_MAX, (), fates.dropped)
    window, parts = closing.window(
        [piece], [Stretch(1, len(entries), packed(whose))], equipment.names, settled, is_said=True
    )
    row = closing.known(window, ((1, len(entries)),), parts.in_lake, equipment.names)
    again = closing.recalled(1, START_US, row, equipment.names, settled)
    assert again == window

    emptied = closing.recalled(1, START_US, row, equipment.names, Fates(speaks_to=NUMBERS_MAX))
    assert emptied.missing == parts.in_lake
    assert (emptied.state is WindowState.MISSING) == bool(parts.in_lake)


def test_pieces_end_where_the_window_or_what_was_said_ends() -> None:
    """Two windows that come back and forth, and a cut behind the number that was said last."""
    at = [0, 0, 1, 1, 0, 0, 0]
    entries = [Reading("a/b/c/d/e/f/t", 1.0, 192, 0, 0, START_US + window * WINDOW_US, "") for window in at]
    found = [(piece.start_us, piece.first, piece.last) for piece, _ in pieces(1, 11, entries, Equipment({}), 15)]
    later = START_US + WINDOW_US
    assert found == [(START_US, 11, 12), (later, 13, 14), (START_US, 15, 15), (START_US, 16, 17)]
