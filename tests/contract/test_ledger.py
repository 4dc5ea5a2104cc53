"""Counts and fingerprints: additive, sensitive to every field, the same in rows and in columns."""

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.contract.ledger import (
    Tally,
    WindowTally,
    equipment_of_any,
    fingerprints,
    ledger_topic,
    tallies,
    window_of,
)
from appliance.contract.reading import Quality, Reading, Stream
from appliance.contract.receipt import Receipt, ReceiptError

VALUES = st.one_of(
    st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text(max_size=5), st.none()
)  # fmt: skip
ENTRIES = st.lists(
    st.builds(
        Reading,
        st.sampled_from([f"a/b/c/d/e/m{n}/t{n % 2}" for n in range(4)]),
        VALUES,
        st.sampled_from([0, 64, 192]),
        st.integers(-(2**70), 2**70),
        st.just(0),
        st.integers(0, 2**50),
        st.just("x"),
    ),
    min_size=1,
    max_size=30,
)


def _sum(parts: Sequence[dict[str, Tally]]) -> dict[str, Tally]:
    names = {name for part in parts for name in part}
    return {name: reduce(Tally.plus, [part.get(name, Tally()) for part in parts]) for name in names}


@given(ENTRIES, st.integers(1, 2**60), st.integers(0, 30))
def test_pieces_add_up_to_the_whole(entries: list[Reading], first: int, cut: int) -> None:
    """However the plant and the cloud come by the entries, the sums are the same."""
    cut = min(cut, len(entries))
    parts = [tallies(first, entries[:cut]), tallies(first + cut, entries[cut:])]
    assert _sum(parts) == tallies(first, entries)
    assert sum(tally.entries for tally in tallies(first, entries).values()) == len(entries)


@pytest.mark.parametrize(
    "other",
    [
        Reading("a/b/c/d/e/f/h", 1.0, Quality.GOOD, 5, 5, 5, "x"),
        Reading("a/b/c/d/e/f/g", 1.0000000000000002, Quality.GOOD, 5, 5, 5, "x"),
        Reading("a/b/c/d/e/f/g", 1, Quality.GOOD, 5, 5, 5, "x"),
        Reading("a/b/c/d/e/f/g", True, Quality.GOOD, 5, 5, 5, "x"),
        Reading("a/b/c/d/e/f/g", "1.0", Quality.GOOD, 5, 5, 5, "x"),
        Reading("a/b/c/d/e/f/g", None, Quality.GOOD, 5, 5, 5, "x"),
        Reading("a/b/c/d/e/f/g", 1.0, Quality.BAD, 5, 5, 5, "x"),
        Reading("a/b/c/d/e/f/g", 1.0, Quality.GOOD, 6, 5, 5, "x"),
    ],
    ids=["topic", "value", "int", "bool", "text", "null", "quality", "time"],
)
def test_what_an_entry_says_changes_its_mark(other: Reading) -> None:
    """A changed topic, value, type, quality or time does not go unnoticed; nor does a changed number."""
    one = Reading("a/b/c/d/e/f/g", 1.0, Quality.GOOD, 5, 5, 5, "x")
    assert fingerprints(7, [one])[0] != fingerprints(7, [other])[0]
    assert fingerprints(7, [one])[0] != fingerprints(8, [one])[0]


def test_marks_do_not_depend_on_the_neighbours() -> None:
    """A float among texts has the mark it has among floats; NaNs are one, and the zeros are two."""
    entries = [Reading("t", value, 192, 1, 1, 1, "") for value in (1.5, math.nan, -0.0, 0.0, "text")]
    mixed, alone = fingerprints(1, entries), fingerprints(1, entries[:4])
    assert np.array_equal(mixed[:4], alone)
    assert len(set(map(int, alone))) == 4


def test_whose_entry_it_is() -> None:
    """Six levels are the equipment; shorter topics belong to what stands before their last level."""
    assert equipment_of_any("a/b/c/d/e/f/g/h") == "a/b/c/d/e/f"
    assert (equipment_of_any("a/b"), equipment_of_any("a")) == ("a", "a")
    assert window_of(299_999_999) == 0 and window_of(300_000_000) == 300_000_000 and window_of(-1) == -300_000_000


def test_a_window_is_an_entry_and_back() -> None:
    """Nothing of a window is lost on its way through the log."""
    window = WindowTally(7, 300_000_000, 11, 15, {"a/b/c/d/e/f": Tally(5, 2**64 - 1)})
    entry = window.entry(ledger_topic("acme", "north"), 9)
    assert WindowTally.from_entry(entry) == window
    assert len(entry.topic.split("/")) == 7


@given(st.lists(st.integers(1, 10), max_size=20))
def test_a_receipt_is_a_body_and_back(steps: list[int]) -> None:
    """What the cloud says arrives as it was said."""
    held, at = [], 0
    for step in steps:
        held.append((at + 1 + step, at + 2 * step + 1))
        at = held[-1][1]
    receipt = Receipt("north", 7, Stream.READINGS, 5, 3, at, tuple(held), (300_000_000,))
    assert Receipt.from_body(receipt.to_body()) == receipt


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b"\xff", b'{"schema":"plantward.receipt/2"}',
        Receipt("n", 1, Stream.EVENTS, 1, 0, 9, ((5, 9), (1, 3))).to_body(),
        Receipt("n", 1, Stream.EVENTS, 1, 0, 9, ((1, 5), (5, 9))).to_body(),
        Receipt("n", 1, Stream.EVENTS, 1, 0, 9, ((5, 1),)).to_body(),
    ],
)  # fmt: skip
def test_what_is_no_receipt_is_refused(body: bytes) -> None:
    """Garbage on the hub moves nothing."""
    with pytest.raises(ReceiptError):
        Receipt.from_body(body)
