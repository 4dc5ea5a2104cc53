"""Entries as typed columns in JSON: how envelopes carried them before columns were packed, and the rare ones still do.

A column whose values are all equal is written as that one value. Times are deltas: `source` and
`arrival` to the entry before, `server` to the entry's own source time. Values stand in one list per type,
and `kind` says entry by entry which list is next: f(loat), i(nteger), b(oolean), t(ext), n(ull).
"""

import json
import math
from collections.abc import Sequence
from itertools import accumulate, pairwise, repeat
from typing import Any

from appliance.contract.reading import INT64_MAX, INT64_MIN, Reading, Value

_KINDS: dict[type, str] = {float: "f", int: "i", bool: "b", str: "t", type(None): "n"}
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class ColumnsError(ValueError):
    """Columns that do not hold what they must."""


def to_columns(entries: Sequence[Reading]) -> dict[str, Any]:
    """The columns of at least one entry, ready for JSON; raises TypeError for a value of no known type."""
    topics, values, qualities, sources, servers, arrivals, origins = zip(*entries, strict=True)
    return {
        "count": len(entries),
        "topic": _dictionary(topics),
        "origin": _dictionary(origins),
        "quality": _constant(list(map(int, qualities))),
        "source": _deltas(sources),
        "server": _constant([server - source for server, source in zip(servers, sources, strict=True)]),
        "arrival": _deltas(arrivals),
        **_typed(values),
    }


def from_columns(columns: dict[str, Any]) -> list[Reading]:
    """The entries again, equal to those that went in; raises `ColumnsError` when the columns disagree."""
    try:
        count = columns["count"]
        sources = _sums(columns["source"], count)
        server_lags = _spread(columns["server"], count)
        return list(
            map(
                Reading,
                _looked_up(columns["topic"], count),
                _values(columns, count),
                _spread(columns["quality"], count),
                sources,
                [source + lag for source, lag in zip(sources, server_lags, strict=True)],
                _sums(columns["arrival"], count),
                _looked_up(columns["origin"], count),
            )
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ColumnsError(f"the columns do not fit together: {error!r}") from error


def encode(entries: Sequence[Reading]) -> bytes:
    """The columns as JSON text in bytes."""
    return dumps(to_columns(entries))


def decode(text: bytes) -> list[Reading]:
    """The entries of `encode`d bytes."""
    return from_columns(json.loads(text))


def dumps(document: dict[str, Any]) -> bytes:
    """Compact JSON, plain ASCII, without the NaN tokens that are not JSON."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")


def _constant(column: list[int]) -> int | list[int]:
    first = column[0]
    return first if column.count(first) == len(column) else column


def _spread(column: int | list[int], count: int) -> list[int]:
    if isinstance(column, int):
        return [column] * count
    if len(column) != count:
        raise ColumnsError(f"a column has {len(column)} values, {count} were promised")
    return column


def _dictionary(texts: Sequence[str]) -> list[Any]:
    index = {text: position for position, text in enumerate(dict.fromkeys(texts))}
    return [list(index), _constant([index[text] for text in texts])]


def _looked_up(column: list[Any], count: int) -> list[str]:
    texts, positions = column
    if positions and isinstance(positions, list) and min(positions) < 0:
        raise ColumnsError("a position in a dictionary is negative")
    return [texts[position] for position in _spread(positions, count)]


def _deltas(times: Sequence[int]) -> list[Any]:
    rest = [later - earlier for earlier, later in pairwise(times)]
    return [times[0], _constant(rest) if rest else []]


def _sums(column: list[Any], count: int) -> list[int]:
    first, deltas = column
    return list(accumulate(_spread(deltas, count - 1), initial=first))


def _typed(values: Sequence[Value]) -> dict[str, Any]:
    try:
        kinds = [_KINDS[type(value)] for value in values]
    except KeyError as error:
        raise TypeError(f"a value is of {error.args[0]}; the log keeps bool, int, float, str and None") from None
    columns: dict[str, Any] = {"kind": kinds[0] if kinds.count(kinds[0]) == len(kinds) else "".join(kinds)}
    for kind in set(kinds) - {"n"}:
        of_kind: list[Any] = [value for value, its in zip(values, kinds, strict=True) if its == kind]
        if kind == "f":
            of_kind = of_kind if math.isfinite(math.fsum(map(abs, of_kind))) else list(map(_finite, of_kind))
        elif kind == "i" and not (INT64_MIN <= min(of_kind) and max(of_kind) <= INT64_MAX):
            raise TypeError("an integer is wider than 64 bits; pass it through storable()")
        columns[kind] = of_kind
    return columns


def _finite(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _values(columns: dict[str, Any], count: int) -> list[Value]:
    kinds = columns["kind"]
    if len(kinds) == 1 and kinds != "n":
        values = _of_kind(columns, kinds)
        if len(values) != count:
            raise ColumnsError(f"there are {len(values)} values, {count} were promised")
        return values
    kinds = kinds * count if len(kinds) == 1 else kinds
    if len(kinds) != count:
        raise ColumnsError(f"there are {len(kinds)} kinds, {count} were promised")
    nexts = {kind: iter(_of_kind(columns, kind)) for kind in set(kinds) - {"n"}}
    nexts["n"] = repeat(None)
    return [next(nexts[kind]) for kind in kinds]


def _of_kind(columns: dict[str, Any], kind: str) -> list[Value]:
    values = columns[kind]
    if kind == "f":
        return [_NON_FINITE[value] if type(value) is str else float(value) for value in values]
    return list(values)
