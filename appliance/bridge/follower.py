"""A Follower: one stream of the log on its way out, sealed into envelopes whose bounds survive a restart."""

import json
from collections import deque
from typing import NamedTuple

from appliance.buffer.buffer import Batch, Buffer, Cursor
from appliance.contract.envelope import ENTRIES_MAX, Envelope, Lane, Sealed, envelopes, seal
from appliance.contract.reading import Stream


class Outgoing(NamedTuple):
    """An envelope and its lane, decided when it was sealed and kept for every resend."""

    sealed: Sealed
    lane: Lane


class Follower:
    """Seals what stands after its cursor, and moves the cursor on acknowledgement.

    The bounds of what is sealed are written down, as the cursor's state, before the first envelope is sent:
    after a crash the same envelopes are made again, so that what had arrived already is a plain duplicate.
    """

    def __init__(self, buffer: Buffer, cursor: Cursor) -> None:
        self._buffer, self._cursor = buffer, cursor
        self._sealed: deque[Outgoing] = deque()
        self._promised = _promised(cursor, buffer.epoch)
        self.acknowledged = cursor.seq
        """The number of the last entry the far side has acknowledged, as it stands on disk."""

    @property
    def backlog(self) -> int:
        """Entries that wait for their acknowledgement."""
        return self._buffer.last(self._cursor.stream) - self.acknowledged

    async def next(self) -> Outgoing | None:
        """The envelope to send now, the same one until `sent` is called; None when nothing waits."""
        if not self._sealed:
            self._sealed.extend(await self._seal())
        return self._sealed[0] if self._sealed else None

    async def sent(self) -> None:
        """The envelope from `next` has been acknowledged: move on, durably."""
        await self._cursor.advance(_last(self._sealed[0].sealed))
        self._sealed.popleft()
        self.acknowledged = self._cursor.seq

    async def _seal(self) -> list[Outgoing]:
        ends, self._promised = self._promised, []
        after, stream = self._cursor.seq, self._cursor.stream
        batch = await self._buffer.read(stream, after, ends[-1] - after if ends else ENTRIES_MAX)
        if not batch.entries:
            return []
        plant, epoch = self._buffer.plant, self._buffer.epoch
        if ends and ends[-1] == batch.last:
            sealed = _sealed_again(plant, epoch, stream, batch, ends)
        else:
            sealed = envelopes(plant, epoch, stream, batch.first, batch.entries)
            await self._cursor.advance(after, json.dumps({"epoch": epoch, "ends": [_last(part) for part in sealed]}))
        return [Outgoing(part, self._lane(part)) for part in sealed]

    def _lane(self, sealed: Sealed) -> Lane:
        if sealed.stream is Stream.EVENTS:
            return Lane.EVENTS
        is_newest = self._buffer.last(sealed.stream) - _last(sealed) < ENTRIES_MAX
        return Lane.LIVE if is_newest else Lane.BACKLOG


def _last(sealed: Sealed) -> int:
    return sealed.first + sealed.count - 1


def _promised(cursor: Cursor, epoch: int) -> list[int]:
    """The ends of the envelopes that were sealed before the last stop and not yet acknowledged, in order."""
    try:
        state = json.loads(cursor.state or "{}")
        ends = [int(end) for end in state.get("ends", ()) if end > cursor.seq]
    except (ValueError, TypeError, AttributeError):
        return []  # Another version's state: new bounds are as good, the cloud counts by sequence number.
    return ends if state.get("epoch") == epoch else []


def _sealed_again(plant: str, epoch: int, stream: Stream, batch: Batch, ends: list[int]) -> list[Sealed]:
    sealed, first = [], batch.first
    for end in ends:
        entries = batch.entries[first - batch.first : end + 1 - batch.first]
        sealed.append(seal(Envelope(plant, epoch, stream, first, entries)))
        first = end + 1
    return sealed
