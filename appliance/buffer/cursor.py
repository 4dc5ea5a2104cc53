"""A Cursor: how far one follower of the log has come, with the small state it carries along."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from appliance.buffer.tail import Batch
from appliance.contract.reading import Reading, Stream


class Log(Protocol):
    """Of the Buffer, what its cursors need."""

    def last(self, stream: Stream = Stream.READINGS) -> int: ...
    async def read(self, stream: Stream, after: int, limit: int) -> Batch: ...
    async def grown(self, stream: Stream, beyond: int) -> None: ...
    async def append(
        self, entries: Sequence[Reading], stream: Stream = Stream.READINGS, moves: Sequence["Move"] = ()
    ) -> int: ...


class Move(NamedTuple):
    """A cursor's step in the same transaction as an append; a state of None leaves the cursor's state as it is."""

    cursor: "Cursor"
    seq: int
    state: str | None = None


class Cursor:
    """Where one named follower stands in one stream of the Buffer, with the small state it carries along."""

    def __init__(self, buffer: Log, name: str, stream: Stream, seq: int, state: str) -> None:
        self._buffer = buffer
        self.name, self.stream, self.seq, self.state = name, stream, seq, state

    @property
    def behind(self) -> int:
        """Entries that wait for this follower."""
        return self._buffer.last(self.stream) - self.seq

    async def batch(self, limit: int = 1000) -> Batch:
        """The entries after `seq`, or after the gap there, at least one; waits until there are some.

        The cursor does not move.
        """
        beyond = self.seq
        while True:
            await self._buffer.grown(self.stream, beyond)
            last = self._buffer.last(self.stream)
            batch = await self._buffer.read(self.stream, self.seq, limit)
            if batch.entries:
                return batch
            beyond = last  # All of it has left the log.

    async def advance(self, seq: int, state: str | None = None) -> None:
        """Move on to `seq`, durably, with the follower's state when it is given."""
        await self._buffer.append((), self.stream, (self.moved(seq, state),))

    def moved(self, seq: int, state: str | None = None) -> Move:
        """The cursor at its new place, as a Move to be committed with an append."""
        self.seq = seq
        if state is not None:
            self.state = state
        return Move(self, seq, state)
