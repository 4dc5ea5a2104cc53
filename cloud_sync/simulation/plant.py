"""The simulated plant: eighteen machines in three areas, two of them due to fail while somebody watches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloud_sync.simulation.physics import Machine, life_used_h, modes_of, tags_of

UNITS = {
    "vibration_de": "mm/s",
    "vibration": "mm/s",
    "bearing_temperature": "°C",
    "suction_pressure": "bar",
    "discharge_pressure": "bar",
    "flow": "m3/h",
    "motor_current": "A",
    "discharge_temperature": "°C",
    "filter_pressure_drop": "mbar",
    "oil_pressure": "bar",
    "winding_temperature": "°C",
    "speed": "rpm",
    "airflow": "m3/s",
    "ram_pressure": "bar",
    "oil_temperature": "°C",
    "cycle_time": "s",
    "position_error": "mm",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound of a tag that wants a person when it is passed; exactly one of `high` and `low` is given."""

    tag: str
    priority: int
    message: str
    high: float | None = None
    low: float | None = None


@dataclass(frozen=True, slots=True)
class Equipment:
    """One machine of the plant as its configuration names it."""

    path: str
    name: str
    type: str
    limits: tuple[Limit, ...]

    @property
    def id(self) -> str:
        return self.path.rsplit("/", 1)[1]

    @property
    def tags(self) -> tuple[str, ...]:
        return tags_of(self.type)

    @property
    def units(self) -> dict[str, str]:
        return {tag: UNITS[tag] for tag in self.tags}


_LIMITS: dict[str, tuple[Limit, ...]] = {
    "pump": (
        Limit("vibration_de", 2, "Vibration is above the limit of ISO 10816: slow the pump down", high=7.1),
        Limit("bearing_temperature", 2, "Drive-end bearing is too hot: check the lubrication", high=76.0),
        Limit("suction_pressure", 2, "Suction pressure is too low: check the inlet strainer and valve", low=1.05),
    ),
    "compressor": (
        Limit("filter_pressure_drop", 2, "Inlet filter is clogged: change the filter", high=100.0),
        Limit("discharge_temperature", 1, "Discharge is too hot: unload the compressor", high=104.0),
        Limit("oil_pressure", 1, "Oil pressure is too low: stop the compressor", low=2.3),
    ),
    "motor": (
        Limit("winding_temperature", 1, "Winding is above class F: reduce the load", high=128.0),
        Limit("vibration", 3, "Vibration is above the limit: check the coupling", high=2.8),
    ),
    "fan": (
        Limit("vibration", 2, "Vibration is above the limit of ISO 14694: check balance and bearings", high=8.4),
        Limit("bearing_temperature", 2, "Bearing is too hot: check the lubrication", high=70.0),
    ),
    "press": (
        Limit("position_error", 2, "Ram position is off: parts may be out of tolerance", high=0.42),
        Limit("ram_pressure", 2, "Ram pressure is too low: check pump and seals", low=186.0),
        Limit("oil_temperature", 3, "Hydraulic oil is too hot: check the cooler", high=66.0),
    ),
}
_ROOT = "acme/northfield"
_TYPES = {"pmp": "pump", "cmp": "compressor", "mtr": "motor", "fan": "fan", "prs": "press"}
_PLACES = (
    ("utilities/boiler-house/feed/pmp-203", "Boiler feed pump A"),
    ("utilities/boiler-house/feed/pmp-204", "Boiler feed pump B"),
    ("utilities/compressed-air/generation/cmp-101", "Air compressor 1"),
    ("utilities/compressed-air/generation/cmp-102", "Air compressor 2"),
    ("utilities/cooling/tower/fan-310", "Cooling tower fan 1"),
    ("utilities/cooling/tower/fan-311", "Cooling tower fan 2"),
    ("packaging/line-3/labelling/mtr-331", "Labeller drive"),
    ("packaging/line-3/labelling/mtr-332", "Labeller conveyor drive"),
    ("packaging/line-3/filling/pmp-335", "Filling pump"),
    ("packaging/line-4/sealing/mtr-341", "Sealer drive"),
    ("packaging/line-4/sealing/mtr-342", "Sealer conveyor drive"),
    ("packaging/line-4/cooling/fan-345", "Tunnel cooling fan"),
    ("forming/press-line-1/pressing/prs-110", "Forming press 1"),
    ("forming/press-line-1/pressing/prs-111", "Forming press 2"),
    ("forming/press-line-1/pressing/prs-112", "Forming press 3"),
    ("forming/press-line-1/hydraulics/pmp-121", "Hydraulic oil pump"),
    ("forming/press-line-1/hydraulics/cmp-122", "Clamping air compressor"),
    ("forming/press-line-1/hydraulics/fan-123", "Oil cooler fan"),
)


def _equipment(place: str, name: str) -> Equipment:
    type = _TYPES[place.rsplit("/", 1)[1][:3]]
    return Equipment(f"{_ROOT}/{place}", name, type, _LIMITS[type])


EQUIPMENT: tuple[Equipment, ...] = tuple(_equipment(place, name) for place, name in _PLACES)

# What the demo shows: hours left at the start, between these two, and of what.
_DUE: dict[str, tuple[str, float, float]] = {
    "pmp-204": ("bearing wear", 5.0, 7.0),
    "mtr-332": ("winding over-temperature", 28.0, 32.0),
    "cmp-102": ("filter clogging", 92.0, 100.0),
}
_HEALTHY_H = (216.0, 480.0)


def machines(seed: int, start_s: float = 0.0) -> dict[str, Machine]:
    """The plant's machines by equipment path; `start_s` is the plant time of the start, in seconds of UTC."""
    return {
        equipment.path: _machine(equipment, np.random.default_rng([seed, number]), seed * 1000 + number, start_s)
        for number, equipment in enumerate(EQUIPMENT)
    }


def _machine(equipment: Equipment, rng: np.random.Generator, seed: int, start_s: float) -> Machine:
    left_h = {mode: float(rng.uniform(*_HEALTHY_H)) for mode in modes_of(equipment.type)}
    if due := _DUE.get(equipment.id):
        mode, low, high = due
        left_h[mode] = life_used_h(equipment.type, mode, start_s, float(rng.uniform(low, high)))
    return Machine(equipment.type, seed, left_h, start_s)


def equipment_toml(equipment: Sequence[Equipment] = EQUIPMENT) -> str:
    """The plant as the `[[equipment]]` sections of a plant.toml."""
    return "\n".join(_section(each) for each in equipment)


def _section(equipment: Equipment) -> str:
    lines = [
        "[[equipment]]",
        f'path = "{equipment.path}"',
        f'name = "{equipment.name}"',
        f'type = "{equipment.type}"',
        "[equipment.units]",
        *(f'{tag} = "{unit}"' for tag, unit in equipment.units.items()),
    ]
    for limit in equipment.limits:
        bound = f"high = {limit.high}" if limit.high is not None else f"low = {limit.low}"
        lines += [
            "[[equipment.limit]]",
            f'tag = "{limit.tag}"',
            bound,
            f"priority = {limit.priority}",
            f'message = "{limit.message}"',
        ]
    return "\n".join(lines) + "\n"
