"""The data of the overview: is anything about to fail, what, when, and what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from appliance.contract.prediction import Prediction
from appliance.ui import words
from appliance.ui.machine import Limit, Machine, Tag
from appliance.ui.trend import History, Spark, spark
from appliance.ui.view import PlantView

TILES_MAX = 60
"""Tiles of one area."""
SPARK_US = 8 * 3_600_000_000
SPARK_POINTS_MIN = 6
WEEK_US = 7 * 86_400_000_000
MAIN_TAG = {
    "pump": "vibration_de",
    "compressor": "discharge_temperature",
    "motor": "winding_temperature",
    "fan": "vibration",
    "press": "ram_pressure",
}
ICONS = frozenset(MAIN_TAG)


@dataclass(frozen=True, slots=True)
class Tile:
    """One machine at a glance."""

    path: str
    id: str
    name: str
    icon: str
    priority: int | None
    badge: str
    is_stale: bool
    spark: Spark | None
    signal: str
    key: str
    value: str
    unit: str
    health: int | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """A prediction in words."""

    life: str
    life_unit: str
    horizon: str
    probability: int


@dataclass(frozen=True, slots=True)
class Attention:
    """One machine that wants a person."""

    path: str
    id: str
    name: str
    priority: int
    since: str
    message: str
    outlook: Outlook | None
    advice: str


@dataclass(frozen=True, slots=True)
class Area:
    """The machines of one area of one site."""

    name: str
    lines: str
    tiles: tuple[Tile, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole plant at a glance."""

    heading: str
    summary: str
    attention: tuple[Attention, ...]
    areas: tuple[Area, ...]


def overview(view: PlantView) -> Overview:
    """The overview as of now."""
    now_us, clock_us = view.now_us(), view.clock_us()
    attention = sorted(_attention(view, clock_us), key=lambda each: each.priority)
    places: dict[tuple[str, ...], list[Machine]] = {}
    for machine in _by_importance(view):
        places.setdefault(_place(machine.path), []).append(machine)
    stale = sum(machine.is_stale(now_us) for machine in view.machines.values())
    return Overview(
        heading=_heading(len(attention)),
        summary=_summary(len(view.machines), len(attention), stale, now_us, view.predicted_us),
        attention=tuple(attention),
        areas=tuple(_area(view, place, machines, now_us) for place, machines in places.items()),
    )


def outlook(prediction: Prediction) -> Outlook:
    """The interval and the probability as the page says them."""
    life, unit = words.life(prediction.life_low_s, prediction.life_high_s)
    return Outlook(life, unit, words.horizon(prediction.horizon_s), round(100 * prediction.probability))


def main_tag(machine: Machine) -> Tag | None:
    """The signal that stands for the machine: by its type, its first limit, or its first number."""
    wanted = MAIN_TAG.get(machine.type) or next((limit.tag for limit in _limits(machine)), "")
    if wanted in machine.tags:
        return machine.tags[wanted]
    numeric = (tag for _, tag in sorted(machine.tags.items()) if not tag.history.is_empty)
    return next(numeric, None) or next(iter(machine.tags.values()), None)


def unit(machine: Machine, tag: str) -> str:
    """The unit of a tag, empty when nobody said it."""
    return words.unit(machine.equipment.units.get(tag, "")) if machine.equipment else ""


def values(view: PlantView) -> Mapping[str, str]:
    """What changes on the overview between two looks: key and text."""
    texts: dict[str, str] = {}
    for machine in view.machines.values():
        tag = main_tag(machine)
        if tag is not None:
            texts[f"v/{tag.topic}"] = words.number(tag.latest.value)
        if machine.prediction is not None:
            texts[f"h/{machine.path}"] = str(machine.prediction.health)
    return texts


def state(view: PlantView) -> int:
    """A number that changes when the page needs more than new values."""
    now_us = view.now_us()
    machines = tuple((path, its.is_stale(now_us), its.is_stopped) for path, its in view.machines.items())
    return hash((machines, tuple((name, its.priority) for name, its in view.alarms.items())))


def _attention(view: PlantView, clock_us: int) -> list[Attention]:
    found = []
    for path in {alarm.equipment for alarm in view.alarms.values()}:
        machine, alarm = view.machines.get(path) or Machine(path, None), view.alarms_of(path)[0]
        mode = machine.prediction.mode if machine.prediction else ""
        found.append(
            Attention(
                path=path,
                id=machine.id.upper(),
                name=machine.equipment.name if machine.equipment else "",
                priority=alarm.priority,
                since=words.length((clock_us - alarm.raised_at_us) / 1_000_000),
                message=words.capital(mode) if mode else alarm.message,
                outlook=outlook(machine.prediction) if machine.prediction else None,
                advice=words.advice(machine.type, mode).line,
            )
        )
    return sorted(found, key=lambda each: (-each.outlook.probability if each.outlook else 0, each.path))


def _heading(attention: int) -> str:
    if attention == 1:
        return "1 machine needs attention"
    return f"{attention} machines need attention" if attention else "No machine needs attention"


def _summary(machines: int, attention: int, stale: int, now_us: int, predicted_us: int) -> str:
    parts = [f"{max(0, machines - attention - stale)} normal"]
    if stale:
        parts.append(f"{stale} without data")
    if predicted_us:
        parts.append(f"predictions computed {words.length((now_us - predicted_us) / 1_000_000)} ago")
    return " · ".join(parts)


def _by_importance(view: PlantView) -> list[Machine]:
    """Configured machines as configured, then the others by path."""
    configured = [machine for machine in view.machines.values() if machine.equipment]
    others = [machine for machine in view.machines.values() if not machine.equipment]
    return configured + sorted(others, key=lambda machine: machine.path)


def _place(path: str) -> tuple[str, ...]:
    levels = path.split("/")
    return tuple(levels[:3]) if len(levels) == 6 else ()


def _area(view: PlantView, place: tuple[str, ...], machines: list[Machine], now_us: int) -> Area:
    lines = dict.fromkeys(words.title(machine.path.split("/")[3]) for machine in machines) if place else {}
    main_site = next((its.path.split("/")[1] for its in view.machines.values() if its.equipment), "")
    name = words.title(place[2]) if place else "Other topics"
    if place and main_site and place[1] != main_site:
        name = f"{words.title(place[1])} · {name}"
    tiles = tuple(_tile(view, machine, now_us) for machine in machines[:TILES_MAX])
    return Area(name, " · ".join(list(lines)[:8]), tiles, len(machines) - len(tiles))


def _tile(view: PlantView, machine: Machine, now_us: int) -> Tile:
    alarms, tag, is_stale = view.alarms_of(machine.path), main_tag(machine), machine.is_stale(now_us)
    badge = "Stopped" if machine.is_stopped else ""
    if is_stale:
        badge = f"Stale {words.length((now_us - machine.arrival_us) / 1_000_000)}" if machine.arrival_us else "No data"
    end_us = machine.newest_us
    return Tile(
        path=machine.path,
        id=machine.id.upper() if machine.equipment else machine.id,
        name=machine.equipment.name
        if machine.equipment
        else words.title(machine.path.rpartition("/")[0].split("/")[-1]),
        icon=machine.type if machine.type in ICONS else "machine",
        priority=alarms[0].priority if alarms else None,
        badge=badge,
        is_stale=is_stale,
        spark=_spark(tag.history, end_us) if tag and not tag.history.is_empty else None,
        signal=words.tag_short(tag.name) if tag else "No data yet",
        key=f"v/{tag.topic}" if tag else "",
        value=words.number(tag.latest.value) if tag else words.NOTHING,
        unit=unit(machine, tag.name) if tag else "",
        health=machine.prediction.health if machine.prediction else None,
    )


def _spark(history: History, end_us: int) -> Spark | None:
    """The last hours; of a topic that speaks rarely, the last week."""
    history.settle()
    recent = history.tens.between(end_us - SPARK_US, end_us)
    is_rare = len(recent) < min(SPARK_POINTS_MIN, len(history.tens.spans))
    return spark(history, end_us - (WEEK_US if is_rare else SPARK_US), end_us)


def _limits(machine: Machine) -> Sequence[Limit]:
    return machine.equipment.limit if machine.equipment else ()
