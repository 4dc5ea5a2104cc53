"""The commands `plantward rehearse-outage` and `plantward verify-report`."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from appliance.rehearsal.report_file import REPORT_BYTES_MAX, ReportError, Verified, verified
from appliance.rehearsal.signing import public_key_of

TIMEOUT_S: Final = 15.0
TURN_S: Final = 1.0
SAY_S: Final = 10.0
"""How often progress is told while a phase lasts."""
SILENT_S_MAX: Final = 120.0
RUNNING: Final = ("cut", "draining", "confirming")


class RehearsalFailed(Exception):
    """It was refused, or the appliance does not answer; one line."""


def call(url: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the appliance, or tell it to do something when there are fields; raises `RehearsalFailed`, OSError."""
    body = None if fields is None else json.dumps(fields).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        raise RehearsalFailed(_reason(error)) from error
    except ValueError as error:
        raise RehearsalFailed(f"{url} does not answer as an appliance does: {error}") from error
    return answer


def rehearse(base_url: str, minutes: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Start a rehearsal and follow it to its end; gives its last status. Raises `RehearsalFailed`, OSError."""
    status = call(f"{base_url}/api/rehearsal/start", {"minutes": minutes})
    phase, said_s, heard_s = "", 0.0, time.monotonic()
    while status["phase"] in RUNNING:
        if status["phase"] != phase or time.monotonic() - said_s >= SAY_S:
            phase, said_s = status["phase"], time.monotonic()
            say(progress(status))
        time.sleep(TURN_S)
        try:
            status, heard_s = call(f"{base_url}/api/rehearsal"), time.monotonic()
        except OSError as error:
            if time.monotonic() - heard_s > SILENT_S_MAX:
                raise RehearsalFailed(f"the appliance does not answer any more ({error})") from error
    return status


def progress(status: dict[str, Any]) -> str:
    """One line of what is going on."""
    waiting = f"{status['waiting']:,} wait"
    if status["phase"] == "cut":
        full, drain = _length(status["full_s"]), _length(status["drain_s"])
        came = f"{status['readings']:,} readings in, {waiting}"
        return f"cut: {status['left_s']:.0f} s left, {came}; full in {full}, will drain in {drain}"
    if status["phase"] == "draining":
        return f"draining: {waiting} of {status['peak_waiting']:,}, done in {_length(status['drain_s'])}"
    return f"confirming: the cloud has confirmed {status['settled']} of {status['windows']} windows"


def verify(file: Path, key: Path | None) -> Verified:
    """A report that shows what was signed, by the given key if there is one; raises `ReportError`, `SigningError`."""
    wanted = public_key_of(key) if key else None
    try:
        body = file.read_bytes()
        text = body.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{file} cannot be read: {error}") from error
    if len(body) > REPORT_BYTES_MAX:
        raise ReportError(f"{file} is larger than any report")
    report = verified(text)
    if wanted is not None and report.public_key != wanted:
        raise ReportError(f"the report is signed by another key, {report.fingerprint}")
    return report


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the appliance answers {error.code}; is it of this version?"


def _length(seconds: float | None) -> str:
    if seconds is None:
        return "an unknown time"
    return (
        f"{seconds:.0f} s"
        if seconds < 180
        else f"{seconds / 60:.0f} min"
        if seconds < 7_200
        else f"{seconds / 3_600:.0f} h"
    )
