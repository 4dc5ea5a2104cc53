"""How receipts leave the cloud: over a hub, or as a file beside the envelopes that were carried here."""

import asyncio
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from appliance.contract.receipt import Receipt

if TYPE_CHECKING:
    from azure.eventhub.aio import EventHubProducerClient

SEND_S_MAX: Final = 30.0
CLOSE_S_MAX: Final = 2.0
FOLDER: Final = "receipts"


class DoorError(Exception):
    """Receipts cannot be sent now; one line with a hint. They replace each other, so nothing is lost."""


class Door(Protocol):
    """Takes receipts to the plants."""

    async def send(self, changed: Sequence[Receipt], every: Sequence[Receipt]) -> None:
        """Send those that have changed, or all when the way asks for it; raises `DoorError` within a bounded time."""

    async def close(self) -> None:
        """Let go of the way."""


class HubDoor:
    """Receipts as events of a hub, by plant."""

    def __init__(self, connection_string: str, hub: str) -> None:
        self._connection_string, self._hub = connection_string, hub
        self._client: EventHubProducerClient | None = None

    async def send(self, changed: Sequence[Receipt], every: Sequence[Receipt]) -> None:
        from azure.eventhub import EventData
        from azure.eventhub.aio import EventHubProducerClient

        if self._client is None:
            self._client = EventHubProducerClient.from_connection_string(
                self._connection_string, eventhub_name=self._hub, retry_total=0
            )
        try:
            async with asyncio.timeout(SEND_S_MAX):
                for receipt in changed:
                    await self._client.send_batch([EventData(receipt.to_body())], partition_key=receipt.plant)
        except _expected() as error:
            await self.close()
            text = str(error).partition("\n")[0] or type(error).__name__
            hint = "create it, and give this service the role Azure Event Hubs Data Sender on it"
            raise DoorError(f"hub {self._hub}: {text}; {hint}") from error

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        with suppress(*_expected()):
            async with asyncio.timeout(CLOSE_S_MAX):
                await client.close()


class FolderDoor:
    """A file for each plant, to be carried back: `receipts/PLANT.json`, a list."""

    def __init__(self, path: Path) -> None:
        self._path = path / FOLDER

    async def send(self, changed: Sequence[Receipt], every: Sequence[Receipt]) -> None:
        plants = {receipt.plant for receipt in changed}
        try:
            for plant in plants:
                its = [json.loads(receipt.to_body()) for receipt in every if receipt.plant == plant]
                await asyncio.to_thread(_write, self._path / f"{quote(plant, safe='')}.json", json.dumps(its))
        except OSError as error:
            text = f"{self._path} cannot be written: {error.strerror or error}"
            raise DoorError(f"{text}; make it writable, or set [hub] receipts to empty") from error

    async def close(self) -> None:
        """Nothing is held open."""


def _expected() -> tuple[type[Exception], ...]:
    """What the client raises when its link breaks; the last two when it goes away under its hands."""
    from azure.core.exceptions import AzureError
    from azure.eventhub.exceptions import EventHubError

    return EventHubError, AzureError, OSError, KeyError, AttributeError


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text, "utf-8")
    os.replace(unfinished, path)
