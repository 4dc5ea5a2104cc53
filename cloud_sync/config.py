"""The companion's configuration: `cloud_sync.toml`, one frozen section for each part."""

import difflib
import tomllib
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

_Section = TypeVar("_Section")


class ConfigError(Exception):
    """A configuration that cannot be used: one clear line with a hint."""


@dataclass(frozen=True, slots=True)
class HubConfig:
    """Where envelopes come from: Event Hubs by its connection string, or a folder filled by the uplink `folder`."""

    connection_string: str = field(default="", repr=False)
    name: str = "readings"
    consumer_group: str = "$Default"
    folder: str = ""
    receipts: str = "receipts"
    """The hub that takes receipts, beside a folder the folder `receipts` in it; empty for none."""

    def __post_init__(self) -> None:
        if bool(self.connection_string) == bool(self.folder):
            raise ConfigError("[hub] needs either connection_string or folder; write one of them")


@dataclass(frozen=True, slots=True)
class LakeConfig:
    """Where the tables are."""

    path: str

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("[lake] path is empty; name a folder")


@dataclass(frozen=True, slots=True)
class GoldConfig:
    """What the reports ask for."""

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"[gold] threshold is {self.threshold}; a probability lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """How often the layers follow each other."""

    interval_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0.05 <= self.interval_s <= 3_600:
            raise ConfigError(f"[service] interval_s is {self.interval_s}; write 0.05 to 3600 seconds")


@dataclass(frozen=True, slots=True)
class Config:
    """All sections."""

    hub: HubConfig
    lake: LakeConfig
    gold: GoldConfig
    service: ServiceConfig

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file; raises `ConfigError`. Folders are relative to the file."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist; name the file with --config") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not TOML: {error}") from error
        try:
            return cls.of(document, path.resolve().parent)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def of(cls, document: dict[str, Any], base: Path = Path()) -> Self:
        """Read the sections; raises `ConfigError`."""
        _known("section", document, [section.name for section in fields(cls)])
        hub = _section(HubConfig, document, "hub")
        lake = _section(LakeConfig, document, "lake")
        folder = str(base / hub.folder) if hub.folder else ""
        return cls(
            hub=replace(hub, folder=folder),
            lake=LakeConfig(str(base / lake.path)),
            gold=_section(GoldConfig, document, "gold"),
            service=_section(ServiceConfig, document, "service"),
        )


def _section(kind: type[_Section], document: dict[str, Any], name: str) -> _Section:
    values = document.get(name, {})
    if not isinstance(values, dict):
        raise ConfigError(f"{name} is no section; write [{name}]")
    keys = {key.name: key for key in fields(kind)}  # type: ignore[arg-type]
    _known(f"key of [{name}]", values, list(keys))
    for key in keys.values():
        if key.name not in values:
            if key.default is MISSING:
                raise ConfigError(f"[{name}] {key.name} is missing; write it")
        elif key.type is float and type(values[key.name]) is int:
            values = {**values, key.name: float(values[key.name])}
        elif type(values[key.name]) is not key.type:
            raise ConfigError(f"[{name}] {key.name} is {values[key.name]!r}; write {_WORDS[key.type]}")
    return kind(**values)


def _known(what: str, found: dict[str, Any], known: list[str]) -> None:
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{name!r} is no {what}; {hint}")


_WORDS: dict[Any, str] = {str: "a text in quotes", float: "a number"}
