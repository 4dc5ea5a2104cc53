"""Health: what every part says of itself, for `plantward status`, the page and Prometheus."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from appliance.supervisor import Part, PartState

PREFIX = "plantward"


class Health:
    """Collects what parts say of themselves; asks them only when somebody wants to know."""

    def __init__(self) -> None:
        self._sayings: dict[str, Callable[[], Any]] = {}
        self.parts: list[Part] = []

    def ask(self, name: str, saying: Callable[[], Any]) -> None:
        """Include a part: `saying` gives a dataclass or mapping of plain values."""
        self._sayings[name] = saying

    def status(self) -> dict[str, Any]:
        """Everything as one JSON-able mapping."""
        return {
            "ready": self.ready(),
            "parts": {part.name: _plain(part) for part in self.parts},
            **{name: _plain(saying()) for name, saying in self._sayings.items()},
        }

    def ready(self) -> bool:
        """Whether every part is running."""
        return bool(self.parts) and all(part.state is PartState.RUNNING for part in self.parts)

    def metrics(self) -> str:
        """All numbers in the text format of Prometheus: `plantward_PART_FIELD`."""
        lines = [f"{PREFIX}_{name} {value}" for name, value in _numbers(self.status(), "")]
        return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return json.loads(json.dumps(value, default=str))


def _numbers(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, inner in value.items():
        name = prefix + re.sub(r"\W", "_", str(key))
        if isinstance(inner, Mapping):
            yield from _numbers(inner, f"{name}_")
        elif isinstance(inner, bool | int | float):
            yield name, float(inner)
