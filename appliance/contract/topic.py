"""A Topic: the place of a tag in the plant, by the equipment hierarchy of ISA-95 (IEC 62264-1)."""

import re
from dataclasses import dataclass
from typing import Self

LEVELS = ("enterprise", "site", "area", "line", "cell", "equipment", "tag")
TAG_LEVELS_MAX = 4
LEVEL_CHARS_MAX = 64
_LEVEL = re.compile(r"[\w.\-]+")


class TopicError(ValueError):
    """A topic that does not fit the grammar; says which level offends, why, and what would fit."""

    def __init__(self, text: str, level: str, reason: str, hint: str) -> None:
        super().__init__(f"topic {text!r}: {level}: {reason}; {hint}")
        self.text, self.level, self.reason, self.hint = text, level, reason, hint


@dataclass(frozen=True, slots=True)
class Topic:
    """`enterprise/site/area/line/cell/equipment/tag`; the tag itself may have 1 to 4 levels."""

    enterprise: str
    site: str
    area: str
    line: str
    cell: str
    equipment: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a topic; raises `TopicError` that names the first offending level."""
        levels = text.split("/")
        for position, level in enumerate(levels):
            if len(level) > LEVEL_CHARS_MAX or not _LEVEL.fullmatch(level):
                raise _level_error(text, LEVELS[min(position, len(LEVELS) - 1)], level)
        if len(levels) < len(LEVELS):
            missing = LEVELS[len(levels)]
            raise TopicError(text, missing, "is missing", f"write {'/'.join(LEVELS)}")
        if len(levels) > len(LEVELS) - 1 + TAG_LEVELS_MAX:
            raise TopicError(text, "tag", f"has more than {TAG_LEVELS_MAX} levels", "join levels with '.' or '_'")
        enterprise, site, area, line, cell, equipment, *tag = levels
        return cls(enterprise, site, area, line, cell, equipment, "/".join(tag))

    @property
    def equipment_path(self) -> str:
        """The six levels that name the equipment."""
        return "/".join((self.enterprise, self.site, self.area, self.line, self.cell, self.equipment))

    def __str__(self) -> str:
        return f"{self.equipment_path}/{self.tag}"


def equipment_of(topic: str) -> tuple[str, str]:
    """Split a valid topic's text into equipment path and tag, without building a Topic."""
    levels = topic.split("/", 6)
    return "/".join(levels[:6]), levels[6]


def _level_error(text: str, name: str, level: str) -> TopicError:
    if not level:
        return TopicError(text, name, "is empty", "remove the doubled, leading or trailing '/'")
    if len(level) > LEVEL_CHARS_MAX:
        return TopicError(text, name, f"is longer than {LEVEL_CHARS_MAX} characters", "shorten it")
    bad = sorted({char for char in level if not _LEVEL.fullmatch(char)})
    nearest = re.sub(r"[^\w.\-]+", "_", level)
    reason = f"{level!r} holds {' '.join(map(repr, bad))}"
    return TopicError(text, name, reason, f"the nearest valid level is {nearest!r}")
