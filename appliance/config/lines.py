"""Where a key stands in the text of a TOML file, for messages that name the line."""

import re
from collections.abc import Sequence
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys, and after the name of an array the place of an element in it."""

_NAME = r"""(?:[\w\-]+|"[^"]*"|'[^']*')"""
_KEYS = rf"\s*({_NAME}(?:\s*\.\s*{_NAME})*)\s*"
_TABLE = re.compile(rf"\s*(\[\[?){_KEYS}\]")
_KEY = re.compile(rf"{_KEYS}=")
_QUOTES = re.compile(r"\"\"\"|'''")


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """The line of a key, or of what it stands in: the nearest that is written down; None when nothing of it is."""
    lines = _lines(text)
    parts = tuple(path)
    return next((lines[parts[:end]] for end in range(len(parts), 0, -1) if parts[:end] in lines), None)


def _lines(text: str) -> dict[Path, int]:
    """The lines of all keys and tables; those within an array or an inline table are not told apart."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    section: Path = ()
    is_in_text = False
    for number, line in enumerate(text.splitlines(), 1):
        was_in_text, is_in_text = is_in_text, is_in_text ^ (len(_QUOTES.findall(line)) % 2 == 1)
        if was_in_text:
            continue
        if header := _TABLE.match(line):
            section = _resolved(_names(header[2]), counts, is_element=header[1] == "[[")
            lines.setdefault(section, number)
        elif key := _KEY.match(line):
            lines.setdefault(section + tuple(_names(key[1])), number)
    return lines


def _names(keys: str) -> list[str]:
    return [name.strip("\"'") for name in re.findall(_NAME, keys)]


def _resolved(names: Sequence[str], counts: dict[Path, int], *, is_element: bool) -> Path:
    """The path of a header: each array in it stands for its newest element."""
    path: Path = ()
    for place, name in enumerate(names, 1):
        path += (name,)
        if is_element and place == len(names):
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path += (counts[path],)
    return path
