"""Makes windows of minutes out of readings as they come, by the source time of the machines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from appliance.contract.features import LATENESS_US, MINUTE_US, RUNNING, TAGS, WINDOW_MINUTES, Minutes
from appliance.contract.reading import Quality, Reading

JUMP_READINGS: Final = 20
"""So many readings in a row a whole window away from the rest mean that the machine's clock was set."""
_RESUME_MINUTES: Final = WINDOW_MINUTES + 10


class Window(NamedTuple):
    """The last minutes of one equipment, complete up to `at_us`."""

    equipment: str
    at_us: int
    """The end of its newest minute."""
    minutes: Minutes


@dataclass(slots=True)
class _Minute:
    """What has been said within one minute that is not complete yet: values by tag and source time."""

    first_seq: int
    values: dict[int, dict[int, float]] = field(default_factory=dict)
    running: dict[int, bool] = field(default_factory=dict)


class _Track:
    """The open and the last complete minutes of one equipment."""

    def __init__(self, equipment: str, running: bool) -> None:
        self.equipment = equipment
        self.running = running
        self.open: dict[int, _Minute] = {}
        self.kept: dict[int, tuple[int, bool]] = {}
        self.ring = np.full((WINDOW_MINUTES, len(TAGS)), np.nan)
        self.done = self.newest = -1
        self.due_us = 0
        self.away = 0

    def start_afresh(self) -> None:
        self.open.clear()
        self.kept.clear()
        self.ring[:] = np.nan
        self.done = self.newest = -1
        self.away = 0

    def complete(self, minute: int) -> Window | None:
        """Close a minute; gives its window if the machine ran and said something in it."""
        said = self.open.pop(minute)
        for skipped in range(max(self.done + 1, minute - WINDOW_MINUTES + 1), minute + 1):
            self.ring[skipped % WINDOW_MINUTES] = np.nan
        self.done = minute
        self.kept[minute] = (said.first_seq, self.running)
        for old in [kept for kept in self.kept if kept <= minute - WINDOW_MINUTES]:
            del self.kept[old]
        ran = self.running and all(said.running.values())
        if said.running:
            self.running = said.running[max(said.running)]
        if not ran or not said.values:
            return None
        row = self.ring[minute % WINDOW_MINUTES]
        for position, values in said.values.items():
            row[position] = math.fsum(values.values()) / len(values)
        minutes = np.roll(self.ring, -(minute + 1) % WINDOW_MINUTES, axis=0)
        return Window(self.equipment, (minute + 1) * MINUTE_US, minutes)


class FeatureStream:
    """Makes Windows out of readings, one reading at a time and in any order within the lateness.

    Of two readings of one tag and source time the first one counts; one that comes after its minute is complete is
    counted in `late` and not used. What it holds is bounded: the minutes within the lateness and one window for
    each equipment. A machine that never says whether it runs is taken to run.
    """

    def __init__(self, equipment: Sequence[str], stopped: Sequence[str] = ()) -> None:
        self._tracks = {path: _Track(path, path not in stopped) for path in equipment}
        self._slots = {
            f"{path}/{tag}": (track, position)
            for path, track in self._tracks.items()
            for position, tag in enumerate((*TAGS, RUNNING))
        }
        self.late = 0

    def push(self, reading: Reading, seq: int = 0) -> list[Window]:
        """Take one reading in; gives the windows that it completes, most often none."""
        slot = self._slots.get(reading.topic)
        if slot is None or reading.quality < Quality.GOOD:
            return []
        track, position = slot
        source_us = reading.source_us
        minute = source_us // MINUTE_US
        if track.newest >= 0 and abs(minute - track.newest) > WINDOW_MINUTES and not self._has_jumped(track):
            return []
        track.away = 0
        if minute <= track.done:
            self.late += 1
            return []
        self._note(track, minute, position, reading, seq)
        return self._completed(track, source_us) if source_us >= track.due_us else []

    def _has_jumped(self, track: _Track) -> bool:
        track.away += 1
        if track.away < JUMP_READINGS:
            self.late += 1
            return False
        track.start_afresh()
        return True

    def _note(self, track: _Track, minute: int, position: int, reading: Reading, seq: int) -> None:
        said = track.open.get(minute)
        if said is None:
            said = track.open[minute] = _Minute(seq)
            track.due_us = (min(track.open) + 1) * MINUTE_US + LATENESS_US
            track.newest = max(track.newest, minute)
        value = reading.value
        if position == len(TAGS):
            if isinstance(value, bool | int):
                said.running.setdefault(reading.source_us, bool(value))
        elif isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value):
            said.values.setdefault(position, {}).setdefault(reading.source_us, float(value))

    def _completed(self, track: _Track, source_us: int) -> list[Window]:
        windows = []
        for minute in sorted(track.open):
            if source_us < (minute + 1) * MINUTE_US + LATENESS_US:
                break
            window = track.complete(minute)
            if window is not None:
                windows.append(window)
        track.due_us = (min(track.open) + 1) * MINUTE_US + LATENESS_US if track.open else 0
        return windows

    def resume(self, seq: int) -> tuple[int, list[str]]:
        """From where readings must be read again to go on exactly here, and who stood still there.

        `seq` is the last reading taken in. An equipment whose clock is more than a window behind the others is
        left out: after a restart it has to fill its window again.
        """
        newest = max((track.newest for track in self._tracks.values()), default=-1)
        first, stopped = seq + 1, []
        for track in self._tracks.values():
            needed = {m: kept for m, kept in track.kept.items() if m > newest - _RESUME_MINUTES}
            firsts = [kept[0] for kept in needed.values()] + [said.first_seq for said in track.open.values()]
            first = min([first, *firsts])
            running = needed[min(needed)][1] if needed else track.running
            if not running:
                stopped.append(track.equipment)
        return first, stopped
