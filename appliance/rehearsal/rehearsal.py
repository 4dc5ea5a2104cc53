"""The Rehearsal: an outage on purpose. The link is cut in software and restored, and the ledger says what came of it.

Nothing else changes: the plant goes on, the log takes what comes, and the Bridge drains it as after any outage. The
link is held in memory alone, so it is free again after a restart, and such a rehearsal is recorded as broken off.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from appliance.bridge.pacing import Clock
from appliance.bridge.status import BridgeStatus
from appliance.buffer.schema import StoreError
from appliance.contract.ledger import WINDOW_US
from appliance.contract.reading import Stream
from appliance.ledger.accounts import Window
from appliance.rehearsal.outlook import Outlook, why_not
from appliance.rehearsal.report import Course, Verdict, concerned, facts_of, is_settled, judged
from appliance.rehearsal.report_file import Shelf
from appliance.rehearsal.seams import BridgeLink, Ledger, Log, Phase, Refused, RehearsalStatus, Room

log = logging.getLogger(__name__)

MINUTES_MIN: Final = 1
MINUTES_MAX: Final = 240
TURN_S: Final = 1.0
ASK_S: Final = 5.0
"""How often the ledger is asked while the cloud's word is waited for."""
STALL_S: Final = 1_800.0
"""Nothing more is acknowledged for this long after the restore: the rehearsal has failed."""
RECEIPT_S_MAX: Final = 900.0
"""No receipt for this long after the drain: nothing will be proven."""
CONFIRM_S_MAX: Final = 3_600.0
"""How long the cloud's word is waited for while receipts come: what is missing is sent again meanwhile."""


class Rehearsal:
    """One at a time. Reports go to `data/rehearsals`, signed with the key in `data/keys`."""

    def __init__(
        self,
        buffer: Log,
        room: Callable[[], Room],
        bridge: BridgeLink | None,
        ledger: Ledger | None,
        data: Path,
        version: str,
        zone: str = "UTC",
        throughput_units: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        self._buffer, self._room, self._bridge, self._ledger = buffer, room, bridge, ledger
        self._clock, self._version, self._zone = clock or Clock(), version, zone
        self.shelf = Shelf(data)
        self._lock = asyncio.Lock()
        self._outlook = Outlook(bridge, room, throughput_units)
        self._phase = Phase.IDLE
        self._course: Course | None = None
        self._verdict, self._sentence, self._report = "", "", ""
        self._cut_s = self._end_s = self._restored_s = self._moved_s = self._drained_s = self._asked_s = 0.0
        self._acknowledged = 0
        self._settled = (0, 0)

    @property
    def is_running(self) -> bool:
        return self._phase in (Phase.CUT, Phase.DRAINING, Phase.CONFIRMING)

    async def run(self) -> None:
        """Break off what a restart has left, then keep time until cancelled."""
        await self._resume()
        while True:
            await self.turn()
            await self._clock.sleep(TURN_S)

    async def start(self, minutes: float, by: str) -> None:
        """Cut the link for so long; raises `Refused` with the reason, `SigningError` and OSError."""
        async with self._lock:
            bridge = self._may_start(minutes)
            now_us, first = self._clock.now_us(), self._buffer.last(Stream.READINGS) + 1
            course = Course(
                self._buffer.plant, self._buffer.epoch, bridge.status().uplink, by, minutes, now_us, first, first - 1
            )
            await asyncio.to_thread(self.shelf.note, asdict(course))
            bridge.hold("outage rehearsal")
            self._course, self._phase, self._settled = course, Phase.CUT, (0, 0)
            self._verdict = self._sentence = ""
            self._cut_s = self._clock.now_s()
            self._end_s = self._cut_s + minutes * 60
            course.full_forecast_s, course.drain_forecast_s = (
                self._outlook.full_s(),
                self._outlook.drain_s(minutes * 60),
            )
            log.warning("rehearsal: the cloud link is cut for %g min, as asked by %s", minutes, by)

    async def cancel(self, by: str) -> None:
        """Restore the link at once and break off; raises `Refused` when none runs."""
        async with self._lock:
            if not self.is_running:
                raise Refused("no rehearsal runs")
            if self._phase is Phase.CUT:
                self._restore()
            await self._break_off(f"Broken off by {by}.")

    async def turn(self) -> None:
        """Look at the log and the link, and do what is due; called every second."""
        if self._bridge is None:
            return
        async with self._lock:
            said, now_s = self._bridge.status(), self._clock.now_s()
            self._outlook.rates.saw(now_s, self._buffer.last(Stream.READINGS), said.readings.acknowledged_seq)
            if self._course is None or not self.is_running:
                return
            self._look(self._course, said, now_s)
            if self._phase is Phase.CUT and now_s >= self._end_s:
                self._restore()
            elif self._phase is Phase.DRAINING:
                await self._drain(self._course, said, now_s)
            elif self._phase is Phase.CONFIRMING and now_s - self._asked_s >= ASK_S:
                self._asked_s = now_s
                await self._confirm(self._course, now_s)

    def status(self) -> RehearsalStatus:
        course, said = self._course, self._bridge.status() if self._bridge else None
        is_cut = self._phase is Phase.CUT
        left_s = max(0.0, self._end_s - self._clock.now_s()) if is_cut else 0.0
        drain = said.drain_s if said and not is_cut else self._outlook.drain_s(left_s)
        return RehearsalStatus(
            phase=self._phase,
            started_us=course.started_us if course else 0,
            minutes=course.minutes if course else 0,
            left_s=round(left_s),
            readings=course.count if course else 0,
            waiting=said.readings.backlog + said.events.backlog if said else 0,
            peak_waiting=course.peak_waiting if course else 0,
            readings_per_s=round(self._outlook.rates.in_per_s, 1),
            full_s=_rounded(self._outlook.full_s()),
            drain_s=_rounded(drain),
            settled=self._settled[0],
            windows=self._settled[1],
            sentence=self._sentence,
            verdict=self._verdict,
            report=self._report,
        )

    def _may_start(self, minutes: float) -> BridgeLink:
        """The link, when it may be cut now; raises `Refused`."""
        if not MINUTES_MIN <= minutes <= MINUTES_MAX:
            raise Refused(f"a rehearsal takes {MINUTES_MIN} to {MINUTES_MAX} minutes, not {minutes:g}")
        if self.is_running:
            raise Refused(f"a rehearsal runs already ({self._phase}); wait for its end, or cancel it")
        if self._bridge is None:
            raise Refused("no uplink is configured, so there is no link to cut; see [uplink] of the configuration")
        if why := why_not(minutes, self._bridge.status(), self._room(), self._outlook.full_s()):
            raise Refused(why)
        return self._bridge

    def _look(self, course: Course, said: BridgeStatus, now_s: float) -> None:
        course.peak_waiting = max(course.peak_waiting, said.readings.backlog + said.events.backlog)
        if said.readings.acknowledged_seq > self._acknowledged:
            self._acknowledged, self._moved_s = said.readings.acknowledged_seq, now_s
        if self._phase is Phase.CUT:
            course.last = self._buffer.last(Stream.READINGS)
        elif not course.live_us and self._bridge is not None:
            if any(last > course.last for _, last in self._bridge.sent(Stream.READINGS).acknowledged):
                course.live_us, course.live_s = self._clock.now_us(), now_s - self._restored_s

    def _restore(self) -> None:
        assert self._bridge is not None and self._course is not None, "a rehearsal runs"
        course, now_s = self._course, self._clock.now_s()
        course.last, course.restored_us = self._buffer.last(Stream.READINGS), self._clock.now_us()
        course.drain_forecast_s = self._outlook.drain_s(0.0)
        self._bridge.release()
        course.length_s = now_s - self._cut_s
        self._phase, self._restored_s, self._moved_s = Phase.DRAINING, now_s, now_s
        log.warning("rehearsal: the cloud link is restored, %d readings came in meanwhile", course.count)

    async def _drain(self, course: Course, said: BridgeStatus, now_s: float) -> None:
        if said.readings.acknowledged_seq >= course.last:
            course.drained_us, course.drain_s = self._clock.now_us(), now_s - self._restored_s
            self._phase, self._drained_s, self._asked_s = Phase.CONFIRMING, now_s, 0.0
            log.info("rehearsal: all up to number %d is acknowledged", course.last)
        elif now_s - self._moved_s >= STALL_S:
            course.notes.append(f"Nothing more was acknowledged for {STALL_S / 60:g} min. {said.last_error}".strip())
            await self._finish(*judged(await self._windows(course), course))

    async def _confirm(self, course: Course, now_s: float) -> None:
        windows = await self._windows(course)
        self._settled = (sum(window.state in ("green", "explained") for window in windows), len(windows))
        waited_s = now_s - self._drained_s
        age_s = self._ledger.status().receipt_age_s if self._ledger else None
        if self._ledger is None:
            course.notes.append("No ledger is kept here, so the lake was not asked.")
        elif is_settled(windows, course):
            pass
        elif waited_s >= RECEIPT_S_MAX and (age_s is None or age_s >= waited_s):
            course.notes.append(f"No receipt came from the cloud within {waited_s / 60:.0f} min after the drain.")
        elif waited_s >= CONFIRM_S_MAX:
            course.notes.append(f"The cloud's word was waited for {waited_s / 60:.0f} min.")
        else:
            return
        await self._finish(*judged(windows, course))

    async def _windows(self, course: Course) -> list[Window]:
        if self._ledger is None:
            return []
        from_us, to_us = sorted((course.started_us, self._clock.now_us()))  # The clock may have been set meanwhile.
        try:
            return concerned(await self._ledger.windows(from_us - 2 * WINDOW_US, to_us + 1), course)
        except (StoreError, sqlite3.Error, OSError) as error:
            note = f"The ledger could not be read: {error}"
            if note not in course.notes:
                course.notes.append(note)
                log.warning("rehearsal: %s", note)
            return []

    async def _break_off(self, why: str) -> None:
        assert self._course is not None, "there is one to break off"
        self._course.notes.append(why)
        await self._finish(Verdict.BROKEN_OFF, why)

    async def _finish(self, verdict: Verdict, sentence: str) -> None:
        assert self._course is not None, "there is one to finish"
        course, now_us = self._course, self._clock.now_us()
        course.out_per_s = self._outlook.rates.best_out_per_s
        windows = await self._windows(course)
        facts = facts_of(course, windows, verdict, sentence, self._version, self._zone, now_us)
        self._report = await asyncio.to_thread(self.shelf.put, facts)
        self._verdict, self._sentence = verdict.value, sentence
        self._phase = Phase.BROKEN_OFF if verdict is Verdict.BROKEN_OFF else Phase.DONE
        log.warning("rehearsal: %s. %s The report is %s", verdict, sentence, self._report)

    async def _resume(self) -> None:
        """What runs in memory goes on after this part alone has failed; what only the file knows is broken off."""
        if self.is_running:
            return
        kept, newest = await asyncio.to_thread(self.shelf.noted), await asyncio.to_thread(self.shelf.newest)
        if newest is not None:
            self._outlook.rates.best_out_per_s = float(newest["out_per_s"])
        if kept is not None:
            self._course = Course(**kept)
            await self._break_off("The appliance was started again during the rehearsal, which freed the link.")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds)
