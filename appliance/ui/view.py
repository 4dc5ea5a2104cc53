"""PlantView: the plant as the page shows it, kept up to date by following both streams of the log."""

import asyncio
import json
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median_high

from appliance.buffer.buffer import Buffer
from appliance.contract.prediction import ALARM_ORIGIN, PREDICTION_ORIGIN, PREDICTION_TAG, Alarm, AlarmState, Prediction
from appliance.contract.reading import Quality, Reading, Stream, message_id
from appliance.ui import standing as standing_alarms
from appliance.ui.machine import Equipment, Machine, Tag, split
from appliance.ui.standing import Standing
from appliance.ui.trend import History

log = logging.getLogger(__name__)

READ_BACK_MAX = {Stream.READINGS: 200_000, Stream.EVENTS: 20_000}
"""Newest entries taken in at start, so that trends do not begin with the page."""
TOPICS_MAX = 50_000
MACHINES_MAX = 2_000
TOPICS_WITH_RAW_MAX = 500
SPANS_MAX = 300_000
"""Rollup spans of all topics together."""
ALARMS_MAX = 1_000
ALARM_EVENTS_MAX = 200
BATCH_MAX = 2_000
POLL_S = 0.25
RATE_S = 10


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """What the view says of itself; `spans` are rollups kept in memory for trends."""

    topics: int
    machines: int
    alarms: int
    readings_per_s: float
    spans: int
    dropped: int
    is_caught_up: bool
    plant_time: str
    """The newest source time of the configured machines, ISO 8601."""
    standing: tuple[str, ...]
    """The alarms that stand, worst first, in words."""


class PlantView:
    """One follower of the log for all pages. It begins with the log's newest entries and the alarms that stand."""

    def __init__(self, buffer: Buffer, equipment: Iterable[Equipment], now_us: Callable[[], int]) -> None:
        self.buffer, self.now_us = buffer, now_us
        self.machines = {each.path: Machine(each.path, each) for each in equipment}
        self.alarms: dict[tuple[str, str], Alarm] = {}
        self.alarm_events: deque[tuple[int, Alarm]] = deque(maxlen=ALARM_EVENTS_MAX)
        self.version = 0
        """Rises with every change, so that nobody compares more than one number."""
        self.dropped = 0
        """Entries of topics and machines beyond the limits, and events that could not be read."""
        self.is_caught_up = False
        self._tags: dict[str, tuple[Machine, Tag]] = {}
        self._spans = 0
        self._seqs = {stream: 0 for stream in Stream}
        self._counts: deque[tuple[int, int]] = deque(maxlen=round(RATE_S / POLL_S))
        self.predicted_us = 0
        """When the newest prediction arrived."""

    async def run(self) -> None:
        """Read the newest part of the log, then follow it until cancelled."""
        standing = await self._recalled()
        floors = {stream: max(0, self.buffer.last(stream) - READ_BACK_MAX[stream]) for stream in Stream}
        floors[Stream.EVENTS] = min(floors[Stream.EVENTS], standing.seq)
        for stream, floor in floors.items():
            self._seqs[stream] = max(self._seqs[stream], floor)  # After a restart it goes on where it was.
        while True:
            taken = 0
            for stream in Stream:
                taken += await self._follow(stream)
            if self.is_caught_up:
                self._counts.append((self.now_us(), taken))
            else:
                self.is_caught_up = True
                log.info("page: caught up with the log, %d topics, %d alarms", len(self._tags), len(self.alarms))
            await standing.save(self._seqs[Stream.EVENTS], self.alarms.values())
            await asyncio.sleep(POLL_S)

    async def _recalled(self) -> Standing:
        """The alarms that stood when they were last written down; those raised or cleared since come with the log."""
        standing = Standing(await self.buffer.cursor(standing_alarms.NAME, Stream.EVENTS))
        if not self.alarms:
            self.alarms = {(alarm.equipment, alarm.key): alarm for alarm in standing.alarms()}
        return standing

    async def _follow(self, stream: Stream) -> int:
        """Take in what the stream has now; gives how many readings."""
        taken, last = 0, self.buffer.last(stream)
        while self._seqs[stream] < last:
            batch = await self.buffer.read(stream, self._seqs[stream], BATCH_MAX)
            if not batch.entries:
                break
            self.take(stream, batch.first, batch.entries)
            self._seqs[stream] = batch.last
            taken += len(batch.entries)
            await asyncio.sleep(0)  # A long read-back lets the others work.
        return taken if stream is Stream.READINGS else 0

    def take(self, stream: Stream, first: int, entries: Sequence[Reading]) -> None:
        """Take in consecutive entries of a stream."""
        take_one = self._take_reading if stream is Stream.READINGS else self._take_event
        for seq, entry in enumerate(entries, first):
            take_one(seq, entry)
        if self._spans > SPANS_MAX:
            self._trim()
        self.version += 1

    def _take_reading(self, seq: int, reading: Reading) -> None:
        known = self._tags.get(reading.topic) or self._admit(reading)
        if known is None:
            self.dropped += 1
            return
        machine, tag = known
        tag.latest = reading
        machine.arrivals.append((seq, reading))
        machine.newest_us = max(machine.newest_us, reading.source_us)
        machine.arrival_us = max(machine.arrival_us, reading.arrival_us)
        value = reading.value
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            self._spans += tag.history.add(float(value), reading.source_us, reading.quality >= Quality.GOOD)

    def _admit(self, reading: Reading) -> tuple[Machine, Tag] | None:
        path, name = split(reading.topic)
        machine = self._machine(path) if len(self._tags) < TOPICS_MAX else None
        if machine is None:
            return None
        with_raw = machine.equipment is not None or len(self._tags) < TOPICS_WITH_RAW_MAX
        tag = machine.tags[name] = Tag(reading.topic, name, reading, History.new(with_raw))
        self._tags[reading.topic] = (machine, tag)
        return self._tags[reading.topic]

    def _machine(self, path: str) -> Machine | None:
        """The machine, made known when it is new; None when there are too many."""
        if path not in self.machines and len(self.machines) < MACHINES_MAX:
            self.machines[path] = Machine(path, None)
        return self.machines.get(path)

    def _take_event(self, seq: int, entry: Reading) -> None:
        try:
            if entry.origin == PREDICTION_ORIGIN:
                self._take_prediction(Prediction.from_entry(entry), entry.arrival_us)
            elif entry.origin == ALARM_ORIGIN:
                self._take_alarm(seq, Alarm.from_entry(entry))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            self.dropped += 1
            log.warning("page: event %d cannot be read, shown without it: %r", seq, error)

    def _take_prediction(self, prediction: Prediction, arrival_us: int) -> None:
        machine = self._machine(prediction.equipment)
        if machine is None:
            self.dropped += 1
            return
        machine.prediction = prediction
        self.predicted_us = max(self.predicted_us, arrival_us)
        if math.isfinite(prediction.probability):
            self._spans += machine.predicted.add(100 * prediction.probability, prediction.at_us, True)

    def _take_alarm(self, seq: int, alarm: Alarm) -> None:
        self.alarm_events.append((seq, alarm))
        name = (alarm.equipment, alarm.key)
        self._machine(alarm.equipment)
        if alarm.state is AlarmState.RAISED and (name in self.alarms or len(self.alarms) < ALARMS_MAX):
            self.alarms[name] = alarm
        elif alarm.state is not AlarmState.RAISED:
            self.alarms.pop(name, None)

    def _trim(self) -> None:
        """Shorten the past of all topics alike, to three quarters of what is allowed."""
        histories = [tag.history for _, tag in self._tags.values()]
        histories += [machine.predicted for machine in self.machines.values()]
        spans_max = max(2, SPANS_MAX * 3 // 4 // len(histories))
        for history in histories:
            history.trim(spans_max)
        self._spans = sum(history.size for history in histories)

    def clock_us(self) -> int:
        """Plant time: the newest source time of most of the configured machines that are alive."""
        now_us = self.now_us()
        known = [machine for machine in self.machines.values() if machine.equipment and machine.newest_us]
        alive = [machine for machine in known if not machine.is_stale(now_us)] or known
        # The middle one, so that a single machine with a wrong clock does not move the plant's.
        return median_high(machine.newest_us for machine in alive) if alive else now_us

    def rate(self) -> float:
        """Readings per second of the wall clock, lately."""
        if len(self._counts) < 2:
            return 0.0
        seconds = (self._counts[-1][0] - self._counts[0][0]) / 1_000_000
        return sum(taken for _, taken in list(self._counts)[1:]) / seconds if seconds > 0 else 0.0

    def status(self) -> ViewStatus:
        return ViewStatus(
            topics=len(self._tags),
            machines=len(self.machines),
            alarms=len(self.alarms),
            readings_per_s=round(self.rate(), 1),
            spans=self._spans,
            dropped=self.dropped,
            is_caught_up=self.is_caught_up,
            plant_time=datetime.fromtimestamp(self.clock_us() / 1e6, UTC).isoformat(timespec="seconds"),
            standing=tuple(
                f"{alarm.equipment.rpartition('/')[2]} {alarm.message}"
                for alarm in sorted(self.alarms.values(), key=lambda alarm: (alarm.priority, -alarm.raised_at_us))
            ),
        )

    def find(self, name: str) -> Machine | None:
        """A machine by its path, or by its last level when only one has it."""
        exact = self.machines.get(name)
        if exact is not None:
            return exact
        alike = [machine for machine in self.machines.values() if machine.id == name]
        return alike[0] if len(alike) == 1 else None

    def history(self, topic: str) -> tuple[Machine, str, History] | None:
        """The machine, tag and past of a topic; `_prediction` is its failure probability in percent."""
        known = self._tags.get(topic)
        if known is not None:
            return known[0], known[1].name, known[1].history
        path, _, tag = topic.rpartition("/")
        machine = self.machines.get(path)
        return (machine, tag, machine.predicted) if machine is not None and tag == PREDICTION_TAG else None

    def alarms_of(self, path: str) -> list[Alarm]:
        """The standing alarms of one machine, the most urgent and then the oldest first."""
        return sorted(
            (alarm for alarm in self.alarms.values() if alarm.equipment == path),
            key=lambda alarm: (alarm.priority, alarm.raised_at_us),
        )

    def message_id(self, seq: int) -> str:
        return message_id(self.buffer.plant, self.buffer.epoch, Stream.READINGS, seq)
