"""Which floats are decimals: 20.125 is 20125 divided by 10^3, and that division gives exactly this double again."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from appliance.contract.planes import Groups, Ints

Floats: TypeAlias = NDArray[np.float64]
PLACES_MAX = 13
BITS = -1
"""Instead of a number of decimals: the double's own bits."""
_NONE = PLACES_MAX + 1
_POWERS = np.array([1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13])


def places_of(ordered: Floats, groups: Groups) -> Ints:
    """For each group the decimals that all its floats have at most, or `BITS` when these take less or nothing fits."""
    firsts = _places(ordered[groups.starts])
    if (firsts == _NONE).all():
        return np.full(len(firsts), BITS, np.int64)
    is_likely = np.repeat(firsts != _NONE, groups.counts)
    each = np.full(len(ordered), _NONE, np.int64)
    each[is_likely] = _places(ordered[is_likely])
    places = np.maximum.reduceat(each, groups.starts)
    power = _POWERS[np.minimum(np.repeat(places, groups.counts), PLACES_MAX)]
    is_exact, scaled = _scaled(ordered, power)
    fits = (places != _NONE) & np.logical_and.reduceat(is_exact, groups.starts)
    fits &= _widths(scaled, groups) <= _significant(ordered.view(np.int64), groups)
    return np.where(fits, places, BITS)


def to_ints(ordered: Floats, each: Ints) -> Ints:
    """Each float as an integer of so many decimals, or its bits."""
    is_decimal = each != BITS
    if not is_decimal.any():
        return ordered.view(np.int64)
    ints = ordered.view(np.int64).copy()
    ints[is_decimal] = _scaled(ordered[is_decimal], _POWERS[each[is_decimal]])[1]
    return ints


def to_floats(ints: Ints, each: Ints) -> Floats:
    """What `to_ints` was given; raises ValueError or IndexError for decimals that it cannot have said."""
    if each.min(initial=0) < BITS:
        raise ValueError("a number of decimals is negative")
    is_decimal = each != BITS
    floats = ints.view(np.float64)
    if is_decimal.any():
        floats = floats.copy()
        floats[is_decimal] = ints[is_decimal] / _POWERS[each[is_decimal]]
    return floats


def _places(values: Floats) -> Ints:
    is_exact, _ = _scaled(values[:, np.newaxis], _POWERS)
    return np.where(is_exact.any(axis=1), is_exact.argmax(axis=1), _NONE)


def _scaled(values: Floats, power: Floats) -> tuple[NDArray[np.bool_], Ints]:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(values * power).astype(np.int64)
    # The bits are compared, because -0.0 equals 0.0 and NaN equals nothing.
    return (scaled / power).view(np.int64) == values.view(np.int64), scaled


def _widths(scaled: Ints, groups: Groups) -> Floats:
    widest: Floats = np.maximum.reduceat(np.abs(scaled.astype(np.float64)), groups.starts)
    return np.asarray(np.log2(widest + 1), np.float64)


def _significant(bits: Ints, groups: Groups) -> Floats:
    """Bits of the mantissa that a group's doubles use: 24 for what was a float of 32 bits."""
    together = np.bitwise_or.reduceat(bits, groups.starts)
    lowest = np.maximum((together & -together).view(np.uint64), 1)
    return np.asarray(53 - np.log2(lowest), np.float64)
