"""A small plant for the page: three machines with a past, one of them failing, one silent, and a replay from 2015."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest

from appliance.buffer.buffer import Buffer
from appliance.contract.prediction import Alarm, AlarmState, Prediction, Sign
from appliance.contract.reading import Quality, Reading, Stream
from appliance.supervisor import now_us, supervise
from appliance.ui.app import create_app
from appliance.ui.server import WebServer
from appliance.ui.view import PlantView

ROOT = "acme/northfield"
PUMP = f"{ROOT}/utilities/boiler-house/feed/pmp-204"
STANDBY = f"{ROOT}/utilities/boiler-house/feed/pmp-203"
MOTOR = f"{ROOT}/packaging/line-3/labelling/mtr-332"
SILENT = f"{ROOT}/utilities/cooling/tower/fan-311"
REPLAYED = "acme/pdm/hall/line1/cell1/m1"
MINUTE_US = 60_000_000


@dataclass(frozen=True)
class FakeLimit:
    tag: str
    message: str
    high: float | None = None
    low: float | None = None
    priority: int = 2


@dataclass(frozen=True)
class FakeEquipment:
    path: str
    name: str
    type: str
    units: dict[str, str] = field(default_factory=dict)
    limit: tuple[FakeLimit, ...] = ()


PUMP_UNITS = {"vibration_de": "mm/s", "bearing_temperature": "°C", "flow": "m3/h"}
EQUIPMENT = (
    FakeEquipment(
        PUMP,
        "Boiler feed pump B",
        "pump",
        PUMP_UNITS,
        (FakeLimit("vibration_de", "Vibration above 6.3 mm/s", 6.3, priority=1),),
    ),
    FakeEquipment(STANDBY, "Boiler feed pump A", "pump", PUMP_UNITS),
    FakeEquipment(MOTOR, "Labeller drive", "motor", {"winding_temperature": "°C", "motor_current": "A"}),
    FakeEquipment(SILENT, "Cooling tower fan 2", "fan", {"vibration": "mm/s"}),
)


class Feeder:
    """Writes the plant's readings and events into a real Buffer."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.end_us = now_us() // MINUTE_US * MINUTE_US

    async def say(self, topic: str, value: object, source_us: int | None = None, quality: int = Quality.GOOD) -> int:
        at_us = self.end_us if source_us is None else source_us
        return await self.buffer.append([Reading(topic, value, quality, at_us, at_us, now_us(), "test")])  # type: ignore[arg-type]

    async def past(self, minutes: int = 300) -> None:
        """The last hours, one reading a minute, with a gap in the middle and a bearing that wears."""
        entries = []
        for minute in range(minutes):
            at_us = self.end_us - (minutes - 1 - minute) * MINUTE_US
            if minutes * 0.40 < minute < minutes * 0.46:
                continue
            part, wave = minute / minutes, math.sin(minute / 9) + 0.6 * math.sin(minute * 1.7)
            wear = max(0.0, (part - 0.6) / 0.4) ** 2
            for topic, value in (
                (f"{PUMP}/vibration_de", 2.4 + 0.2 * wave + 4.5 * wear),
                (f"{PUMP}/bearing_temperature", 64 + 1.1 * wave + 15 * wear),
                (f"{PUMP}/flow", 118 + wave),
                (f"{PUMP}/running", True),
                (f"{STANDBY}/vibration_de", 2.1 + 0.15 * wave),
                (f"{STANDBY}/running", False),
                (f"{MOTOR}/winding_temperature", 51 + wave + 9 * part),
                (f"{MOTOR}/motor_current", 9.6 + 0.2 * wave),
            ):
                entries.append(Reading(topic, value, Quality.GOOD, at_us, at_us, now_us(), "opcua:test"))
        await self.buffer.append(entries)
        events = []
        for minute in range(0, minutes, 2):
            at_us = self.end_us - (minutes - 1 - minute) * MINUTE_US
            wear = max(0.0, (minute / minutes - 0.6) / 0.4) ** 2
            events.append(prediction(PUMP, at_us, 0.02 + 0.69 * wear, round(95 - 57 * wear)).entry(now_us()))
        events.append(prediction(STANDBY, self.end_us, 0.01, 91, "", ()).entry(now_us()))
        await self.buffer.append(events, Stream.EVENTS)

    async def alarm(self, state: AlarmState = AlarmState.RAISED, key: str = "prediction", priority: int = 1) -> None:
        raised_us = self.end_us - 25 * MINUTE_US
        message = "Failure within 24 h above 60 %" if key == "prediction" else "Vibration above 6.3 mm/s"
        alarm = Alarm(PUMP, key, state, priority, message, 0.71, 0.6, self.end_us - 25 * MINUTE_US, raised_us)
        await self.buffer.append([alarm.entry(now_us())], Stream.EVENTS)


def prediction(
    path: str,
    at_us: int,
    probability: float,
    health: int,
    mode: str = "bearing wear",
    signs: tuple[Sign, ...] | None = None,
) -> Prediction:
    usual = (
        Sign("vibration_de.mean_10m", "vibration_de", 6.84, "mm/s", 2.0, 3.5, 0.46),
        Sign("bearing_temperature.mean_10m", "bearing_temperature", 78.2, "°C", 58, 72, 0.14),
        Sign("flow.mean_10m", "flow", 118.2, "m3/h", 110, 125, -0.03),
    )
    return Prediction(
        path,
        at_us,
        probability,
        86_400,
        14_400,
        25_200,
        health,
        "plantward 1.0",
        mode,
        usual if signs is None else signs,
    )


@dataclass
class Plant:
    """A running page: its view, its feeder, its application and, when served, its address."""

    buffer: Buffer
    view: PlantView
    feeder: Feeder
    status: dict[str, object]
    app: object
    url: str = ""

    async def caught_up(self) -> None:
        """Wait until the view has taken in all that is in the log."""
        wanted = tuple(self.buffer.last(stream) for stream in Stream)
        await until(lambda: tuple(self.view._seqs[stream] for stream in Stream) >= wanted)


async def until(is_so: object, within_s: float = 10.0) -> None:
    deadline = monotonic() + within_s
    while not is_so():  # type: ignore[operator]
        assert monotonic() < deadline, "it has not come about in time"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running_plant(path: Path, is_served: bool) -> AsyncIterator[Plant]:
    async with Buffer.open(path / "buffer.db", "northfield") as buffer:
        view = PlantView(buffer, EQUIPMENT, now_us)
        bridge = {"link": "up", "since_us": now_us(), "readings": {"backlog": 12}, "events": {"backlog": 0}}
        status: dict[str, object] = {
            "ready": True,
            "bridge": bridge,
            "buffer": {"size_bytes": 48_200_000, "entries": 184_220, "<b>odd</b>": "<script>alert(1)</script>"},
        }
        app = create_app(view, "Northfield", lambda: status, lambda: "plantward_up 1\n", lambda: True)
        server = WebServer("127.0.0.1:0", app)
        plant = Plant(buffer, view, Feeder(buffer), status, app)
        async with supervise() as parts:
            parts.start("view", view.run)
            if is_served:
                parts.start("web", server.run)
                await until(lambda: server.port is not None)
                plant.url = f"http://127.0.0.1:{server.port}"
            yield plant


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    """The page without a socket."""
    async with running_plant(tmp_path, False) as plant:
        yield plant


@pytest.fixture
async def served_plant(tmp_path: Path) -> AsyncIterator[Plant]:
    """The page on a port of its own."""
    async with running_plant(tmp_path, True) as plant:
        yield plant


@dataclass(frozen=True)
class Paths:
    """The names of the small plant, for tests that cannot import this file."""

    PUMP: str = PUMP
    STANDBY: str = STANDBY
    MOTOR: str = MOTOR
    SILENT: str = SILENT
    REPLAYED: str = REPLAYED

    async def until(self, is_so: object, within_s: float = 10.0) -> None:
        await until(is_so, within_s)


@pytest.fixture
def paths() -> Paths:
    return Paths()
