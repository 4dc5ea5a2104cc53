"""What the page says in words: names, numbers with units, durations, and what to do about a failure mode."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from appliance.contract.prediction import Sign
from appliance.contract.reading import Value

THIN = "\u202f"
NOTHING = "–"
PRIORITIES = {1: "Critical", 2: "High", 3: "Medium"}
TEXT_CHARS_MAX = 200
_ENDS = {"de": ("DE", "drive end"), "nde": ("NDE", "non-drive end")}
_STATISTICS = {"mean": "", "std": "spread", "slope": "change per hour"}
"""What a feature's statistic is called; a mean is just the signal."""
_LENGTHS = ((604_800, "week"), (86_400, "day"), (3_600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True)
class Advice:
    """What an operator does about a failure mode: one line, then steps of what and how."""

    line: str
    steps: tuple[tuple[str, str], ...]


_WATCH = Advice(
    "Watch it, and check the machine at the next round", (("Check the machine on site", "Sound, leaks, heat"),)
)
_ADVICE = {
    ("pump", "bearing wear"): Advice(
        "Plan the bearing replacement, ready the standby pump",
        (
            ("Change over to the standby pump", "Before the early end of the interval"),
            ("Replace the drive-end bearing", "Check the lubricant for metal first"),
            ("Check alignment and soft foot", "Same stop"),
        ),
    ),
    ("pump", "cavitation"): Advice(
        "Raise the suction pressure or reduce the flow",
        (
            ("Open the suction valve fully", "Check the strainer for blockage"),
            ("Reduce the flow until the noise stops", "Keep above the minimum flow"),
            ("Inspect the impeller at the next stop", "Pitting on the blades"),
        ),
    ),
    ("compressor", "filter clogging"): Advice(
        "Change the intake filter at the next stop",
        (
            ("Change the intake filter", "Note the pressure drop before and after"),
            ("Check the oil level and cooler", ""),
        ),
    ),
    ("motor", "winding over-temperature"): Advice(
        "Clean the cooling path, check the load at the next stop",
        (
            ("Clean the cooling path", "Fan cover and ribs"),
            ("Check the load and the phase currents", "Unbalance heats the winding"),
            ("Measure the insulation resistance", "When the machine is stopped"),
        ),
    ),
    ("fan", "bearing wear"): Advice(
        "Grease now, plan the bearing replacement",
        (("Grease the bearing", "Listen again afterwards"), ("Replace the bearing, balance the rotor", "Planned stop")),
    ),
    ("press", "drift"): Advice(
        "Look for hydraulic leakage, check the ram position",
        (
            ("Look for leakage at cylinder and valves", "Ram down, pump stopped"),
            ("Check the ram position against the gauge", "Correct the offset"),
            ("Replace the cylinder seals", "Planned stop"),
        ),
    ),
}


def advice(kind: str, mode: str) -> Advice:
    """What to do about this failure mode of this type of machine."""
    known = _ADVICE.get((kind, mode))
    if known is not None:
        return known
    for (its_kind, its_mode), its in _ADVICE.items():
        if its_kind == kind and mode and (mode.startswith(its_mode) or its_mode.startswith(mode)):
            return its
    return _WATCH


def title(level: str) -> str:
    """A level of a topic as a heading: `boiler-house` is `Boiler house`."""
    return capital(level.replace("-", " ").replace("_", " ").strip())


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def unit(text: str) -> str:
    """A unit as it is printed: `m3/h` is `m³/h`."""
    return text.replace("m3", "m³").replace("m2", "m²")


def tag_name(tag: str) -> str:
    """A tag in words: `vibration_de` is `Vibration, drive end`."""
    stem, _, end = tag.rpartition("_")
    return f"{title(stem)}, {_ENDS[end][1]}" if stem and end in _ENDS else title(tag)


def tag_short(tag: str) -> str:
    """A tag in few words: `vibration_de` is `DE vibration`."""
    stem, _, end = tag.rpartition("_")
    words = f"{_ENDS[end][0]} {lower(title(stem))}" if stem and end in _ENDS else title(tag)
    return words.replace("temperature", "temp").replace("Temperature", "Temp")


def number(value: Value) -> str:
    """A value as an operator reads it: about three significant digits, never `NaN`."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value if len(value) <= TEXT_CHARS_MAX else value[:TEXT_CHARS_MAX] + "…"
    if isinstance(value, int):
        return count(value) if abs(value) >= 10_000 else str(value)
    if not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if size >= 10_000_000 or 0 < size < 0.001:
        return f"{value:.3g}".replace("-", "\u2212")
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or size == 0 else 4
    return f"{value:,.{decimals}f}".replace(",", THIN).replace("-", "\u2212")


def count(number_of: float) -> str:
    return f"{round(number_of):,}".replace(",", THIN)


def length(span_s: float) -> str:
    """A span in its two largest units: `2 d 6 h`, `1 h 20 min`, `45 s`."""
    whole_s = max(0, int(span_s))
    days, hours, minutes, seconds = whole_s // 86_400, whole_s // 3_600 % 24, whole_s // 60 % 60, whole_s % 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{seconds} s"


def life(low_s: int, high_s: int | None) -> tuple[str, str]:
    """The interval of the remaining life as number and unit, such as 4 to 7 and `h`; beyond sight `> 3` and `days`."""
    scale = next((its for its in _LENGTHS if (high_s or low_s) >= 2 * its[0]), _LENGTHS[-2])
    low, high = low_s / scale[0], (high_s or 0) / scale[0]
    unit = f"{scale[1]}s" if scale[1] in ("week", "day") else scale[1]
    if high_s is None:
        return f"> {low:.0f}", unit
    if round(low) == round(high):
        return f"about {high:.0f}", unit
    return (f"{low:.0f} – {high:.0f}", unit) if round(low) else (f"< {high:.0f}", unit)


def horizon(horizon_s: int) -> str:
    """`24 h`, `7 days`."""
    return f"{horizon_s // 3_600} h" if horizon_s < 3 * 86_400 else f"{horizon_s // 86_400} days"


def finding(signs: Sequence[Sign]) -> str:
    """What stands out among the signs, in plain sentences."""
    out = [sign for sign in signs if sign.share > 0 and not sign.normal_low <= sign.value <= sign.normal_high]
    fine = [sign for sign in signs if sign.normal_low <= sign.value <= sign.normal_high]
    sentences = []
    if out:
        parts = [f"{_spoken(sign)} is {_deviation(sign)}" for sign in out[:2]]
        sentences.append(_sentence(" and ".join(parts)))
    if fine and out:
        verb = "is" if len(fine[:2]) == 1 else "are"
        sentences.append(_sentence(f"{' and '.join(map(_spoken, fine[:2]))} {verb} normal"))
    return " ".join(sentences) or "All signals that the model watches are in their normal range."


def sign_name(sign: Sign) -> str:
    """The feature of a sign in words, with its tag's name."""
    feature = sign.feature.removeprefix(sign.tag).strip("_./ :")
    words = _STATISTICS.get(feature.rpartition("_")[0], title(feature))
    name = tag_name(sign.tag) if sign.tag else ""
    return f"{name}, {lower(words)}" if name and words else name or words


def _spoken(sign: Sign) -> str:
    """The sign's name inside a sentence: `drive-end vibration`."""
    name = sign_name(sign)
    stem, comma, rest = name.partition(", ")
    if comma and rest in [words for _, words in _ENDS.values()]:
        return f"{rest.replace(' end', '-end')} {lower(stem)}"
    return lower(name)


def _deviation(sign: Sign) -> str:
    if sign.value > sign.normal_high:
        if sign.normal_high > 0 and sign.value >= 1.5 * sign.normal_high:
            return f"{sign.value / sign.normal_high:.1f} times the top of its normal range"
        return "above its normal range"
    return "below its normal range"


def _sentence(text: str) -> str:
    return f"{capital(text)}."


def lower(text: str) -> str:
    return text[:1].lower() + text[1:]


@dataclass(frozen=True, slots=True)
class Clock:
    """Shows times in the plant's zone, whatever zone the browser is in."""

    zone: ZoneInfo

    def at(self, at_us: int) -> datetime:
        seconds = max(-62_000_000_000, min(at_us / 1_000_000, 253_000_000_000))
        return datetime.fromtimestamp(seconds, UTC).astimezone(self.zone)

    def time(self, at_us: int) -> str:
        return self.at(at_us).strftime("%H:%M:%S")

    def minute(self, at_us: int) -> str:
        return self.at(at_us).strftime("%H:%M")

    def day(self, at_us: int) -> str:
        moment = self.at(at_us)
        return f"{moment:%a} {moment.day} {moment:%b} {moment:%Y} · {moment:%Z}"

    def moment(self, at_us: int) -> str:
        moment = self.at(at_us)
        return f"{moment:%a} {moment.day} {moment:%b} {moment:%H:%M}"

    def exact(self, at_us: int) -> str:
        return self.at(at_us).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def iso(at_us: int) -> str:
    """A time as ISO 8601 in UTC, to the microsecond where it has any."""
    whole, rest = divmod(at_us, 1_000_000)
    try:
        text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return str(at_us)
    return f"{text}.{rest:06d}Z" if rest else f"{text}Z"


def from_iso(text: str) -> int | None:
    """The microseconds of an ISO time (UTC unless it says otherwise); None when it is none."""
    try:
        moment = datetime.fromisoformat(text.strip().replace(" ", "T"))
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
