"""The data of one equipment's page: why the model says so, whether to believe it, and how long there is."""

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.contract.prediction import PREDICTION_TAG, Alarm, AlarmState, Prediction, Sign
from appliance.contract.reading import Quality, Reading
from appliance.ui import words
from appliance.ui.machine import Machine
from appliance.ui.overview import ICONS, Outlook, main_tag, outlook, unit
from appliance.ui.search import Found
from appliance.ui.trend import MINUTE_US
from appliance.ui.view import PlantView

PLOTS_MAX = 8
SIGNS_MAX = 6
EVENTS_MAX = 14
CHANGE_MINUTES = 60
_QUALITY = {Quality.GOOD: "good", Quality.UNCERTAIN: "uncertain", Quality.BAD: "bad"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the model says of the machine, in words."""

    priority: int | None
    heading: str
    finding: str
    outlook: Outlook
    change: int
    """Points of probability in the last hour of plant time."""
    health: int
    health_word: str
    model: str
    age: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One curve of the page."""

    topic: str
    name: str
    key: str
    value: str
    unit: str
    high: float | None
    low: float | None
    is_percent: bool = False


@dataclass(frozen=True, slots=True)
class SignRow:
    """One sign, with its place on a bar of 100 where the normal range lies between 30 and 60."""

    name: str
    value: str
    normal: str
    at: float
    is_out: bool
    share: int


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """A standing alarm."""

    priority: int
    message: str
    raised_us: int
    standing: str


@dataclass(frozen=True, slots=True)
class EventRow:
    """An alarm's change of state."""

    at_us: int
    priority: int
    is_raised: bool
    message: str
    kind: str
    path: str
    id: str


@dataclass(frozen=True, slots=True)
class ReadingRow:
    """One reading as it was written down."""

    tag: str
    value: str
    unit: str
    quality: str
    source_us: int
    arrival_us: int
    message_id: str


@dataclass(frozen=True, slots=True)
class Detail:
    """One equipment's page."""

    path: str
    id: str
    name: str
    icon: str
    crumbs: tuple[str, ...]
    state: str
    is_stale: bool
    verdict: Verdict | None
    plots: tuple[Plot, ...]
    alarms: tuple[AlarmRow, ...]
    signs: tuple[SignRow, ...]
    steps: tuple[tuple[str, str], ...]
    events: tuple[EventRow, ...]
    readings: tuple[ReadingRow, ...]
    newest_us: int


def detail(view: PlantView, machine: Machine, found: Found | None = None) -> Detail:
    """The page of a machine as of now; with the readings of a search when there was one."""
    now_us, clock_us, prediction = view.now_us(), view.clock_us(), machine.prediction
    alarms = view.alarms_of(machine.path)
    newest = tuple(reversed(machine.arrivals)) if found is None else found.readings
    is_stale = machine.is_stale(now_us)
    return Detail(
        path=machine.path,
        id=machine.id.upper() if machine.equipment else machine.id,
        name=machine.equipment.name if machine.equipment else "",
        icon=machine.type if machine.type in ICONS else "machine",
        crumbs=tuple(words.title(level) for level in machine.path.split("/")[1:5]),
        state=_state(machine, now_us, is_stale),
        is_stale=is_stale,
        verdict=_verdict(view, machine, prediction, alarms, now_us) if prediction else None,
        plots=tuple(_plots(machine)),
        alarms=tuple(
            AlarmRow(its.priority, its.message, its.raised_at_us, words.length((clock_us - its.raised_at_us) / 1e6))
            for its in alarms
        ),
        signs=tuple(_sign_row(sign) for sign in prediction.signs[:SIGNS_MAX]) if prediction else (),
        steps=words.advice(machine.type, prediction.mode if prediction else "").steps if alarms else (),
        events=tuple(event_row(alarm) for alarm in _events(view, machine.path)),
        readings=tuple(_reading_row(view, machine, seq, reading) for seq, reading in newest),
        newest_us=machine.newest_us,
    )


def values(view: PlantView, machine: Machine) -> Mapping[str, str]:
    """What changes on the page between two looks: key and text."""
    texts = {plot.key: plot.value for plot in _plots(machine)}
    if machine.prediction is not None:
        texts[f"h/{machine.path}"] = str(machine.prediction.health)
    return texts


def state(view: PlantView, machine: Machine) -> int:
    """A number that changes when the page needs more than new values."""
    alarms = tuple((its.key, its.priority) for its in view.alarms_of(machine.path))
    return hash((machine.is_stale(view.now_us()), machine.is_stopped, alarms, len(machine.tags), len(view.alarms)))


def event_row(alarm: Alarm) -> EventRow:
    return EventRow(
        at_us=alarm.at_us,
        priority=alarm.priority,
        is_raised=alarm.state is AlarmState.RAISED,
        message=alarm.message,
        kind=alarm.key.partition("/")[0],
        path=alarm.equipment,
        id=alarm.equipment.rpartition("/")[2],
    )


def _state(machine: Machine, now_us: int, is_stale: bool) -> str:
    if not machine.arrival_us:
        return "No data yet"
    if is_stale:
        return f"No data for {words.length((now_us - machine.arrival_us) / 1_000_000)}"
    return "Stopped" if machine.is_stopped else "Running" if "running" in machine.tags else "Reporting"


def _verdict(view: PlantView, machine: Machine, said: Prediction, alarms: list[Alarm], now_us: int) -> Verdict:
    heading = f"{words.capital(said.mode)} is progressing" if said.mode else "Nothing points to a failure"
    if said.mode and not alarms:
        heading = f"Early signs of {said.mode}"
    health = "good" if said.health >= 70 else "fair" if said.health >= 40 else "poor"
    return Verdict(
        priority=alarms[0].priority if alarms else None,
        heading=heading,
        finding=words.finding(said.signs),
        outlook=outlook(said),
        change=_change(machine, said),
        health=said.health,
        health_word=health,
        model=said.model,
        age=words.length((machine.newest_us - said.at_us) / 1_000_000) if machine.newest_us else "",
    )


def _change(machine: Machine, said: Prediction) -> int:
    machine.predicted.settle()
    before = machine.predicted.minutes.spans.get(said.at_us // MINUTE_US - CHANGE_MINUTES)
    return round(100 * said.probability - before.last) if before else 0


def _plots(machine: Machine) -> list[Plot]:
    main = main_tag(machine)
    numeric = [tag for tag in machine.tags.values() if not tag.history.is_empty]
    # What has a limit comes first, then the configured order of units, then the name.
    order = list(machine.equipment.units) if machine.equipment else []
    numeric.sort(
        key=lambda tag: (
            tag is not main,
            machine.limit(tag.name) is None,
            order.index(tag.name) if tag.name in order else len(order),
            tag.name,
        )
    )
    plots = []
    for tag in numeric[:PLOTS_MAX]:
        limit, text = machine.limit(tag.name), words.number(tag.latest.value)
        high, low = (limit.high, limit.low) if limit else (None, None)
        key = f"v/{tag.topic}"
        plots.append(Plot(tag.topic, words.tag_name(tag.name), key, text, unit(machine, tag.name), high, low))
    if machine.prediction is not None:
        said = machine.prediction
        name = f"Failure probability, {words.horizon(said.horizon_s)}"
        topic, text = f"{machine.path}/{PREDICTION_TAG}", str(round(100 * said.probability))
        plots.insert(2, Plot(topic, name, f"p/{machine.path}", text, "%", None, None, True))
    return plots


def _sign_row(sign: Sign) -> SignRow:
    width = sign.normal_high - sign.normal_low or abs(sign.normal_high) or 1.0
    at = 30 + 30 * (sign.value - sign.normal_low) / width
    normal = f"{words.number(sign.normal_low)} – {words.number(sign.normal_high)}"
    return SignRow(
        name=words.sign_name(sign),
        value=f"{words.number(sign.value)} {words.unit(sign.unit)}".strip(),
        normal=normal,
        at=round(max(1.5, min(at, 98.5)), 1),
        is_out=not sign.normal_low <= sign.value <= sign.normal_high,
        share=round(100 * sign.share),
    )


def _events(view: PlantView, path: str) -> list[Alarm]:
    its = [alarm for _, alarm in reversed(view.alarm_events) if alarm.equipment == path]
    return its[:EVENTS_MAX]


def _reading_row(view: PlantView, machine: Machine, seq: int, reading: Reading) -> ReadingRow:
    tag = reading.topic.removeprefix(machine.path + "/")
    return ReadingRow(
        tag=tag,
        value=words.number(reading.value),
        unit=unit(machine, tag),
        quality=_QUALITY.get(Quality(reading.quality), "") if reading.quality in set(Quality) else str(reading.quality),
        source_us=reading.source_us,
        arrival_us=reading.arrival_us,
        message_id=view.message_id(seq),
    )
