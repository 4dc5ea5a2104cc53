"""What the log says of its own damage: the alarm with what is lost, in words a person can act on."""

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from appliance.buffer.salvage import Report
from appliance.contract.gap import own_equipment
from appliance.contract.prediction import Alarm, AlarmState
from appliance.contract.ranges import size
from appliance.contract.reading import Reading, Stream
from appliance.supervisor import StartAfresh

log = logging.getLogger(__name__)

DAMAGED: Final = "buffer/damaged"
"""The alarm's key. Whoever writes the gap writes it in the same transaction; `alarms` ends it."""
RANGES_NAMED_MAX: Final = 5
RENEWALS_MAX: Final = 3
"""So many times one process starts anew for a damaged log."""


class FileDamaged(StartAfresh):
    """A page of a file turned bad while it was in use; opening the file again deals with it."""


class LogDamaged(FileDamaged):
    """It is the log's file."""


@contextmanager
def sound(name: str) -> Iterator[None]:
    """Raises `FileDamaged` for a file that can be made anew from the log."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
        raise FileDamaged(f"{name} has turned bad ({error}); it is made anew from the log") from error


def suspicion(path: Path) -> Path:
    """The file that stands beside the log after a page of it turned bad in use: its next opening checks all of it."""
    return path.with_suffix(".suspect")


def suspect(path: Path, reason: str) -> None:
    """Have the file checked wholly at its next opening."""
    try:
        suspicion(path).write_text(reason, "utf-8")
    except OSError as error:
        log.warning(
            "buffer: the next start cannot be told to check the file (%s); `plantward buffer check` does", error
        )


def damage_alarm(root: str, plant: str, message: str, lost: int, at_us: int) -> Reading:
    """The alarm as an entry: `lost` numbers are not there any more."""
    equipment = own_equipment(root, plant)
    return Alarm(equipment, DAMAGED, AlarmState.RAISED, 1, message, float(lost), 0.0, at_us, at_us).entry(at_us)


def renewed(report: Report, aside: str) -> tuple[str, int]:
    """What to tell of a file that was set aside and salvaged, and how many numbers of it are lost."""
    missing = {stream: report.missing(stream) for stream in Stream}
    lost = {stream: size(ranges) for stream, ranges in missing.items()}
    said = [f"{lost[stream]:,} {stream} ({in_words(missing[stream])})" for stream in Stream if lost[stream]]
    if not report.epoch:
        what = "how much it held cannot be told"
    else:
        what = f"lost: {' and '.join(said)}" if said else "nothing of what could be counted is lost"
    carried = f"{report.entries[Stream.READINGS]:,} readings and {report.entries[Stream.EVENTS]:,} events"
    text = f"The log's file was damaged; {what}. {carried} are carried over; the old file is kept as {aside}"
    return text, sum(lost.values())


def set_apart(dropped: Sequence[tuple[Stream, int, int]], folder: str) -> tuple[str, int]:
    """What to tell of blocks that could not be read while the appliance ran, and how many numbers they held."""
    lost = {stream: [(first, last) for its, first, last in dropped if its is stream] for stream in Stream}
    said = [f"{size(lost[stream]):,} {stream} ({in_words(lost[stream])})" for stream in Stream if lost[stream]]
    text = f"Part of the log's file cannot be read; lost: {' and '.join(said)}. The bytes are kept in {folder}"
    return text, sum(map(size, lost.values()))


def again_when_damaged(run: Callable[[], None]) -> None:
    """Run, and run again when a file has turned bad meanwhile, as opening it salvages it or makes it anew.

    After `RENEWALS_MAX` times the disk itself is failing: the error goes through and ends the process.
    """
    for renewals in range(RENEWALS_MAX + 1):
        try:
            run()
            return
        except* FileDamaged as errors:
            if renewals == RENEWALS_MAX:
                raise
            log.error("appliance: starting anew: %s", _innermost(errors))


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file's pages are not what they should be."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def in_words(ranges: Sequence[tuple[int, int]]) -> str:
    """Ranges of numbers, the first few of them."""
    named = [f"{first:,} to {last:,}" for first, last in ranges[:RANGES_NAMED_MAX]]
    more = len(ranges) - len(named)
    return ", ".join(named) + (f" and {more} more ranges" if more else "")
