"""Reports of rehearsals as files: one HTML page each, that holds its facts as signed JSON and is rendered from them.

The signature covers the canonical JSON of the facts. Whoever verifies renders the page once more from these facts and
compares it with the file, byte by byte: so no number on it can be another than the one that was signed.
"""

import base64
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import jinja2

import web
from appliance.rehearsal.report import SCHEMA
from appliance.rehearsal.signing import Signer, fingerprint, is_signed

log = logging.getLogger(__name__)

NAME: Final = re.compile(r"rehearsal-\d{8}T\d{6}Z\.html")
REPORT_BYTES_MAX: Final = 5_000_000
SHOWN_MAX: Final = 200
_BLOCK: Final = '<script type="application/json" id="{}">(.*?)</script>'
_RUNNING: Final = "running.json"
_ALGORITHM: Final = "Ed25519"


class ReportError(ValueError):
    """A file that is no report, or not the one that was signed; one line."""


@dataclass(frozen=True, slots=True)
class Shelved:
    """A report in the list: its name, and what it found."""

    name: str
    started_us: int
    length_s: float
    count: int
    verdict: str
    sentence: str


class Shelf:
    """The folder `rehearsals` below `data`: reports, and a note of the rehearsal that runs. All of it blocks."""

    def __init__(self, data: Path) -> None:
        self.folder, self._keys = data / "rehearsals", data / "keys"

    def note(self, course: Mapping[str, Any]) -> None:
        """Write down that a rehearsal runs, once its report can be signed. Raises `SigningError`, OSError."""
        Signer.of(self._keys)
        self.folder.mkdir(parents=True, exist_ok=True)
        _replace(self.folder / _RUNNING, json.dumps(course))

    def noted(self) -> dict[str, Any] | None:
        """The rehearsal that was running when the note was written; None without one, or when it cannot be read."""
        try:
            note: dict[str, Any] = json.loads((self.folder / _RUNNING).read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("rehearsal: the note of the last one cannot be read: %r", error)
            (self.folder / _RUNNING).unlink(missing_ok=True)
            return None
        return note

    def put(self, facts: Mapping[str, Any]) -> str:
        """Sign and write a report, and take the note away; gives the report's name. Raises `SigningError`, OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        started = datetime.fromtimestamp(facts["started_us"] // 1_000_000, UTC)
        name = f"rehearsal-{started:%Y%m%dT%H%M%SZ}.html"
        _replace(self.folder / name, signed(facts, Signer.of(self._keys)))
        (self.folder / _RUNNING).unlink(missing_ok=True)
        return name

    def names(self) -> list[str]:
        """The newest first."""
        if not self.folder.is_dir():
            return []
        return sorted((each.name for each in self.folder.iterdir() if NAME.fullmatch(each.name)), reverse=True)

    def text(self, name: str) -> str | None:
        """A report as it stands on the shelf; None when there is none of this name."""
        if not NAME.fullmatch(name) or not (self.folder / name).is_file():
            return None
        return (self.folder / name).read_text("utf-8")

    def newest(self) -> dict[str, Any] | None:
        """The facts of the newest report that can be read."""
        for name in self.names()[:SHOWN_MAX]:
            try:
                return verified(self.text(name) or "").facts
            except ReportError as error:
                log.warning("rehearsal: %s is passed over: %s", name, error)
        return None

    def list(self) -> list[Shelved]:
        """What the newest reports found; one that cannot be read says so itself."""
        shelved = []
        for name in self.names()[:SHOWN_MAX]:
            try:
                facts = verified(self.text(name) or "").facts
            except ReportError as error:
                shelved.append(Shelved(name, 0, 0.0, 0, "NOT VALID", str(error)))
                continue
            fields = (facts[key] for key in ("started_us", "length_s", "count", "verdict", "sentence"))
            shelved.append(Shelved(name, *fields))
        return shelved


@dataclass(frozen=True, slots=True)
class Verified:
    """A report that is what was signed, and by whom."""

    facts: dict[str, Any]
    public_key: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public_key)


def signed(facts: Mapping[str, Any], signer: Signer) -> str:
    """The report's page."""
    seal = {"algorithm": _ALGORITHM, "public_key": signer.public_key, "signature": signer.sign(canonical(facts))}
    return _render(facts, seal)


def verified(page: str) -> Verified:
    """The facts of a report; raises `ReportError` for whatever is not, letter by letter, what was signed."""
    facts, seal = _block(page, "facts"), _block(page, "seal")
    if facts.get("schema") != SCHEMA:
        raise ReportError(f"the report's schema is {facts.get('schema')!r}, {SCHEMA!r} is known")
    key, signature = str(seal.get("public_key")), str(seal.get("signature"))
    if seal != {"algorithm": _ALGORITHM, "public_key": key, "signature": signature}:
        raise ReportError("the report is not sealed as reports are")
    if not is_signed(canonical(facts), signature, key):
        raise ReportError("the signature does not fit the facts: they were changed, or never signed")
    try:
        is_same = _render(facts, seal) == page
    except (jinja2.TemplateError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ReportError(f"the facts are signed, but no page can be made of them: {error!r}") from error
    if not is_same:
        hint = f"it was written by version {facts.get('version')}; use that one if this is another"
        raise ReportError(f"the page does not show what was signed; {hint}")
    return Verified(facts, key)


def canonical(facts: Mapping[str, Any]) -> bytes:
    """The text that is signed: JSON with sorted keys, no blanks, ASCII."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def style_hash() -> str:
    """The SHA-256 of the style that every report brings along, as a content security policy names it."""
    style = _environment().get_template("report.css").render()
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")


def _block(page: str, name: str) -> dict[str, Any]:
    found = re.findall(_BLOCK.format(name), page, re.DOTALL)
    if len(found) != 1:
        raise ReportError("this is no report of a rehearsal")
    try:
        block = json.loads(found[0])
    except (ValueError, RecursionError) as error:
        raise ReportError(f"the report's JSON cannot be read: {error}") from error
    if not isinstance(block, dict):
        raise ReportError("the report's JSON is no object")
    return block


def _render(facts: Mapping[str, Any], seal: Mapping[str, Any]) -> str:
    zone = ZoneInfo(str(facts["zone"]))
    page = (
        _environment()
        .get_template("report.html")
        .render(
            facts=facts,
            seal=seal,
            fingerprint=fingerprint(str(seal["public_key"])),
            facts_json=_inside_html(canonical(facts)),
            seal_json=_inside_html(canonical(seal)),
            utc=lambda at_us: _moment(at_us, ZoneInfo("UTC")),
            local=lambda at_us: _moment(at_us, zone),
        )
    )
    return page + "\n"


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(web.TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)


def _inside_html(text: bytes) -> str:
    """JSON that no HTML parser can take for markup, and that means the same."""
    return text.decode("ascii").replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _moment(at_us: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, zone).strftime("%Y-%m-%d %H:%M:%S %Z") if at_us else "–"


def _replace(path: Path, text: str) -> None:
    """The whole file or none, on disk."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
