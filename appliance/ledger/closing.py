"""Closing: the accounts of one window, made of its pieces and what is known, and written down when it is settled."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from appliance.contract.ranges import Ranges, clipped, common, minus, normal, size, union
from appliance.ledger.accounts import UNKNOWN, Account, Fates, Split, Window, WindowState, digest_of, split, state_of
from appliance.ledger.pieces import Piece, Stretch, counted

_UNKNOWN_NUMBER: Final = 0


def numbers_of(pieces: Iterable[Piece]) -> Ranges:
    """All numbers of some pieces."""
    return normal((piece.first, piece.last) for piece in pieces)


def window(
    pieces: list[Piece],
    stretches: list[Stretch],
    names: Mapping[int, str],
    fates: Fates,
    *,
    is_said: bool,
) -> tuple[Window, Split]:
    """The account of the pieces of one window, as things stand."""
    numbers = numbers_of(pieces)
    parts = split(numbers, fates)
    is_differing = pieces[0].start_us in fates.differing
    fingerprint = sum(tally.fingerprint for piece in pieces for tally in piece.tallies.values())
    account = Window(
        pieces[0].epoch,
        pieces[0].start_us,
        numbers[0][0],
        numbers[-1][1],
        state_of(parts, is_differing=is_differing, is_said=is_said),
        is_differing,
        digest_of(fingerprint),
        parts.missing,
        _accounts(pieces, stretches, names, fates, parts),
    )
    return account, parts


def known(account: Window, numbers: Ranges, in_lake: Ranges, names: Mapping[int, str]) -> dict[str, Any]:
    """A window to be settled as JSON, for `recalled`."""
    number_of = {name: number for number, name in names.items()} | {UNKNOWN: _UNKNOWN_NUMBER}
    rows = [
        (number_of[one.equipment], one.produced, one.stored, one.sent, one.acknowledged, one.in_lake, dict(one.dropped))
        for one in account.accounts
    ]
    state, digest = account.state, account.digest
    return {"state": state, "digest": digest, "numbers": numbers, "in_lake": in_lake, "accounts": rows}


def joined(old: Mapping[str, Any], new: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """What is known of a window that was settled and got late entries, which are settled as well."""
    whole = recalled(0, 0, old, names, Fates()).plus(recalled(0, 0, new, names, Fates()))
    numbers, in_lake = [union(_ranges(old[name]), _ranges(new[name])) for name in ("numbers", "in_lake")]
    return known(whole, numbers, in_lake, names)


def recalled(epoch: int, start_us: int, known: Mapping[str, Any], names: Mapping[int, str], fates: Fates) -> Window:
    """A settled window: its account as it was closed, and what the newest receipt has against it."""
    numbers, in_lake = _ranges(known["numbers"]), _ranges(known["in_lake"])
    missing = gone(in_lake, fates)
    is_differing = start_us in fates.differing
    return Window(
        epoch,
        start_us,
        numbers[0][0],
        numbers[-1][1],
        WindowState.MISSING if missing or is_differing else WindowState(known["state"]),
        is_differing,
        known["digest"],
        missing,
        tuple(
            Account(names.get(number, UNKNOWN), produced, stored, sent, acknowledged, in_lake, dropped, missing=0)
            for number, produced, stored, sent, acknowledged, in_lake, dropped in known["accounts"]
        ),
    )


def gone(in_lake: Ranges, fates: Fates) -> Ranges:
    """What stood in the lake when a window was settled, and does not by the newest receipt."""
    return minus(clipped(in_lake, 0, fates.speaks_to), fates.held)


def _ranges(rows: Iterable[Iterable[int]]) -> Ranges:
    return tuple((first, last) for first, last in rows)


def _accounts(
    pieces: list[Piece], stretches: list[Stretch], names: Mapping[int, str], fates: Fates, parts: Split
) -> tuple[Account, ...]:
    numbers = numbers_of(pieces)
    acknowledged = union(common(numbers, fates.acknowledged), parts.in_lake)
    sets = {
        "produced": numbers,
        "stored": numbers_of(piece for piece in pieces if not piece.is_hole),
        "sent": union(common(numbers, fates.under_way), acknowledged),
        "acknowledged": acknowledged,
        "in_lake": parts.in_lake,
        "missing": parts.missing,
    }
    counts = {name: _by_equipment(pieces, stretches, ranges) for name, ranges in sets.items()}
    dropped = {reason: _by_equipment(pieces, stretches, ranges) for reason, ranges in parts.dropped.items()}
    return tuple(
        Account(
            equipment=names.get(number, UNKNOWN),
            dropped={reason: count for reason, by in dropped.items() if (count := by.get(number, 0))},
            **{name: by.get(number, 0) for name, by in counts.items()},
        )
        for number in sorted(counts["produced"], key=lambda number: names.get(number, UNKNOWN))
    )


def _by_equipment(pieces: list[Piece], stretches: list[Stretch], ranges: Ranges) -> dict[int, int]:
    total: dict[int, int] = {}
    for piece in pieces:
        if piece.is_hole:
            counts = {_UNKNOWN_NUMBER: size(clipped(ranges, piece.first, piece.last))}
        else:
            counts = counted(piece, ranges, [each for each in stretches if piece.first <= each.first <= piece.last])
        for number, count in counts.items():
            total[number] = total.get(number, 0) + count
    return total
