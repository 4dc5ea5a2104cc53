"""Losses: what a server says it did not keep for us, gathered into Gaps so that the ledger can show it."""

from typing import Final

from appliance.contract.gap import TOPICS_NAMED_MAX, Gap, GapReason
from appliance.contract.reading import Stream

TELL_S: Final = 60.0
"""Losses after the first are gathered for so long, as a queue that is too short overflows again and again."""


class Losses:
    """Such values never got a number, so their Gap is of no epoch and its range is empty; its count is the least."""

    def __init__(self) -> None:
        self._found: dict[GapReason, tuple[int, int, int]] = {}
        """Count, and the arrivals between which it was."""
        self._topics: dict[str, None] = {}
        self._told_s: float | None = None

    def overflowed(self, topics: list[str], from_us: int, to_us: int) -> None:
        """The server's queue of these tags was too short between two arrivals: at least one value of each is lost."""
        self._topics.update(dict.fromkeys(topics))
        self._add(GapReason.OVERFLOW, len(topics), from_us, to_us)

    def missed(self, notifications: int, from_us: int, to_us: int) -> None:
        """So many notifications between the two arrivals never came, and the server no longer has them."""
        self._add(GapReason.MISSED, notifications, from_us, to_us)

    def unwatched(self, from_us: int, to_us: int) -> None:
        """The server had forgotten the subscription: what it had to say between the two never came, if anything."""
        self._add(GapReason.UNWATCHED, 0, from_us, to_us)

    def due(self, now_s: float) -> list[Gap]:
        """What is to be told now, at the steady clock's time; gathered until `told`."""
        if not self._found or (self._told_s is not None and now_s - self._told_s < TELL_S):
            return []
        return [self._gap(reason, *found) for reason, found in self._found.items()]

    def told(self, now_s: float) -> None:
        """The gaps are in the log."""
        self._told_s = now_s
        self._found.clear()
        self._topics.clear()

    def _add(self, reason: GapReason, count: int, from_us: int, to_us: int) -> None:
        before, since_us, _ = self._found.get(reason, (0, from_us, 0))
        self._found[reason] = before + count, since_us, to_us

    def _gap(self, reason: GapReason, count: int, from_us: int, to_us: int) -> Gap:
        topics = tuple(self._topics) if reason is GapReason.OVERFLOW else ()
        named, known = topics[:TOPICS_NAMED_MAX], len(topics)
        return Gap(0, Stream.READINGS, 0, -1, count, 0, reason, named, known, from_us, to_us)
