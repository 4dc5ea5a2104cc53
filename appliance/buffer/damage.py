"""What the log says of its own damage: the alarm with what is lost, in words a person can act on."""

from collections.abc import Sequence
from typing import Final

from appliance.buffer.salvage import Report
from appliance.contract.gap import own_equipment
from appliance.contract.prediction import Alarm, AlarmState
from appliance.contract.reading import Reading, Stream

DAMAGED: Final = "buffer/damaged"
"""The alarm's key. Whoever writes the gap writes it in the same transaction; `alarms` ends it."""
RANGES_NAMED_MAX: Final = 5


def damage_alarm(root: str, plant: str, message: str, lost: int, at_us: int) -> Reading:
    """The alarm as an entry: `lost` numbers are not there any more."""
    equipment = own_equipment(root, plant)
    return Alarm(equipment, DAMAGED, AlarmState.RAISED, 1, message, float(lost), 0.0, at_us, at_us).entry(at_us)


def renewed(report: Report, aside: str) -> tuple[str, int]:
    """What to tell of a file that was set aside and salvaged, and how many numbers of it are lost."""
    missing = {stream: report.missing(stream) for stream in Stream}
    lost = {stream: sum(last - first + 1 for first, last in ranges) for stream, ranges in missing.items()}
    said = [f"{lost[stream]:,} {stream} ({in_words(missing[stream])})" for stream in Stream if lost[stream]]
    if not report.epoch:
        what = "how much it held cannot be told"
    else:
        what = f"lost: {' and '.join(said)}" if said else "nothing of what could be counted is lost"
    carried = f"{report.entries[Stream.READINGS]:,} readings and {report.entries[Stream.EVENTS]:,} events"
    text = f"The log's file was damaged; {what}. {carried} are carried over; the old file is kept as {aside}"
    return text, sum(lost.values())


def in_words(ranges: Sequence[tuple[int, int]]) -> str:
    """Ranges of numbers, the first few of them."""
    named = [f"{first:,} to {last:,}" for first, last in ranges[:RANGES_NAMED_MAX]]
    more = len(ranges) - len(named)
    return ", ".join(named) + (f" and {more} more ranges" if more else "")
