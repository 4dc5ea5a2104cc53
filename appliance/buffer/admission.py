"""Admission: which new readings come into the log while it is tight, branch by branch of the namespace.

A block holds entries of many topics and never changes, so a branch cannot give up what is in the log. It gives way
at the door: its producers wait, or every second of its readings comes in, and a Gap tells how many did not.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from appliance.buffer.retention import Branch, Policy
from appliance.contract.gap import TOPICS_NAMED_MAX, Gap, GapReason
from appliance.contract.reading import Reading, Stream

log = logging.getLogger(__name__)

TIGHT: Final = 0.8
EASY: Final = 0.7
"""Branches give way when what is not sent fills this part of the room, until it is down to that part."""
TELL_S: Final = 60.0
"""So long thinned readings are gathered for one Gap."""
CURSOR: Final = "thinning"
"""The cursor whose state keeps the count, in the transactions of the readings that did come in."""
_TOPICS_MAX: Final = 100_000


@dataclass(slots=True)
class Thinned:
    """Readings that were not let in since the last Gap."""

    count: int = 0
    topics: dict[str, int] = field(default_factory=dict)
    from_us: int = 0
    to_us: int = 0

    def add(self, reading: Reading) -> None:
        self.count += 1
        if reading.topic in self.topics or len(self.topics) < TOPICS_NAMED_MAX:
            self.topics[reading.topic] = self.topics.get(reading.topic, 0) + 1
        self.from_us, self.to_us = self.from_us or reading.arrival_us, reading.arrival_us

    def gap(self) -> Gap:
        topics = tuple(self.topics)
        reason, stream = GapReason.THINNED, Stream.READINGS
        return Gap(0, stream, 0, -1, self.count, 0, reason, topics, len(topics), self.from_us, self.to_us)


class Admission:
    """The door of the log. Only numbers are thinned: each text and each switch is news of its own."""

    def __init__(self, branches: Sequence[Branch], state: str) -> None:
        self._waiting = tuple(f"{branch.topic}/" for branch in branches if branch.policy is Policy.REJECT)
        self._thinning = tuple(f"{branch.topic}/" for branch in branches if branch.policy is Policy.THIN)
        self._thinned = Thinned(**json.loads(state)) if state else Thinned()
        self._since_s: float | None = None
        self._was_let_in: dict[str, bool] = {}
        self.is_tight = False
        self.thinned_entries = 0

    @property
    def has_branches(self) -> bool:
        return bool(self._waiting or self._thinning)

    @property
    def is_holding(self) -> bool:
        """Whether there is a branch whose producers wait now."""
        return self.is_tight and bool(self._waiting)

    def see(self, tightness: float) -> None:
        """Take note of how tight it is, with hysteresis."""
        is_tight = tightness > (EASY if self.is_tight else TIGHT)
        if is_tight and not self.is_tight:
            log.warning("buffer: %.0f %% of the room holds what is not sent; branches give way", 100 * tightness)
        elif self.is_tight and not is_tight:
            log.info("buffer: there is room again, all branches come in")
        self.is_tight = is_tight

    def must_wait(self, entries: Sequence[Reading]) -> bool:
        """Whether one of these readings is of a branch that waits now."""
        return self.is_holding and any(f"{entry.topic}/".startswith(self._waiting) for entry in entries)

    def let_in(self, entries: Sequence[Reading]) -> Sequence[Reading]:
        """The readings that come in; the others are counted, and `state` is to be committed with these."""
        if not (self.is_tight and self._thinning):
            return entries
        admitted = [entry for entry in entries if not self._is_thinned(entry)]
        return admitted if len(admitted) < len(entries) else entries

    def state(self) -> str:
        """The count as it stands, for the state of `CURSOR`."""
        return json.dumps(asdict(self._thinned), separators=(",", ":"), ensure_ascii=False)

    def due(self, now_s: float) -> Gap | None:
        """The Gap that is to be told now; its readings are counted no longer."""
        if not self._thinned.count:
            return None
        self._since_s = now_s if self._since_s is None else self._since_s
        if self.is_tight and now_s - self._since_s < TELL_S:
            return None
        gap, self._thinned, self._since_s = self._thinned.gap(), Thinned(), None
        return gap

    def _is_thinned(self, entry: Reading) -> bool:
        if isinstance(entry.value, bool | str | None) or not f"{entry.topic}/".startswith(self._thinning):
            return False
        is_let_in = not self._was_let_in.get(entry.topic, False)
        if entry.topic in self._was_let_in or len(self._was_let_in) < _TOPICS_MAX:
            self._was_let_in[entry.topic] = is_let_in
        if not is_let_in:
            self._thinned.add(entry)
            self.thinned_entries += 1
        return not is_let_in
