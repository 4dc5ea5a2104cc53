"""What stands around every page: the plant's clock, the alarms, the cloud; and what each part says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.ui import words
from appliance.ui.view import PlantView

DEPTH_MAX = 4
ROWS_MAX = 200


@dataclass(frozen=True, slots=True)
class Cloud:
    """The link to the cloud in words. Being offline is no alarm: nothing is lost, and no operator can mend it."""

    is_up: bool
    text: str
    since: str
    waiting: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The data of the top bar and the side bar."""

    site: str
    clock: str
    day: str
    cloud: Cloud | None
    alarms: tuple[tuple[int, str, int], ...]
    """Priority, its name, and how many stand."""
    rate: str
    machines: int
    page: str


@dataclass(frozen=True, slots=True)
class PartRows:
    """One part's own words, as rows."""

    name: str
    icon: str
    rows: tuple[tuple[str, str], ...]


def frame(view: PlantView, site: str, status: Mapping[str, object], clock: words.Clock, page: str) -> Frame:
    """The frame as of now."""
    clock_us = view.clock_us()
    return Frame(
        site=site,
        clock=clock.minute(clock_us),
        day=clock.day(clock_us),
        cloud=cloud(status, view.now_us()),
        alarms=tuple(
            (priority, name, sum(alarm.priority == priority for alarm in view.alarms.values()))
            for priority, name in words.PRIORITIES.items()
        ),
        rate=words.count(view.rate()),
        machines=len(view.machines),
        page=page,
    )


def values(view: PlantView, status: Mapping[str, object], clock: words.Clock) -> Mapping[str, str]:
    """What changes in the frame between two looks: key and text."""
    clock_us, link = view.clock_us(), cloud(status, view.now_us())
    texts = {"clock": clock.minute(clock_us), "day": clock.day(clock_us), "rate": words.count(view.rate())}
    if link is not None:
        texts |= {"cloud.since": link.since, "cloud.waiting": link.waiting}
    return texts


def cloud(status: Mapping[str, object], now_us: int) -> Cloud | None:
    """The link as the part `bridge` reports it: `link`, `since_us`, a `backlog` for each stream; None without one."""
    bridge = status.get("bridge")
    if not isinstance(bridge, Mapping):
        return None
    link, since_us = bridge.get("link"), bridge.get("since_us")
    backlogs = [stream.get("backlog") for stream in bridge.values() if isinstance(stream, Mapping)]
    waiting = sum(backlog for backlog in backlogs if isinstance(backlog, int))
    since = words.length((now_us - since_us) / 1_000_000) if isinstance(since_us, int) and link == "down" else ""
    text = "Cloud link held" if bridge.get("held") else _LINKS.get(str(link), "Cloud link up")
    return Cloud(link != "down", text, since, words.count(waiting))


_LINKS = {"down": "Cloud offline", "untried": "Cloud link waiting"}
_ICONS = {"bridge": "sync", "buffer": "db", "broker": "broker", "inference": "model", "alarms": "alarm"}


def parts(status: Mapping[str, object], clock: words.Clock) -> tuple[PartRows, ...]:
    """Every part of the status as a table; single facts come first, as the part `appliance`."""
    single = {name: value for name, value in status.items() if not isinstance(value, Mapping)}
    tables: list[tuple[str, Mapping[str, object]]] = [("appliance", single)] if single else []
    tables += [(name, value) for name, value in status.items() if isinstance(value, Mapping) and name != "parts"]
    running = status.get("parts")
    if isinstance(running, Mapping):
        tables.insert(0, ("parts", {name: _part(part) for name, part in running.items()}))
    return tuple(
        PartRows(words.title(name), _ICONS.get(name, "part"), tuple(_rows(table, clock, 0))[:ROWS_MAX])
        for name, table in tables
    )


def _part(part: object) -> object:
    """A supervised part in one line: its state, and its restarts with the last reason when there were any."""
    if not isinstance(part, Mapping) or "state" not in part:
        return part
    restarts, error = part.get("restarts"), part.get("last_error")
    return f"{part['state']}, {restarts} restarts: {error}" if restarts else str(part["state"])


def _rows(table: Mapping[str, object], clock: words.Clock, depth: int) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in table.items():
        if isinstance(value, Mapping) and depth < DEPTH_MAX:
            rows += [(f"{words.title(str(name))} · {inner}", text) for inner, text in _rows(value, clock, depth + 1)]
        else:
            rows.append(_row(str(name), value, clock))
    return rows


def _row(name: str, value: object, clock: words.Clock) -> tuple[str, str]:
    """A fact in words; the unit is the last part of its name, as everywhere in the appliance."""
    stem, _, suffix = name.rpartition("_")
    if isinstance(value, (list, tuple)):
        return words.title(name), ", ".join(map(str, value[:20])) or words.NOTHING
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if suffix == "us" and value > 10**15:
            return words.title(stem), clock.exact(int(value))
        if suffix == "s" and not stem.endswith("_per"):
            return words.title(stem), words.length(value) if value >= 1 else f"{words.number(value)} s"
        if suffix == "bytes":
            return words.title(stem), _bytes(value)
    shown = value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
    return words.title(name), words.number(shown) or words.NOTHING


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1_000:
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:.3g} TB"
