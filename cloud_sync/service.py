"""The service: drain, silver and gold behind each other, until somebody stops it."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from deltalake.exceptions import DeltaError

from cloud_sync.bronze import drained
from cloud_sync.config import Config, HubConfig
from cloud_sync.drain import Drain
from cloud_sync.envelope_folder import EnvelopeFolder, hub_of
from cloud_sync.gold import Gold
from cloud_sync.lake import Lake
from cloud_sync.receipt_door import FolderDoor, HubDoor
from cloud_sync.receipts import Receipts
from cloud_sync.silver import Passed, Silver
from cloud_sync.source import FolderSource, Source, is_recorded

log = logging.getLogger(__name__)

GOLD_PAUSE_S_MIN = 2.0
GOLD_SHARE_MAX = 0.1
"""Of the time; a refresh that takes longer comes less often."""
EVERY_S, FOLDER_EVERY_S = 5.0, 60.0
"""Between two looks at what silver holds; a folder is looked through as a whole for it."""
PAUSE_S_MIN, PAUSE_S_MAX = 1.0, 60.0
STOP_S_MAX = 1.7
_EXPECTED = (DeltaError, duckdb.Error, OSError)
"""A full disk, a store that is away: the next pass tries again, from where the tables stand."""


@contextmanager
def handled(signals: Iterable[signal.Signals], call: Callable[[], object]) -> Iterator[None]:
    """Have signals call a function for as long as the block lasts."""
    before = {number: signal.signal(number, lambda *_: call()) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def source_of(hub: HubConfig, lake: Lake) -> Source:
    """The source the configuration names, for this lake; raises `SourceError`."""
    if hub.folder:
        path = Path(hub.folder)
        if is_recorded(path):
            return FolderSource(path, hub.consumer_group)
        return EnvelopeFolder(path, hub.consumer_group, lambda: drained(lake, hub_of(path)))
    from cloud_sync.eventhubs import EventHubs

    return EventHubs(hub.connection_string, hub.name, hub.consumer_group)


def receipts_of(hub: HubConfig, lake: Lake) -> Receipts | None:
    """What tells the plants of this hub what the lake holds; None when nothing shall. Raises `SourceError`."""
    if not hub.receipts or (hub.folder and is_recorded(Path(hub.folder))):
        return None
    door = FolderDoor(Path(hub.folder)) if hub.folder else HubDoor(hub.connection_string, hub.receipts)
    return Receipts(lake, source_of(hub, lake), door, FOLDER_EVERY_S if hub.folder else EVERY_S)


async def single_pass(config: Config) -> None:
    """Take everything that is there now through all layers; raises `SourceError`."""
    lake = Lake(Path(config.lake.path))
    await Drain(lake, source_of(config.hub, lake)).once()
    layers = Layers(lake, config)
    await asyncio.to_thread(layers.refine)
    await asyncio.to_thread(layers.report)
    if config.hub.folder and (receipts := receipts_of(config.hub, lake)):
        for _ in range(2):  # The second one can say that all is opened that was there at the first.
            await receipts.once()


async def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT."""
    lake = Lake(Path(config.lake.path))
    layers = Layers(lake, config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # The interpreter never lets go of a handler that is set at its end, nor of all that the handler knows.
    with handled((signal.SIGTERM, signal.SIGINT), lambda: loop.call_soon_threadsafe(stop.set)):
        await _serve(config, lake, layers, stop)


async def _serve(config: Config, lake: Lake, layers: "Layers", stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    log.info("cloud_sync: %s into %s", config.hub.name or config.hub.folder, lake.path)
    drain, receipts = Drain(lake, source_of(config.hub, lake)), receipts_of(config.hub, lake)

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)

    thread = threading.Thread(target=layers.run, args=(end,), name="layers", daemon=True)
    thread.start()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(drain.run(), name="drain")]
        if receipts:
            tasks.append(group.create_task(receipts.run(), name="receipts"))
        await stop.wait()
        layers.stop.set()
        for task in tasks:
            task.cancel()
        if not layers.has_failed:
            impatience = threading.Timer(STOP_S_MAX, _leave)
            impatience.daemon = True
            impatience.start()
    await asyncio.to_thread(thread.join)
    assert not layers.has_failed, "silver and gold have ended by themselves; the error stands above"
    log.info("cloud_sync: stopped")


def _leave() -> None:
    """Stopping is a crash with manners: whatever is cut here is repeated by the next start."""
    log.info("cloud_sync: stopped in the middle of a pass")
    logging.shutdown()
    os._exit(0)


class Layers:
    """Silver and gold in a thread of their own, since every step of theirs computes or writes."""

    def __init__(self, lake: Lake, config: Config) -> None:
        self.stop = threading.Event()
        self.has_failed = False
        self._silver = Silver(lake)
        self._gold = Gold(lake, config.gold.threshold)
        self._interval_s = config.service.interval_s
        self._gold_at = 0.0
        self._gold_pause_s = GOLD_PAUSE_S_MIN
        self._is_gold_behind = True

    def run(self, ended: Callable[[], None]) -> None:
        """Follow bronze until `stop`; an error that nobody expected ends it, and `ended` is told."""
        try:
            self._follow()
        finally:
            self.has_failed = not self.stop.is_set()
            ended()

    def refine(self) -> Passed:
        """Silver up to bronze."""
        passed = self._silver.step()
        total = passed
        while passed.envelopes and not self.stop.is_set():
            passed = self._silver.step()
            total = Passed(*map(sum, zip(total, passed, strict=True)))
        if total.envelopes:
            self._is_gold_behind = True
            text = "cloud_sync: %d envelopes opened, silver %s readings and %s events new, %d dead, %s repeated"
            numbers = f"{total.readings:,}", f"{total.events:,}", total.dead, f"{total.repeated:,}"
            log.info(text, total.envelopes, *numbers)
        return total

    def report(self) -> int:
        """Gold up to silver."""
        started = time.monotonic()
        days = self._gold.refresh()
        took_s = time.monotonic() - started
        self._gold_at = time.monotonic()
        self._gold_pause_s = max(GOLD_PAUSE_S_MIN, took_s / GOLD_SHARE_MAX)
        self._is_gold_behind = False
        if days:
            log.info("cloud_sync: gold has %d days made anew in %.1f s", days, took_s)
        return days

    def _follow(self) -> None:
        pause_s = PAUSE_S_MIN
        while not self.stop.wait(self._interval_s):
            try:
                self.refine()
                is_due = time.monotonic() - self._gold_at >= self._gold_pause_s
                if self._is_gold_behind and is_due and not self.stop.is_set():
                    self.report()
                pause_s = PAUSE_S_MIN
            except _EXPECTED as error:
                log.error("cloud_sync: %s; next try in %.0f s", str(error).partition("\n")[0], pause_s)
                self.stop.wait(pause_s)
                pause_s = min(pause_s * 2, PAUSE_S_MAX)
