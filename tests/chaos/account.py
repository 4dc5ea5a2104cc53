"""The account of a plant: what was promised to its machines against what stands in silver and what gaps explain.

Pure: it gets what the publisher noted, the rows of silver, the gaps and the newest number of the log, and names
every fault it finds.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final, NamedTuple

from chaos.publisher import Diary, Published

from appliance.contract.gap import Gap, GapReason
from appliance.contract.ledger import fingerprints
from appliance.contract.reading import Reading, Stream, Value

NAMED_MAX: Final = 5
"""Examples in the text of one fault."""
_DROPPED: Final = (GapReason.SIZE, GapReason.AGE, GapReason.DISK)


class Row(NamedTuple):
    """One reading in silver."""

    epoch: int
    seq: int
    topic: str
    source_us: int
    value: Value
    quality: int


@dataclass(frozen=True, slots=True)
class Balance:
    """The account's sums, and what is wrong with it; nothing is, when `faults` is empty."""

    published: int
    acknowledged: int
    in_silver: int
    gaps: int
    """Numbers that are not in silver and that gaps explain."""
    lost: int
    """Acknowledged readings that are not in silver, explained or not."""
    faults: tuple[str, ...]


def balance(diary: Diary, rows: Sequence[Row], gaps: Sequence[Gap], lasts: Mapping[int, int]) -> Balance:
    """Close the account; `lasts` has the newest number of the epoch that is open.

    Numbers of an epoch that was given up for damage may be anywhere: its readings are looked for by their content.
    """
    readings = [gap for gap in gaps if gap.stream is Stream.READINGS]
    numbers = {epoch: sorted(row.seq for row in group) for epoch, group in _by_epoch(rows)}
    published = list(diary.published)
    acknowledged = set(diary.acknowledged)
    missing = _missing(published, acknowledged, rows)
    explained = {
        epoch: _explained(readings, epoch, numbers.get(epoch, [])) for epoch in {gap.epoch for gap in readings}
    }
    faults = [
        *_doubled(rows),
        *_foreign(published, rows),
        *_changed(published, rows),
        *_disordered(rows),
        *_holes(numbers, explained, readings, lasts),
        *_understated(readings, numbers),
        *_uncarried(readings, numbers),
        *_lost(published, missing, rows, explained, lasts),
    ]
    left = sum(len(found) for found in explained.values())
    return Balance(len(published), len(acknowledged), len(rows), left, len(missing), tuple(faults))


def _by_epoch(rows: Sequence[Row]) -> Iterable[tuple[int, Iterable[Row]]]:
    return groupby(sorted(rows, key=lambda row: (row.epoch, row.seq)), lambda row: row.epoch)


def _missing(published: Sequence[Published], acknowledged: Iterable[int], rows: Sequence[Row]) -> list[int]:
    there = {row.source_us for row in rows}
    return sorted(place for place in acknowledged if published[place].source_us not in there)


def _explained(gaps: Sequence[Gap], epoch: int, numbers: Sequence[int]) -> list[int]:
    """The numbers of an epoch that are not in silver and that gaps name as gone."""
    there = set(numbers)
    named: set[int] = set()
    for gap in gaps:
        if gap.epoch == epoch and gap.reason is not GapReason.CARRIED:
            named.update(range(gap.first, gap.last + 1))
    return sorted(named - there)


def _doubled(rows: Sequence[Row]) -> list[str]:
    numbers = _twice((row.epoch, row.seq) for row in rows)
    readings = _twice(row.source_us for row in rows)
    faults = [f"{len(numbers)} numbers stand twice: {numbers[:NAMED_MAX]}"] if numbers else []
    if readings:
        where = [(row.epoch, row.seq) for row in rows if row.source_us == readings[0]]
        faults.append(f"{len(readings)} readings stand twice, one of them as {where}")
    return faults


def _twice(keys: Iterable[object]) -> list[object]:
    return [key for key, count in Counter(keys).items() if count > 1]


def _foreign(published: Sequence[Published], rows: Sequence[Row]) -> list[str]:
    known = {one.source_us for one in published}
    foreign = [(row.epoch, row.seq) for row in rows if row.source_us not in known]
    return [f"{len(foreign)} readings that nobody published: {foreign[:NAMED_MAX]}"] if foreign else []


def _changed(published: Sequence[Published], rows: Sequence[Row]) -> list[str]:
    """The fingerprints of what stands in silver against those of what was published, under silver's numbers."""
    said = {one.source_us: one for one in published}
    differing = []
    for run in _runs([row for row in rows if row.source_us in said]):
        here = fingerprints(run[0].seq, [_reading(row.topic, row.value, row.quality, row.source_us) for row in run])
        ours = [said[row.source_us] for row in run]
        there = fingerprints(run[0].seq, [_reading(one.topic, one.value, one.quality, one.source_us) for one in ours])
        differing += [(row.epoch, row.seq) for row, a, b in zip(run, here, there, strict=True) if a != b]
    return [f"{len(differing)} readings have another content: {differing[:NAMED_MAX]}"] if differing else []


def _runs(rows: Sequence[Row]) -> list[list[Row]]:
    runs: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (row.epoch, row.seq)):
        if runs and (runs[-1][-1].epoch, runs[-1][-1].seq + 1) == (row.epoch, row.seq):
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def _reading(topic: str, value: Value, quality: int, source_us: int) -> Reading:
    return Reading(topic, value, quality, source_us, source_us, source_us, "")


def _disordered(rows: Sequence[Row]) -> list[str]:
    """The one publisher's readings have rising numbers, whatever the clock did."""
    faults = []
    for epoch, group in _by_epoch(rows):
        ordered = list(group)
        wrong = [b.seq for a, b in pairwise(ordered) if b.source_us < a.source_us]
        faults += [f"epoch {epoch}: {len(wrong)} readings out of order: {wrong[:NAMED_MAX]}"] if wrong else []
    return faults


def _holes(
    numbers: Mapping[int, Sequence[int]],
    explained: Mapping[int, Sequence[int]],
    gaps: Sequence[Gap],
    lasts: Mapping[int, int],
) -> list[str]:
    faults = []
    for epoch, last in lasts.items():
        there = {*numbers.get(epoch, ()), *explained.get(epoch, ())}
        for gap in gaps:
            if gap.epoch == epoch and gap.reason is GapReason.CARRIED:
                there.update(range(gap.first, gap.last + 1))
        holes = sorted(set(range(1, last + 1)) - there)
        beyond = sorted(number for number in there if number > last)
        faults += [f"epoch {epoch}: {len(holes)} unexplained holes: {holes[:NAMED_MAX]}"] if holes else []
        faults += [f"epoch {epoch}: numbers above the newest, {last}: {beyond[:NAMED_MAX]}"] if beyond else []
    return faults


def _understated(gaps: Sequence[Gap], numbers: Mapping[int, Sequence[int]]) -> list[str]:
    """A gap says how many entries some follower had not yet taken: no more than those may be missing."""
    faults = []
    for gap in gaps:
        if gap.reason in _DROPPED:
            here = _within(numbers.get(gap.epoch, ()), gap.first - 1, gap.last + 1)
            if gap.count - here > gap.unread:
                faults.append(f"gap {gap.first} to {gap.last}: {gap.count - here} missing, it says {gap.unread}")
    return faults


def _uncarried(gaps: Sequence[Gap], numbers: Mapping[int, Sequence[int]]) -> list[str]:
    """What a new epoch does not send again must stand in those before."""
    return [
        f"epoch {gap.epoch}: {gap.count} are said to stand in the epoch before, {before} do"
        for gap in gaps
        if gap.reason is GapReason.CARRIED
        and (before := sum(len(found) for epoch, found in numbers.items() if epoch < gap.epoch)) < gap.count
    ]


def _lost(
    published: Sequence[Published],
    missing: Sequence[int],
    rows: Sequence[Row],
    explained: Mapping[int, Sequence[int]],
    lasts: Mapping[int, int],
) -> list[str]:
    """Acknowledged readings between two that stand in silver may be missing only as far as gaps lie between them.

    A gap of an epoch that was given up names old numbers, while its neighbours may stand in silver under new ones:
    such a gap explains as many as it names, wherever they are, and each only once.
    """
    stands = {row.source_us: (row.epoch, row.seq) for row in rows}
    places = [place for place, one in enumerate(published) if one.source_us in stands]
    newest = max(lasts, default=0)
    spare = sum(len(found) for epoch, found in explained.items() if epoch < newest)
    unexplained = []
    for right, group in groupby(missing, lambda place: bisect_left(places, place)):
        run = list(group)
        low = stands[published[places[right - 1]].source_us] if right else (0, 0)
        high = stands[published[places[right]].source_us] if right < len(places) else _end(lasts, rows)
        left = len(run) - _between(explained.get(newest, ()), newest, low, high)
        taken = min(spare, max(0, left))
        spare -= taken
        if left > taken:
            unexplained.append((run[0], run[-1], left - taken))
    count = sum(one[2] for one in unexplained)
    text = f"{count} acknowledged readings are lost and no gap says so; first to last, how many: "
    return [f"{text}{unexplained[:NAMED_MAX]}"] if count else []


def _end(lasts: Mapping[int, int], rows: Sequence[Row]) -> tuple[int, int]:
    return max([(epoch, last + 1) for epoch, last in lasts.items()] or [(row.epoch, row.seq) for row in rows])


def _between(found: Sequence[int], epoch: int, low: tuple[int, int], high: tuple[int, int]) -> int:
    """How many of these numbers of an epoch lie strictly between two names."""
    if not low[0] <= epoch <= high[0]:
        return 0
    return _within(found, low[1] if epoch == low[0] else 0, high[1] if epoch == high[0] else 1 << 62)


def _within(ordered: Sequence[int], low: int, high: int) -> int:
    return max(0, bisect_left(ordered, high) - bisect_right(ordered, low))
