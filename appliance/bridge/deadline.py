"""A bound on a call that may lose its cancellation."""

import asyncio
from types import TracebackType
from typing import Final

AGAIN_S: Final = 0.25


class Deadline:
    """Ends what runs in its block after so many seconds, and raises `TimeoutError` like `asyncio.timeout`.

    `asyncio.wait_for` of Python 3.11, which the azure-eventhub client calls for each frame, can lose a cancellation,
    and what the client does on its way out can wait for ever for a mute peer. So the cancellation is repeated until
    the block is left. To be entered once.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._task: asyncio.Task[object] | None = None
        self._next: asyncio.TimerHandle | None = None
        self._cancelled_before = self._strikes = 0

    def expire(self) -> None:
        """The time is over now, whatever was left of it. May be called at any moment, and again."""
        self._wait_s = 0.0
        if self._next is not None and not self._strikes:
            self._next.cancel()
            self._strike()

    async def __aenter__(self) -> "Deadline":
        self._task = asyncio.current_task()
        assert self._task is not None, "entered in a task"
        self._cancelled_before = self._task.cancelling()
        self._next = asyncio.get_running_loop().call_later(self._wait_s, self._strike)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        assert self._task is not None and self._next is not None, "it was entered"
        self._next.cancel()
        self._next = None
        for _strike in range(self._strikes):
            self._task.uncancel()
        is_ours = self._strikes and self._task.cancelling() <= self._cancelled_before
        if is_ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

    def _strike(self) -> None:
        assert self._task is not None, "it was entered"
        self._strikes += 1
        self._task.cancel()
        self._next = asyncio.get_running_loop().call_later(AGAIN_S, self._strike)
