"""The kinds of machines: how each type fails, what it measures, and how its values follow from its condition."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LOAD_MEAN = 0.9


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to fail: how long a new life lasts in the median, how long before its end it shows, what load does."""

    name: str
    life_h: float
    tau_h: float
    load_power: float


@dataclass(frozen=True, slots=True)
class Tag:
    """One measured quantity with its noise: white from sample to sample, slow over minutes."""

    name: str
    white: float
    slow: float


@dataclass(frozen=True, slots=True)
class Condition:
    """What the machines of a fleet are like at one moment, one array element each."""

    load: Array
    """0 when stopped, 0.8 to 1 in normal work."""
    spin: Array
    """1 while running, else 0."""
    heat: Array
    """Load squared as the mass of the machine follows it."""
    ambient: Array
    ripple: Array
    wear: tuple[Array, ...]
    """Severity by failure mode, 0 as new to 1 at the failure."""


def _pump(c: Condition) -> tuple[Array, ...]:
    bearing, cavitation = c.wear
    return (
        c.spin * (1.4 + 0.8 * (c.load - LOAD_MEAN) + 6.5 * bearing + 2.4 * cavitation),
        c.ambient + c.heat * (26.0 + 30.0 * bearing**1.5 + 3.0 * cavitation),
        1.9 - c.spin * (0.1 + 0.95 * cavitation + 0.05 * cavitation * c.ripple),
        0.15 + c.spin * (6.1 - 1.3 * cavitation + (0.02 + 0.25 * cavitation) * c.ripple),
        c.load * (68.0 * (1.0 - 0.25 * cavitation) + (0.4 + 4.5 * cavitation) * c.ripple),
        c.load * (23.0 + 1.6 * bearing - 1.2 * cavitation),
    )


def _compressor(c: Condition) -> tuple[Array, ...]:
    (clogging,) = c.wear
    return (
        c.ambient + c.heat * (62.0 + 34.0 * clogging),
        c.load**2 * (35.0 + 105.0 * clogging),
        c.spin * (2.9 - 0.25 * clogging),
        0.3 + c.spin * (7.1 - 0.7 * clogging),
        c.load * (96.0 + 11.0 * clogging),
    )


def _motor(c: Condition) -> tuple[Array, ...]:
    (winding,) = c.wear
    return (
        c.ambient + c.heat * (68.0 + 58.0 * winding),
        c.spin * (1.1 + 0.9 * winding + 0.4 * (c.load - LOAD_MEAN)),
        c.load * (38.0 + 6.5 * winding),
        c.spin * (1492.0 - 14.0 * c.load - 11.0 * winding),
    )


def _fan(c: Condition) -> tuple[Array, ...]:
    (bearing,) = c.wear
    return (
        c.spin * (1.9 + 0.9 * (c.load - LOAD_MEAN) + 7.4 * bearing),
        c.ambient + c.heat * (21.0 + 29.0 * bearing**1.5),
        c.load * (15.5 - 0.7 * bearing),
        c.load * (19.0 + 1.5 * bearing),
    )


def _press(c: Condition) -> tuple[Array, ...]:
    (leakage,) = c.wear
    return (
        c.spin * (212.0 - 32.0 * leakage + (0.6 + 2.0 * leakage) * c.ripple),
        c.ambient + c.heat * (27.0 + 16.0 * leakage),
        c.spin * (6.9 - 0.7 * c.load + 1.5 * leakage),
        c.spin * (0.06 + 0.42 * leakage),
    )


Says = Callable[[Condition], tuple[Array, ...]]
KINDS: dict[str, tuple[tuple[Mode, ...], tuple[Tag, ...], Says]] = {
    "pump": (
        (Mode("bearing wear", 420.0, 16.0, 3.0), Mode("cavitation", 520.0, 20.0, 2.0)),
        (
            Tag("vibration_de", 0.08, 0.04),
            Tag("bearing_temperature", 0.3, 0.25),
            Tag("suction_pressure", 0.015, 0.01),
            Tag("discharge_pressure", 0.03, 0.02),
            Tag("flow", 0.4, 0.3),
            Tag("motor_current", 0.15, 0.1),
        ),
        _pump,
    ),
    "compressor": (
        (Mode("filter clogging", 430.0, 60.0, 2.0),),
        (
            Tag("discharge_temperature", 0.4, 0.4),
            Tag("filter_pressure_drop", 0.5, 0.4),
            Tag("oil_pressure", 0.02, 0.01),
            Tag("discharge_pressure", 0.03, 0.02),
            Tag("motor_current", 0.5, 0.4),
        ),
        _compressor,
    ),
    "motor": (
        (Mode("winding over-temperature", 400.0, 28.0, 5.0),),
        (
            Tag("winding_temperature", 0.4, 0.4),
            Tag("vibration", 0.05, 0.03),
            Tag("motor_current", 0.2, 0.15),
            Tag("speed", 0.5, 0.4),
        ),
        _motor,
    ),
    "fan": (
        (Mode("bearing wear", 460.0, 18.0, 3.0),),
        (
            Tag("vibration", 0.1, 0.05),
            Tag("bearing_temperature", 0.3, 0.25),
            Tag("airflow", 0.1, 0.08),
            Tag("motor_current", 0.12, 0.08),
        ),
        _fan,
    ),
    "press": (
        (Mode("drift", 380.0, 26.0, 2.0),),
        (
            Tag("ram_pressure", 0.8, 0.5),
            Tag("oil_temperature", 0.25, 0.2),
            Tag("cycle_time", 0.02, 0.012),
            Tag("position_error", 0.004, 0.002),
        ),
        _press,
    ),
}
