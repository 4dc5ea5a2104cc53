"""The folder that a plant without a network fills with envelopes, carried here by whatever means, as a Source.

Files come late, twice, in any order and under any name. So a file has no number of its own: it gets the next one when
it is found, and is known again by what it holds. Which ones are drained is what bronze says; the folder is only read.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import google_crc32c

from appliance.contract.envelope import EnvelopeError, Sealed
from appliance.contract.envelope_file import HEAD_BYTES_MAX, SUFFIX, split
from cloud_sync.source import POLL_S, HubEvent, SourceError, Take

PARTITION: Final = 0
LIST_MAX: Final = 20
SETTLE_S: Final = 10.0
"""A file that is not whole may still be on its way; after so long without a change it is damaged."""
LOOK_SHARE_MAX: Final = 0.1
"""Of the time, for looking through a folder of many files."""

Drained = Callable[[], Mapping[str, int]]
"""The offsets of this folder's events in bronze, and the number each was given."""


class _File(NamedTuple):
    """A file as it stands; another size or time is another file."""

    path: str
    size_bytes: int
    changed_ns: int


class _Opened(NamedTuple):
    """A file that is new: its name by what it holds, and its parts."""

    file: _File
    name: str
    properties: Mapping[str, Any]
    body: bytes


class EnvelopeFolder:
    """Envelopes as files; one partition, in which a file's offset is its name."""

    def __init__(self, path: Path, group: str, drained: Drained) -> None:
        self.hub = hub_of(path)
        self.group = group
        self._path, self._drained = path, drained
        self._known: set[str] = set()
        self._last = -1
        self._done: set[_File] = set()

    async def ends(self) -> Mapping[int, int]:
        return {PARTITION: await asyncio.to_thread(self._end)}

    async def follow(self, after: Mapping[int, int], take: Take) -> None:
        await asyncio.to_thread(self._recall)
        is_checked = True
        while True:
            started_s = time.monotonic()
            files = await asyncio.to_thread(self._undone)
            pause_s = max(POLL_S, (time.monotonic() - started_s) / LOOK_SHARE_MAX)
            before = self._last
            for start in range(0, len(files), LIST_MAX):
                events = await asyncio.to_thread(self._read, files[start : start + LIST_MAX])
                if events:
                    await take(events)
            if self._last > before:
                is_checked = False
                continue
            if not is_checked:
                is_checked = await asyncio.to_thread(self._confirmed)
            await asyncio.sleep(pause_s)

    def _end(self) -> int:
        if not self._path.is_dir():
            raise SourceError(f"hub: the folder {self._path} does not exist; create it, or name another in [hub]")
        self._recall()
        return self._last + len({opened.name for opened in self._open(self._undone())})

    def _recall(self) -> None:
        """Take over what bronze has; whatever was handed over and did not come there will be handed over again."""
        drained = self._drained()
        self._known, self._done = set(drained), set()
        self._last = max(drained.values(), default=-1)

    def _confirmed(self) -> bool:
        """True when bronze has all that was handed over; a rival may have had a number first, then all begins anew."""
        drained = self._drained()
        if max(drained.values(), default=-1) < self._last:
            return False
        if not self._known <= set(drained):
            self._recall()
        return True

    def _read(self, files: Sequence[_File]) -> list[HubEvent]:
        events = []
        for file, name, properties, body in self._open(files):
            if name in self._known:
                continue  # Two copies in one list.
            self._last += 1
            self._known.add(name)
            self._done.add(file)
            at_us = file.changed_ns // 1_000
            events.append(
                HubEvent(PARTITION, self._last, name, at_us, str(properties.get("plant", "")), properties, body)
            )
        return events

    def _open(self, files: Sequence[_File]) -> Iterator[_Opened]:
        """Those that bronze does not have, whole ones and damaged ones; not those that may still grow."""
        for file in files:
            try:
                if _name(_head(file.path)) in self._known:
                    self._done.add(file)
                    continue
                data = Path(file.path).read_bytes()
            except OSError:
                continue  # Carried away while we looked.
            opened = _opened(file, data)
            if opened is None and time.time() - file.changed_ns / 1e9 >= SETTLE_S:
                opened = _damaged(file, data)
            if opened is None:
                continue
            if opened.name in self._known:
                self._done.add(file)
            else:
                yield opened

    def _undone(self) -> list[_File]:
        """What is in the folder and was not yet taken up, in the order of the paths."""
        there = set(_files(self._path))
        self._done &= there
        return sorted(there - self._done)


def hub_of(path: Path) -> str:
    """The name by which the lake knows a folder."""
    return f"envelopes/{path.name}"


def _files(folder: Path) -> Iterator[_File]:
    for path, _, names in os.walk(folder):
        for name in names:
            if name.endswith(SUFFIX):
                whole = os.path.join(path, name)
                try:
                    status = os.stat(whole)
                except OSError:
                    continue  # Carried away while we looked.
                yield _File(whole, status.st_size, status.st_mtime_ns)


def _head(path: str) -> Mapping[str, Any]:
    """The properties of a file, none when they cannot be read."""
    with open(path, "rb") as file:
        line = file.readline(HEAD_BYTES_MAX)
    try:
        return split(line)[0]
    except EnvelopeError:
        return {}


def _name(properties: Mapping[str, Any]) -> str:
    """What an envelope is called by what it holds; empty for properties that are none."""
    try:
        sealed = Sealed.from_wire(properties, b"")
    except EnvelopeError:
        return ""
    numbers = f"{sealed.first}-{sealed.count}/{sealed.crc32c:08x}"
    return f"{quote(sealed.plant, safe='')}/{sealed.epoch}/{sealed.stream}/{numbers}"


def _opened(file: _File, data: bytes) -> _Opened | None:
    """The parts of a whole envelope; whether it can be opened is for silver to say."""
    try:
        properties, body = split(data)
        sealed = Sealed.from_wire(properties, body)
    except EnvelopeError:
        return None
    return _Opened(file, _name(properties), properties, body) if google_crc32c.value(body) == sealed.crc32c else None


def _damaged(file: _File, data: bytes) -> _Opened:
    """The parts of a damaged file, for the dead letters; its name is not that of the envelope it should be."""
    name = f"damaged/{len(data)}/{google_crc32c.value(data):08x}"
    try:
        return _Opened(file, name, *split(data))
    except EnvelopeError:
        return _Opened(file, name, {"file": os.path.basename(file.path)}, data)
