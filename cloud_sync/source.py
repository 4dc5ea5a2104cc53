"""Where the drain reads from: a Source is a replayable log in partitions, as Event Hubs is."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

POLL_S = 0.2
LIST_MAX = 100


class SourceError(Exception):
    """The source cannot be reached or read; one line with a hint."""


class HubEvent(NamedTuple):
    """One event of the hub, as it came."""

    partition: int
    sequence: int
    offset: str
    enqueued_us: int
    partition_key: str
    properties: Mapping[str, Any]
    body: bytes


Take: TypeAlias = Callable[[list[HubEvent]], Awaitable[None]]


class Source(Protocol):
    """A replayable log in partitions."""

    @property
    def hub(self) -> str:
        """`namespace/hub`, by which the lake remembers positions."""
        ...

    @property
    def group(self) -> str:
        """The consumer group."""
        ...

    async def ends(self) -> Mapping[int, int]:
        """The newest sequence number of each partition, -1 when it is empty; raises `SourceError`."""
        ...

    async def follow(self, after: Mapping[int, int], take: Take) -> None:
        """Hand over the events beyond `after`, in order within each partition, each list from one partition.

        `after` names every partition, -1 for its beginning. It runs until it is cancelled: when the connection is
        lost it reconnects by itself and goes on behind the last event handed over. While `take` waits, so does it.
        """
        ...


def is_recorded(path: Path) -> bool:
    """Whether a folder holds a recorded hub, as `FolderSource` writes it, and not a plant's envelopes."""
    return path.is_dir() and any(child.name.isdecimal() and any(child.glob("*.json")) for child in path.iterdir())


class FolderSource:
    """A hub in a folder: `PARTITION/SEQUENCE.json`, for replays and trials without a network."""

    def __init__(self, path: Path, group: str = "$Default") -> None:
        self.hub = f"folder/{path.name}"
        self.group = group
        self._path = path

    async def ends(self) -> Mapping[int, int]:
        return {partition: max(self._sequences(partition), default=-1) for partition in self._partitions()}

    async def follow(self, after: Mapping[int, int], take: Take) -> None:
        position = dict(after)
        while True:
            found = False
            for partition in self._partitions():
                new = sorted(seq for seq in self._sequences(partition) if seq > position.get(partition, -1))
                for start in range(0, len(new), LIST_MAX):
                    found = True
                    listed = new[start : start + LIST_MAX]
                    await take([self._read(partition, sequence) for sequence in listed])
                    position[partition] = listed[-1]
            if not found:
                await asyncio.sleep(POLL_S)

    def write(self, event: HubEvent) -> None:
        """Add an event; it appears whole or not at all."""
        folder = self._path / str(event.partition)
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            "offset": event.offset,
            "enqueued_us": event.enqueued_us,
            "partition_key": event.partition_key,
            "properties": dict(event.properties),
            "body": base64.b64encode(event.body).decode("ascii"),
        }
        target = folder / f"{event.sequence:012d}.json"
        part = target.with_suffix(".part")
        part.write_text(json.dumps(document), encoding="utf-8")
        part.replace(target)

    def _partitions(self) -> list[int]:
        if not self._path.is_dir():
            raise SourceError(f"hub: the folder {self._path} does not exist; create it, or name another in [hub]")
        return sorted(int(folder.name) for folder in self._path.iterdir() if folder.name.isdecimal())

    def _sequences(self, partition: int) -> list[int]:
        return [int(file.stem) for file in (self._path / str(partition)).glob("*.json")]

    def _read(self, partition: int, sequence: int) -> HubEvent:
        text = (self._path / str(partition) / f"{sequence:012d}.json").read_text(encoding="utf-8")
        document = json.loads(text)
        body = base64.b64decode(document.pop("body"))
        return HubEvent(partition=partition, sequence=sequence, body=body, **document)
