"""Reading plant.toml: the values, or one line for each fault."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from appliance.config.lines import line_of
from appliance.config.sections import Config


class ConfigError(Exception):
    """A configuration that cannot be used: one line for each fault, with the line of the file and a hint."""


_CONFIG = TypeAdapter(Config)


def load(path: Path) -> Config:
    """Read plant.toml; raises `ConfigError` that names each fault with its line and a hint."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give --config the path of plant.toml") from error
    return parse(text, str(path))


def parse(text: str, name: str = "plant.toml") -> Config:
    """Read the text of a plant.toml; raises `ConfigError`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: is not TOML: {error}") from error
    try:
        return _CONFIG.validate_python(document)
    except ValidationError as error:
        faults = [_fault(name, text, fault) for fault in error.errors()]
        raise ConfigError("\n".join(faults)) from error


def schema() -> dict[str, Any]:
    """All keys as JSON Schema."""
    return _CONFIG.json_schema()


def _fault(name: str, text: str, fault: Any) -> str:
    path = [part for part in fault["loc"] if isinstance(part, str | int)]
    keys = [str(part) for part in path if isinstance(part, str)]
    line = line_of(text, path)
    where = f"{name}:{line}" if line else name
    if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        nearest = difflib.get_close_matches(keys[-1], _words(keys[:-1]), n=1, cutoff=0.5)
        known = ", ".join(_words(keys[:-1]))
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known here: {known}"
        return f"{where}: unknown key {keys[-1]!r}; {hint}"
    if fault["type"] in ("missing", "missing_argument"):
        return f"{where}: {'.'.join(keys)} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {'.'.join(keys)}: {message}"


def _words(section: list[str]) -> list[str]:
    """The keys known in a section."""
    definitions = (document := schema()).get("$defs", {})
    for key in section:
        entry = document.get("properties", {}).get(key, {})
        reference = entry.get("$ref") or entry.get("items", {}).get("$ref") or ""
        document = definitions.get(reference.rpartition("/")[2], {})
    return sorted(document.get("properties", {}))
