"""Keeps the parts of the appliance running, and stops them in order."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic, time_ns

log = logging.getLogger(__name__)

PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 60.0
GRACE_S = 2.0


class StartAfresh(Exception):
    """An error after which no part can go on as it is: all of them end, and are started anew from outside."""


def now_us() -> int:
    """The wall clock: microseconds since 1970, UTC."""
    return time_ns() // 1000


class PartState(StrEnum):
    RUNNING = "running"
    WAITING = "waiting to start again"
    ENDED = "ended"


@dataclass(slots=True)
class Part:
    """One running part, as the supervisor sees it."""

    name: str
    state: PartState = PartState.RUNNING
    restarts: int = 0
    last_error: str = ""


class Parts:
    """The running parts, in the order they were started."""

    def __init__(self, group: asyncio.TaskGroup, grace_s: float) -> None:
        self._group = group
        self._grace_s = grace_s
        self._tasks: list[asyncio.Task[None]] = []
        self.parts: list[Part] = []

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part until the group stops; whenever it fails it is started again, with a doubling pause."""
        part = Part(name)
        self.parts.append(part)
        self._tasks.append(self._group.create_task(_keep_running(part, run), name=name))

    async def stop(self) -> None:
        """Stop the parts one by one: the last one started goes first."""
        for task in reversed(self._tasks):
            task.cancel()
            _, unfinished = await asyncio.wait([task], timeout=self._grace_s)
            if unfinished:
                log.warning("supervisor: %s has not stopped within %.1f s", task.get_name(), self._grace_s)


async def _keep_running(part: Part, run: Callable[[], Awaitable[None]]) -> None:
    pause_s = PAUSE_S_MIN
    while True:
        started = monotonic()
        try:
            await run()
        except Exception as error:
            if _ends_all(error):
                raise  # End, and let the service start afresh.
            if monotonic() - started > PAUSE_S_MAX:
                pause_s = PAUSE_S_MIN  # It had been well for a while.
            part.state, part.restarts = PartState.WAITING, part.restarts + 1
            part.last_error = f"{type(error).__name__}: {error}"
            log.exception("supervisor: %s failed; starting it again in %.1f s", part.name, pause_s)
        else:
            part.state = PartState.ENDED
            return
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, PAUSE_S_MAX)
        part.state = PartState.RUNNING


def _ends_all(error: Exception) -> bool:
    """Whether one of our own assertions failed or a part cannot be mended alone, be it in a task of the part's own."""
    ends = (AssertionError, StartAfresh)
    return isinstance(error, ends) or (isinstance(error, ExceptionGroup) and error.subgroup(ends) is not None)


@asynccontextmanager
async def supervise(grace_s: float = GRACE_S) -> AsyncIterator[Parts]:
    """Run parts for as long as the block lasts; stop them, last one first, when it ends."""
    async with asyncio.TaskGroup() as group:
        parts = Parts(group, grace_s)
        try:
            yield parts
        finally:
            await parts.stop()


def stop_requested() -> asyncio.Event:
    """An event that is set when the operating system asks the process to stop."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        # signal.signal works on Windows too, where the loop has no add_signal_handler.
        signal.signal(name, lambda *_: loop.call_soon_threadsafe(asked.set))
    return asked
