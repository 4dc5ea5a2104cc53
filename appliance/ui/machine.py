"""A Machine: what the page knows of one equipment, configured or not."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.contract.prediction import Prediction
from appliance.contract.reading import Reading
from appliance.ui.trend import History

ARRIVALS_MAX = 40
STALE_US = 30_000_000


class Limit(Protocol):
    """A limit of one tag, as configured."""

    @property
    def tag(self) -> str: ...
    @property
    def high(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def priority(self) -> int: ...
    @property
    def message(self) -> str: ...


class Equipment(Protocol):
    """One configured machine: where it stands, what it is called, and the limits of its tags."""

    @property
    def path(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def units(self) -> Mapping[str, str]: ...
    @property
    def limit(self) -> Sequence[Limit]: ...


@dataclass(slots=True)
class Tag:
    """The latest of one topic, and its past."""

    topic: str
    name: str
    latest: Reading
    history: History


@dataclass(slots=True)
class Machine:
    """What is known of one equipment, configured or not."""

    path: str
    equipment: Equipment | None
    tags: dict[str, Tag] = field(default_factory=dict)
    arrivals: deque[tuple[int, Reading]] = field(default_factory=lambda: deque(maxlen=ARRIVALS_MAX))
    newest_us: int = 0
    """Newest source time."""
    arrival_us: int = 0
    """Newest arrival."""
    prediction: Prediction | None = None
    predicted: History = field(default_factory=lambda: History.new(True))

    @property
    def id(self) -> str:
        return self.path.rpartition("/")[2] or self.path

    @property
    def type(self) -> str:
        return self.equipment.type if self.equipment else ""

    @property
    def is_stopped(self) -> bool:
        running = self.tags.get("running")
        return running is not None and running.latest.value is False

    def is_stale(self, now_us: int) -> bool:
        """Judged by arrival, because plant time may run at any speed."""
        return now_us - self.arrival_us > STALE_US

    def limit(self, tag: str) -> Limit | None:
        return next((limit for limit in self.equipment.limit if limit.tag == tag), None) if self.equipment else None


def split(topic: str) -> tuple[str, str]:
    """Equipment path and tag of any topic, also of one that does not fit the grammar."""
    levels = topic.split("/", 6)
    if len(levels) == 7:
        return "/".join(levels[:6]), levels[6]
    path, _, tag = topic.rpartition("/")
    return path or "(no level)", tag
