"""Curves for the page: the recent past of one topic in memory, and what is drawn of it."""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, TypeAlias

from appliance.contract.rollup import Rollup

MINUTE_US = 60_000_000
RAW_MAX = 600
"""Newest single values kept of a topic, for curves shorter than its minutes."""
GAP_STEPS = 5
"""A curve is cut where this many of its usual steps are missing."""
GAP_US_MIN = 30_000_000
GATHERED_MAX = 64
"""Values of one minute merged at once."""
POINTS_MIN, POINTS_MAX = 50, 4_000
SPARK_TENS_MIN = 24


class Past(Protocol):
    """What lies beyond the memory of the page: some rollups for each column of a curve, in order, and their span."""

    async def rollups(self, topic: str, start_us: int, end_us: int, columns: int) -> tuple[list[Rollup], int]: ...


Singles: TypeAlias = Callable[[str, int], Awaitable[list[tuple[int, float]]]]
"""Single values of a topic from a source time on, in order; fewer when that is too far back."""


@dataclass(slots=True)
class Level:
    """The past of one topic in spans of one length; the oldest spans go when there are too many."""

    span_us: int
    spans_max: int
    spans: dict[int, Rollup] = field(default_factory=dict)
    is_complete: bool = True
    """Nothing has been dropped yet."""

    def add(self, rollup: Rollup) -> int:
        """Merge into its span; gives how many spans there are more (or fewer) than before."""
        at = rollup.first_us // self.span_us
        known = self.spans.get(at)
        if known is not None:
            self.spans[at] = known.merge(rollup)
            return 0
        self.spans[at] = rollup
        return 1 - self.trim(self.spans_max)

    def trim(self, spans_max: int) -> int:
        """Drop the oldest spans beyond the limit; gives how many."""
        excess = len(self.spans) - spans_max
        if excess <= 0:
            return 0
        self.is_complete = False
        for at in sorted(self.spans)[:excess] if excess > 1 else [min(self.spans)]:
            del self.spans[at]
        return excess

    def between(self, start_us: int, end_us: int) -> list[Rollup]:
        first, last = start_us // self.span_us, end_us // self.span_us
        if last - first < 2 * len(self.spans):
            return [self.spans[at] for at in range(first, last + 1) if at in self.spans]
        return [self.spans[at] for at in sorted(self.spans) if first <= at <= last]


@dataclass(slots=True)
class History:
    """The recent past of one topic's finite numbers: single values, minutes of a day, ten minutes of a week.

    Values of one minute are gathered before they are merged: thousands come each second.
    """

    raw: deque[tuple[int, float]] | None
    minutes: Level = field(default_factory=lambda: Level(MINUTE_US, 1_440))
    tens: Level = field(default_factory=lambda: Level(10 * MINUTE_US, 1_008))
    _minute: int = 0
    _gathered: list[tuple[int, float, bool]] = field(default_factory=list)
    _grown: int = 0

    @classmethod
    def new(cls, with_raw: bool) -> "History":
        return cls(deque(maxlen=RAW_MAX) if with_raw else None)

    def add(self, value: float, at_us: int, is_good: bool) -> int:
        """Take in one finite value; gives how many spans the history has grown by since it last said so."""
        if self.raw is not None:
            self.raw.append((at_us, value))
        minute = at_us // MINUTE_US
        if minute != self._minute or len(self._gathered) >= GATHERED_MAX:
            self.settle()
            self._minute = minute
        self._gathered.append((at_us, value, is_good))
        grown, self._grown = self._grown, 0
        return grown

    def settle(self) -> None:
        """Merge what has been gathered."""
        if not self._gathered:
            return
        first_us, first, _ = min(self._gathered)
        last_us, last, _ = max(self._gathered)
        values = [value for _, value, _ in self._gathered]
        good = sum(is_good for _, _, is_good in self._gathered)
        total = sum(values)
        rollup = Rollup(min(values), max(values), total, len(values), good, first, first_us, last, last_us)
        self._grown += self.minutes.add(rollup) + self.tens.add(rollup)
        self._gathered.clear()

    def trim(self, spans_max: int) -> None:
        self.minutes.trim(spans_max // 2)
        self.tens.trim(spans_max // 2)

    @property
    def size(self) -> int:
        return len(self.minutes.spans) + len(self.tens.spans)

    @property
    def is_empty(self) -> bool:
        return not self._gathered and not self.minutes.spans

    def oldest_us(self) -> int | None:
        """Where memory begins; None when nothing is in it."""
        self.settle()
        spans = self.tens.spans
        return spans[min(spans)].first_us if spans else None

    def between(self, start_us: int, end_us: int) -> tuple[list[Rollup], int]:
        """The finest rollups that reach back to `start_us`, in order, and their span (0 for single values)."""
        self.settle()
        if self.raw and self._raw_reaches(start_us):
            inside = sorted(point for point in self.raw if start_us <= point[0] <= end_us)
            return [Rollup.of(value, at_us, True) for at_us, value in inside], 0
        level = self.minutes if self._minutes_reach(start_us) else self.tens
        return level.between(start_us, end_us), level.span_us

    def _raw_reaches(self, start_us: int) -> bool:
        assert self.raw is not None
        oldest = min(at_us for at_us, _ in self.raw)
        return oldest <= start_us or (len(self.raw) < RAW_MAX and self.minutes.is_complete)

    def _minutes_reach(self, start_us: int) -> bool:
        spans = self.minutes.spans
        return self.minutes.is_complete or (bool(spans) and min(spans) <= start_us // MINUTE_US)


@dataclass(frozen=True, slots=True)
class Curve:
    """What is drawn of a topic: points with None where data is missing, and those gaps by name."""

    start_us: int
    end_us: int
    times_us: tuple[int, ...]
    values: tuple[float | None, ...]
    gaps_us: tuple[tuple[int, int], ...]
    samples: int


def curve(history: History, start_us: int, end_us: int, points: int) -> Curve:
    """At most about `points` points whose minima and maxima are those of the data."""
    return drawn(*history.between(start_us, end_us), start_us, end_us, points)


async def long_curve(history: History, past: Past | None, topic: str, start_us: int, end_us: int, points: int) -> Curve:
    """The same, from the past on disk where memory does not reach back to `start_us`, and from memory after that."""
    return drawn(*await _reaching(history, past, topic, start_us, end_us, points), start_us, end_us, points)


async def _reaching(
    history: History, past: Past | None, topic: str, start_us: int, end_us: int, points: int
) -> tuple[list[Rollup], int]:
    oldest_us = history.oldest_us()
    if past is not None and (oldest_us is None or oldest_us > start_us):
        columns = max(POINTS_MIN, min(points, POINTS_MAX)) // 2
        rollups, span_us = await past.rollups(topic, start_us, end_us, columns)
        if rollups and (oldest_us is None or rollups[0].first_us < oldest_us):
            newer = [each for each in history.between(start_us, end_us)[0] if each.first_us > rollups[-1].last_us]
            return rollups + newer, span_us
    return history.between(start_us, end_us)


async def fine_curve(
    history: History, past: Past | None, singles: Singles, topic: str, start_us: int, end_us: int, points: int
) -> Curve:
    """The same of single values as far back as the log gives them, where memory has only minutes."""
    if not history.between(start_us, end_us)[1]:
        return curve(history, start_us, end_us, points)
    single = [Rollup.of(value, at_us, True) for at_us, value in await singles(topic, start_us) if at_us <= end_us]
    if not single:
        return await long_curve(history, past, topic, start_us, end_us, points)
    rollups, span_us = await _reaching(history, past, topic, start_us, end_us, points)
    older = [each for each in rollups if each.last_us < single[0].first_us]
    return drawn(older + single, span_us if older else 0, start_us, end_us, points)


def drawn(rollups: list[Rollup], span_us: int, start_us: int, end_us: int, points: int) -> Curve:
    """The curve of rollups in order, whose usual length is `span_us`."""
    if rollups:
        start_us = max(start_us, rollups[0].first_us)  # A young plant is drawn as finely as its few hours allow.
    column_us = max(1, 2 * (end_us - start_us) // max(POINTS_MIN, min(points, POINTS_MAX)))
    times: list[int] = []
    values: list[float | None] = []
    gaps: list[tuple[int, int]] = []
    for run in _runs(rollups, span_us):
        if times:
            gaps.append((times[-1], run[0].first_us))
            times.append((times[-1] + run[0].first_us) // 2)
            values.append(None)
        for column in _columns(run, start_us, column_us):
            for at_us, value in _pair(column, values[-1] if values else None):
                times.append(at_us)
                values.append(value)
    samples = sum(rollup.count for rollup in rollups)
    return Curve(start_us, end_us, tuple(times), tuple(values), tuple(gaps), samples)


def _runs(rollups: list[Rollup], span_us: int) -> Iterator[list[Rollup]]:
    """The rollups cut where far more time passes between two of them than usual."""
    if not rollups:
        return
    # Nine in ten steps rather than the median: who reports only changes is not silent between them.
    steps_us = sorted(late.first_us - early.first_us for early, late in pairwise(rollups)) or [0]
    gap_us = max(GAP_STEPS * steps_us[len(steps_us) * 9 // 10], 2 * span_us, GAP_US_MIN)
    run = [rollups[0]]
    for early, late in pairwise(rollups):
        if late.first_us - early.last_us > gap_us:
            yield run
            run = []
        run.append(late)
    yield run


def _columns(run: Iterable[Rollup], start_us: int, column_us: int) -> Iterator[Rollup]:
    merged: Rollup | None = None
    at = 0
    for rollup in run:
        its = (rollup.first_us - start_us) // column_us
        if merged is not None and its == at:
            merged = merged.merge(rollup)
        else:
            if merged is not None:
                yield merged
            merged, at = rollup, its
    if merged is not None:
        yield merged


def _pair(column: Rollup, before: float | None) -> list[tuple[int, float]]:
    """Minimum and maximum, the one nearer to the value before first: the line wanders rather than saws."""
    if column.minimum == column.maximum or column.first_us == column.last_us:
        return [(column.first_us, value) for value in sorted({column.minimum, column.maximum})]
    near = column.first if before is None else before
    ends = (column.minimum, column.maximum)
    if abs(near - column.maximum) < abs(near - column.minimum):
        ends = (column.maximum, column.minimum)
    return [(column.first_us, ends[0]), (column.last_us, ends[1])]


@dataclass(frozen=True, slots=True)
class Spark:
    """A curve without axes on a field of 100 by 24: polylines, and the usual band as top and height."""

    lines: tuple[str, ...]
    band_top: float
    band_height: float


def spark(history: History, start_us: int, end_us: int) -> Spark | None:
    """The small curve of a tile, of means; None when there is nothing to draw."""
    history.settle()
    rollups, span_us = history.tens.between(start_us, end_us), history.tens.span_us
    if len(rollups) < SPARK_TENS_MIN:
        rollups, span_us = history.between(start_us, end_us)
    if not rollups:
        return None
    means = [rollup.mean for rollup in rollups]
    low, high = _usual(history)
    bottom, top = min(*means, low), max(*means, high)
    pad = 0.18 * (top - bottom) or max(abs(top) * 0.05, 0.5)
    bottom, top = bottom - pad, top + pad
    begin_us = rollups[0].first_us
    width_us = max(rollups[-1].first_us - begin_us, 1)

    def y(value: float) -> float:
        return round(24 - 24 * (value - bottom) / (top - bottom), 1)

    lines = [
        " ".join(f"{100 * (rollup.first_us - begin_us) / width_us:.1f},{y(rollup.mean)}" for rollup in run)
        for run in _runs(rollups, span_us)
    ]
    return Spark(tuple(lines), y(high), max(1.5, round(y(low) - y(high), 1)))


def _usual(history: History) -> tuple[float, float]:
    """Where nine in ten of the older means lie, of the last day or, while that is short, of all minutes."""
    level = history.tens if len(history.tens.spans) >= 12 else history.minutes
    recent = list(level.spans.values())[-144:]
    assert recent, "a history that draws has spans"
    means = sorted(rollup.mean for rollup in recent[: max(1, len(recent) * 3 // 4)])
    return means[len(means) // 20], means[math.ceil(len(means) * 19 / 20) - 1]
