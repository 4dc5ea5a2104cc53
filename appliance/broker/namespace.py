"""The Namespace: which topics belong to the plant, and what happens to those that do not."""

from enum import StrEnum

from appliance.contract.topic import Topic, TopicError

RESERVED = "_"
_KNOWN_MAX = 100_000


class Enforcement(StrEnum):
    """What happens to publishes that do not fit."""

    OFF = "off"
    """Any topic passes; nothing that MQTT clients publish is recorded."""
    REPORT = "report"
    """All pass; what fits is recorded, the rest is counted."""
    REFUSE = "refuse"
    """What does not fit is refused."""


class Namespace:
    """Judges topics by the grammar of ISA-95, below one root; remembers what it has judged."""

    def __init__(self, root: str, enforcement: Enforcement) -> None:
        self.root, self.enforcement = root, enforcement
        self._known: dict[str, str] = {}

    def fault(self, topic: str) -> str:
        """What keeps readings of this topic from being recorded; empty when nothing does."""
        fault = self._known.get(topic)
        if fault is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            fault = self._known[topic] = self._judged(topic)
        return fault

    def _judged(self, topic: str) -> str:
        try:
            parsed = Topic.parse(topic)
        except TopicError as error:
            return f"{error.level}: {error.reason}; {error.hint}"
        if parsed.enterprise != self.root:
            return f"enterprise: is {parsed.enterprise!r}; this plant's namespace begins with {self.root!r}"
        for level in parsed.tag.split("/"):
            if level.startswith(RESERVED):
                return f"tag: {level!r} is reserved for the appliance; choose a name that does not begin with '_'"
        return ""
