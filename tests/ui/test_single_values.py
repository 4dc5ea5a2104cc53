"""The last hour value by value: read back from sealed blocks and loose entries, and joined to minutes before."""

import asyncio
import math
from pathlib import Path

import pytest

from appliance.buffer import keeper as keeper_module
from appliance.buffer.buffer import Buffer
from appliance.contract.reading import Reading, Stream
from appliance.ui import single, trend
from appliance.ui.single import single_values
from appliance.ui.trend import fine_curve

PUMP = "acme/northfield/utilities/boiler-house/feed/pmp-204"
SECOND_US = 1_000_000
HOUR_S = 3_600


def said(second: int, tag: int) -> Reading:
    """Ten tags a second; the first one has a peak of one second at 1,234."""
    value = 99.0 if (second, tag) == (1_234, 0) else float(second % 50)
    return Reading(f"{PUMP}/t{tag}", value, 192, second * SECOND_US, second * SECOND_US, 0, "o")


async def filled(buffer: Buffer, memory: trend.History) -> None:
    """An hour, of which all but the newest entries are sealed."""
    for first in range(0, HOUR_S, 100):
        await buffer.append([said(second, tag) for second in range(first, first + 100) for tag in range(10)])
    for second in range(HOUR_S):
        memory.add(float(str(said(second, 0).value)), second * SECOND_US, True)
    while buffer.last() - buffer.keeper.sealed_to[Stream.READINGS] >= 5_000:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)


async def test_an_hour_is_drawn_of_every_value_where_memory_has_minutes(tmp_path: Path) -> None:
    """3,600 samples, the peak in its second; a topic that says no numbers is drawn as before."""
    memory = trend.History.new(with_raw=True)
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        await filled(buffer, memory)
        await buffer.append(
            [Reading(f"{PUMP}/t0", value, 192, 0, 0, 0, "o") for value in ("text", None, True, math.inf)]
        )
        points = await single_values(buffer, f"{PUMP}/t0", 0)
        assert [at_us for at_us, _ in points if at_us] == [second * SECOND_US for second in range(1, HOUR_S)]
        assert (1_234 * SECOND_US, 99.0) in points
        assert await single_values(buffer, f"{PUMP}/t0", 3_000 * SECOND_US) == points[-600:]

        async def singles(topic: str, start_us: int) -> list[tuple[int, float]]:
            return await single_values(buffer, topic, start_us)

        drawn = await fine_curve(memory, None, singles, f"{PUMP}/t0", SECOND_US, HOUR_S * SECOND_US, 4_000)
        assert drawn.samples == HOUR_S - 1
        assert abs(drawn.times_us[drawn.values.index(99.0)] - 1_234 * SECOND_US) <= SECOND_US
        assert not drawn.gaps_us
        coarse = await fine_curve(memory, None, singles, f"{PUMP}/unheard", 0, HOUR_S * SECOND_US, 4_000)
        assert coarse == trend.curve(memory, 0, HOUR_S * SECOND_US, 4_000)


async def test_what_lies_too_many_blocks_back_is_drawn_of_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two blocks are opened: the newest values stand alone, what came before comes from memory, and no line is cut."""
    monkeypatch.setattr(single, "BLOCKS_MAX", 2)
    monkeypatch.setattr(keeper_module, "SEAL_AGE_S", 0.05)
    memory = trend.History.new(with_raw=True)
    async with Buffer.open(tmp_path / "b.db", "northfield") as buffer:
        await filled(buffer, memory)

        async def singles(topic: str, start_us: int) -> list[tuple[int, float]]:
            return await single_values(buffer, topic, start_us)

        drawn = await fine_curve(memory, None, singles, f"{PUMP}/t0", 0, HOUR_S * SECOND_US, 4_000)
        newest = await single_values(buffer, f"{PUMP}/t0", 0)
        assert 500 <= len(newest) <= 1_500
        assert {at_us for at_us, _ in newest} <= set(drawn.times_us)
        assert HOUR_S - 60 <= drawn.samples <= HOUR_S
        assert (drawn.times_us[0], max(value for value in drawn.values if value is not None)) == (0, 99.0)
        assert not drawn.gaps_us
