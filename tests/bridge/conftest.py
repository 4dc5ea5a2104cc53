"""The far sides of the uplinks: a folder, and a hub of the emulator behind the real client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from azure.eventhub.aio import _client_base_async

from appliance.bridge.eventhubs import Deadlines, EventHubsUplink
from appliance.bridge.folder import FolderUplink
from appliance.bridge.uplink import Uplink
from appliance.contract.envelope import Sealed
from appliance.contract.envelope_file import SUFFIX, from_bytes
from cloud_sync.emulator.amqp import decode
from cloud_sync.emulator.eventhubs import EventHubs

DEADLINES = Deadlines(send_s=8.0, close_s=2.0)
IMPATIENT = Deadlines(send_s=1.0, close_s=0.5)


class Hurried:
    """asyncio as the client sees it: it looks every 2 ms whether its link stands, not every 50."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    async def sleep(delay_s: float, **options: Any) -> None:
        await asyncio.sleep(0.002 if delay_s == 0.05 else delay_s, **options)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting is 30 such looks, and no test here is about their pace."""
    monkeypatch.setattr(_client_base_async, "asyncio", Hurried())


class FarSide(Protocol):
    """Where envelopes arrive: an uplink to it, and what it holds, in the order of arrival."""

    uplink: Uplink

    def arrived(self) -> list[Sealed]: ...


class FolderSide:
    def __init__(self, path: Path) -> None:
        self.path, self.uplink = path, FolderUplink(path)

    def arrived(self) -> list[Sealed]:
        return [from_bytes(path.read_bytes()) for path in sorted(self.path.rglob(f"*{SUFFIX}"))]


class HubSide:
    """A hub of the emulator; each stream has its partition by its key, so order holds within a stream."""

    def __init__(self, hubs: EventHubs) -> None:
        self.hubs = hubs
        self.uplink = self.connect(DEADLINES)

    def connect(self, deadlines: Deadlines) -> EventHubsUplink:
        return EventHubsUplink.from_connection_string(self.hubs.connection_string("readings"), "readings", deadlines)

    def arrived(self) -> list[Sealed]:
        return [Sealed.from_wire(*self.opened(event.message)) for event in self.events()]

    def properties(self) -> list[dict[str, Any]]:
        return [self.opened(event.message)[0] for event in self.events()]

    def events(self) -> list[Any]:
        return [event for number in (0, 1) for event in self.hubs.events("readings", number)]

    @staticmethod
    def opened(message: bytes) -> tuple[dict[str, Any], bytes]:
        sections, position = {}, 0
        while position < len(message):
            section, position = decode(message, position)
            sections[int(section.descriptor)] = section.value
        return sections[0x74], sections[0x75]


@pytest.fixture
async def hub_side(tmp_path: Path) -> AsyncIterator[HubSide]:
    async with EventHubs.open(tmp_path / "hubs.db") as hubs:
        await hubs.serve()
        side = HubSide(hubs)
        yield side
        hubs.faults.black_hole = False
        await side.uplink.close()


@pytest.fixture
def folder_side(tmp_path: Path) -> FolderSide:
    return FolderSide(tmp_path / "envelopes")


@pytest.fixture(params=["folder", "eventhubs"])
def far_side(request: pytest.FixtureRequest) -> FarSide:
    name = "folder_side" if request.param == "folder" else "hub_side"
    side: FarSide = request.getfixturevalue(name)
    return side


@pytest.fixture
def impatient() -> Deadlines:
    """Deadlines short enough for tests that wait for them to pass."""
    return IMPATIENT


@pytest.fixture
def until() -> Callable[..., Any]:
    async def until(true: Callable[[], bool], deadline_s: float = 30.0) -> None:
        async with asyncio.timeout(deadline_s):
            while not true():  # noqa: ASYNC110 - what is looked at has no event to wait for
                await asyncio.sleep(0.01)

    return until
