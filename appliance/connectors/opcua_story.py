"""What the OPC UA connector tells: its status, and each change of the link once in the log."""

import logging
from dataclasses import replace
from time import monotonic

from appliance.connectors.opcua_status import OpcUaStatus
from appliance.connectors.opcua_values import Unreadable

log = logging.getLogger(__name__)

UNREADABLE_NAMED_MAX = 20
"""So many tags whose values cannot be kept are named in the log; all are counted."""


class Story:
    """The status as it changes, and which of its changes have been told."""

    def __init__(self, name: str, endpoint: str) -> None:
        self.status = OpcUaStatus(name, endpoint)
        self._lost_at: float | None = None
        self._is_told_up = False
        self._unreadable_topics: set[str] = set()

    def set(self, **changes: object) -> None:
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]

    def lost(self, reason: str, pause_s: float) -> None:
        """The link is down; the same reason is told once."""
        is_news = self._lost_at is None or reason != self.status.last_error
        self._lost_at = self._lost_at or monotonic()
        self._is_told_up = False
        self.set(connected=False, last_error=reason)
        if is_news:
            log.warning("opcua %s: no link (%s), next try in %.1f s", self.status.name, reason, pause_s)

    def up(self, now_us: int, tags: int, bad: int) -> None:
        """The link is up and the tags are followed; told once for each link."""
        if self._is_told_up:
            return
        self._is_told_up = True
        self.set(connected=True, since_us=now_us)
        if self._lost_at is None:
            log.info("opcua %s: link up, %d tags, %d refused", self.status.name, tags, bad)
        else:
            away_s = monotonic() - self._lost_at
            log.info("opcua %s: link back after %d s, %d tags, %d refused", self.status.name, away_s, tags, bad)
        self._lost_at = None

    def unreadable(self, topic: str, error: Unreadable) -> None:
        """A value that the log does not keep."""
        self.set(unreadable=self.status.unreadable + 1)
        if topic not in self._unreadable_topics and len(self._unreadable_topics) < UNREADABLE_NAMED_MAX:
            self._unreadable_topics.add(topic)
            log.warning("opcua %s: %s holds %s, which is not kept", self.status.name, topic, error)
