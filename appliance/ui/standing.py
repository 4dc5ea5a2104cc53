"""Standing: the alarms that stand, as a cursor's state: one raised long ago is shown after a restart too."""

import json
from collections.abc import Collection
from typing import Final

from appliance.buffer.cursor import Cursor
from appliance.contract.prediction import Alarm
from appliance.contract.reading import Quality, Reading

NAME: Final = "page"
EVENTS_MAX: Final = 1_000
"""After so many events the cursor moves even when no alarm has changed."""


class Standing:
    """The alarms as they stood behind event number `seq`; what came later is in the log."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor, self._text = cursor, cursor.state

    @property
    def seq(self) -> int:
        return self._cursor.seq

    def alarms(self) -> list[Alarm]:
        """Raises what `Alarm.from_entry` raises."""
        texts: list[str] = json.loads(self._cursor.state or "[]")
        return [Alarm.from_entry(Reading("", text, Quality.GOOD, 0, 0, 0, "")) for text in texts]

    async def save(self, seq: int, alarms: Collection[Alarm]) -> None:
        """Write down what stands behind event number `seq`, when it has changed or much time has passed."""
        text = json.dumps([alarm.entry(0).value for alarm in alarms], separators=(",", ":"), ensure_ascii=False)
        if text != self._text or seq - self._cursor.seq >= EVENTS_MAX:
            await self._cursor.advance(seq, text)
            self._text = text
