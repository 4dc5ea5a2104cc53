"""A Producer: one client of the azure-eventhub SDK that sends, for as long as it is good."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any

import google_crc32c
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubProducerClient

from appliance.bridge.deadline import Deadline
from appliance.bridge.leftovers import Leftovers


class Producer:
    """One client of the SDK, with a producer for each partition, and the sends that are under way on it."""

    def __init__(self, sdk: EventHubProducerClient, credential: Any, partitions: Sequence[str]) -> None:
        self._sdk, self._credential = sdk, credential
        self.leftovers = Leftovers(sdk)
        self.born_s, self.sends = monotonic(), 0
        self.is_let_go = False
        self.deadlines: set[Deadline] = set()
        self.idle = asyncio.Event()
        self._partitions = [(name, asyncio.Lock()) for name in partitions]
        self._asking = asyncio.Lock()

    async def send(self, data: EventData, key: str) -> None:
        """Send over the partition that the key prefers, or over the next one that has nothing under way."""
        async with self._asking:
            if not self._partitions:
                self._partitions = [(name, asyncio.Lock()) for name in await self._sdk.get_partition_ids()]
        start = google_crc32c.value(key.encode()) % len(self._partitions)
        turns = self._partitions[start:] + self._partitions[:start]
        name, producer = next((turn for turn in turns if not turn[1].locked()), turns[0])
        async with producer:
            await self._sdk.send_batch([data], partition_id=name)
        self.sends += 1

    @property
    def partitions(self) -> list[str]:
        """Their names, as the hub said; none before the first send."""
        return [name for name, _ in self._partitions]

    async def close(self) -> None:
        await self._sdk.close()
        if self._credential is not None:
            await self._credential.close()

    def ended(self, deadline: Deadline) -> None:
        """A send has come to its end."""
        self.deadlines.discard(deadline)
        if not self.deadlines:
            self.idle.set()
