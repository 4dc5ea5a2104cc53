"""Renumbering: which number of the old epoch became which of the new one, and where the followers stand then."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.contract.ranges import Ranges, clipped, normal
from appliance.contract.reading import Stream

SENDER: Final = "bridge"
"""How the names of the cursors begin that send the log on: what they had taken stands in the lake, in the old epoch."""


@dataclass(slots=True)
class Renumbering:
    """The runs of entries that were carried over, in order."""

    _runs: dict[Stream, list[tuple[int, int, int]]] = field(default_factory=lambda: {stream: [] for stream in Stream})

    def add(self, stream: Stream, old_first: int, count: int, new_first: int) -> None:
        runs, last, step = self._runs[stream], old_first + count - 1, new_first - old_first
        if runs and runs[-1][1:] == (old_first - 1, step):
            runs[-1] = (runs[-1][0], last, step)
        else:
            runs.append((old_first, last, step))

    def old(self, stream: Stream) -> Ranges:
        """The old numbers that were carried over."""
        return normal((first, last) for first, last, _ in self._runs[stream])

    def new(self, stream: Stream, old: Ranges) -> Ranges:
        """The new numbers of those of the old ones that were carried over."""
        runs = self._runs[stream]
        return normal(
            (begin + step, end + step) for first, last, step in runs for begin, end in clipped(old, first, last)
        )


@dataclass(frozen=True, slots=True)
class Stood:
    """A cursor of the old file, with what its follower had taken."""

    name: str
    stream: Stream
    seq: int
    state: str
    epoch: int
    kept: Ranges = ()
    """What had left and goes on under its old numbers."""

    @property
    def is_sender(self) -> bool:
        return self.name.startswith(SENDER)

    @property
    def under_way(self) -> list[tuple[int, int, str]]:
        """What had left, or was about to, without an answer: first, last, lane; none when that cannot be read."""
        try:
            return [(int(first), int(last), str(lane)) for first, last, lane in self._document().get("planned", ())]
        except (TypeError, ValueError):
            return []

    @property
    def taken(self) -> Ranges:
        """The old numbers its follower had taken; a sender's state also names those ahead of its cursor.

        A state that cannot be read, or is of another epoch, names none: what was ahead is then sent again.
        """
        try:
            ahead = [(int(first), int(last)) for first, last in self._document().get("ahead", ())]
        except (TypeError, ValueError):
            ahead = []
        return normal([(1, self.seq), *ahead, *self.kept])

    def carried(self, moved: Renumbering, epoch: int) -> tuple[str, Stream, int, str]:
        """The cursor's row in the new file: at the same entry, and what is ahead of it under its new numbers.

        What was under way counts as taken as far as it is kept to be sent under its old numbers; the rest is sent anew.
        """
        spans = moved.new(self.stream, self.taken)
        floor = spans[0][1] if spans and spans[0][0] == 1 else 0
        document = self._document()
        if not document:
            return self.name, self.stream, floor, self.state
        emptied = {key: [] if isinstance(value, list) else value for key, value in document.items()}
        state = json.dumps({**emptied, "epoch": epoch, "ahead": spans[bool(floor) :]}, separators=(",", ":"))
        return self.name, self.stream, floor, state

    def _document(self) -> dict[str, Any]:
        """A sender's state, when it is of this epoch."""
        if not self.is_sender:
            return {}
        try:
            document = json.loads(self.state)
        except ValueError:
            return {}
        is_its = isinstance(document, dict) and self.epoch and document.get("epoch") == self.epoch
        return document if is_its else {}
