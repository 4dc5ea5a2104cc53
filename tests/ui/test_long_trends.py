"""Long trends: what the page's memory does not reach comes from the history on disk, and joins up with memory."""

from pathlib import Path

from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Reading
from appliance.history.history import Cells, History
from appliance.history.store import HistoryStore
from appliance.ui import trend
from appliance.ui.trend import MINUTE_US, curve, long_curve

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"
DAYS_30 = 30 * 1_440


async def test_thirty_days_are_drawn_with_their_peak_though_memory_knows_an_hour(tmp_path: Path) -> None:
    """A page that has just started draws the whole month: the peak of day three, and the newest value from memory."""
    memory = trend.History.new(with_raw=True)
    readings = [
        Reading(TOPIC, 99.0 if minute == 4_000 else 5.0, 192, minute * MINUTE_US, 0, 0, "opcua:p")
        for minute in range(DAYS_30 - 2)
    ]
    for reading in [*readings[-60:], readings[-1]._replace(value=-7.0, source_us=(DAYS_30 - 1) * MINUTE_US)]:
        assert isinstance(reading.value, float)
        memory.add(reading.value, reading.source_us, True)
    cells = Cells()
    cells.take(readings)
    async with (
        Buffer.open(tmp_path / "buffer.db", "northfield") as buffer,
        HistoryStore.open(tmp_path / "history.db") as store,
    ):
        await store.merge(cells.rollups(), buffer.epoch, 0)
        past = History(buffer, store, 2_000_000_000)
        end_us = DAYS_30 * MINUTE_US
        month = await long_curve(memory, past, TOPIC, 0, end_us, 1_000)
        assert (month.start_us, max(each for each in month.values if each is not None)) == (0, 99.0)
        assert len(month.values) <= 1_010
        assert not month.gaps_us
        hour = await long_curve(memory, past, TOPIC, end_us - 30 * MINUTE_US, end_us, 1_000)
        assert hour == curve(memory, end_us - 30 * MINUTE_US, end_us, 1_000)
        shift = await long_curve(memory, past, TOPIC, end_us - 480 * MINUTE_US, end_us, 1_000)
        assert (shift.start_us, shift.values[-1]) == (end_us - 480 * MINUTE_US, -7.0)
        assert await long_curve(memory, None, TOPIC, 0, end_us, 1_000) == curve(memory, 0, end_us, 1_000)
