"""The lake: from envelopes in a hub to rows in gold, each reading once."""

import asyncio
import json
import math
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from lakes import DAY_US, START_US, Hub, readings, sealed, send_with_repeats

from appliance.contract.columns import to_columns
from appliance.contract.envelope import Envelope, Lane, Sealed, seal
from appliance.contract.gap import GAP_ORIGIN, GapReason
from appliance.contract.gap import Gap as LogGap
from appliance.contract.prediction import Alarm, AlarmState, Prediction, Sign
from appliance.contract.reading import Reading, Stream
from cloud_sync.bronze import Bronze, Conflict, Gap
from cloud_sync.drain import Drain
from cloud_sync.gold import Gold
from cloud_sync.lake import Lake, append, compact
from cloud_sync.silver import Silver
from cloud_sync.source import HubEvent
from cloud_sync.tables import ENVELOPES, EVENTS, READINGS, TABLES

PUMP = "acme/northfield/utilities/boiler-house/feed/pmp-204"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "a lake")


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path / "hub")


def one(lake: Lake, sql: str) -> tuple[object, ...]:
    rows = [tuple(row.values()) for row in lake.query(sql).to_pylist()]
    assert len(rows) == 1
    return rows[0]


async def all_layers(lake: Lake, hub: Hub) -> None:
    await Drain(lake, hub).once()
    Silver(lake).run_once()
    Gold(lake).refresh()


async def test_a_reading_arrives_with_everything_it_had(lake: Lake, hub: Hub) -> None:
    """Values of every type, exact 64-bit integers, times in UTC, names and place: nothing is lost on the way."""
    values = [1.5, math.nan, 2**63 - 1, True, "läuft", None]
    entries = tuple(
        Reading(f"{PUMP}/sub/tag", value, 64, START_US + n, START_US + n + 1, START_US + n + 2, "mqtt:a")
        for n, value in enumerate(values)
    )
    hub.send(seal(Envelope("northfield", 3, Stream.READINGS, 41, entries)), enqueued_us=START_US + 2_000_000)
    await all_layers(lake, hub)
    rows = lake.query("SELECT * FROM silver.readings ORDER BY seq").to_pylist()
    assert [row["message_id"] for row in rows] == [f"northfield:3:readings:{seq}" for seq in range(41, 47)]
    assert [row["value_type"] for row in rows] == ["float", "float", "int", "bool", "text", "null"]
    assert rows[0]["value"] == 1.5
    assert math.isnan(rows[1]["value"])
    assert (rows[2]["value_int"], rows[3]["value"]) == (2**63 - 1, 1.0)
    assert (rows[4]["value_text"], rows[4]["value"], rows[5]["value"]) == ("läuft", None, None)
    row = rows[0]
    assert (row["equipment"], row["tag"], row["topic"]) == ("pmp-204", "sub/tag", f"{PUMP}/sub/tag")
    at = datetime.fromtimestamp(START_US / 1e6, UTC)
    assert (row["event_ts"], row["server_ts"], row["event_date"]) == (at, at + timedelta(microseconds=1), at.date())
    assert (row["quality"], row["origin"], row["late_by_ms"], row["eh_sequence"]) == (64, "mqtt:a", 2_000, 0)
    for table in TABLES:
        protocol = lake.table(table.name).protocol()
        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2), table.name


async def test_an_event_with_a_number_that_no_column_holds_hurts_itself_alone(lake: Lake, hub: Hub) -> None:
    """A gap beyond 64 bits or with a text for a number, a prediction that is none: kept as events, the rest opened."""
    gap = LogGap(3, Stream.READINGS, 1, 5, 5, 0, GapReason.SIZE, (), 0, 0, 0)
    bodies = [
        asdict(gap),
        {**asdict(gap), "last": 2**63},
        {**asdict(gap), "count": "many"},
        {**asdict(gap), "first": 7},
    ]
    said = [Reading(f"{PUMP}/_gap", json.dumps(body), 192, START_US, START_US, START_US, GAP_ORIGIN) for body in bodies]
    odd = Prediction(PUMP, START_US, "likely", 3_600, 1, 2, 3, "m", "x", ())  # type: ignore[arg-type]
    hub.send(seal(Envelope("northfield", 3, Stream.EVENTS, 1, (*said, odd.entry(START_US)))))
    await all_layers(lake, hub)
    assert [row["seq"] for row in lake.query("SELECT seq FROM silver.gaps ORDER BY seq").to_pylist()] == [1, 4]
    assert [row["seq"] for row in lake.query("SELECT seq FROM silver.events ORDER BY seq").to_pylist()] == [2, 3, 5]
    assert one(lake, "SELECT count(*) FROM bronze.dead_letters") == (0,)


async def test_each_reading_stands_once(lake: Lake, hub: Hub) -> None:
    """Envelopes sent twice, cut otherwise and to other partitions change nothing."""
    send_with_repeats(hub, 20_000, (0, 1, 2), seed=7)
    silver = Silver(lake)
    await Drain(lake, hub).once()
    while silver.step().envelopes:
        pass
    assert one(lake, "SELECT count(*), count(DISTINCT seq), min(seq), max(seq) FROM silver.readings") == (
        20_000, 20_000, 1, 20_000,
    )  # fmt: skip
    send_with_repeats(hub, 21_000, (0, 1, 2), seed=8)
    await Drain(lake, hub).once()
    Silver(lake).run_once()
    assert one(lake, "SELECT count(*), count(DISTINCT seq) FROM silver.readings") == (21_000, 21_000)
    assert await Drain(lake, hub).once() == 0


async def test_two_drains_of_one_group_share_the_work(lake: Lake, hub: Hub) -> None:
    """What is committed on a handle that another has overtaken is a conflict, and then a replay of nothing."""
    hub.send(sealed(1, 10))
    bronze = Bronze(lake, hub.hub, hub.group)
    rival = Bronze(lake, hub.hub, hub.group)
    event = [HubEvent(0, 0, "", START_US, "", {}, b"x")]
    overtaken = lake.table("bronze/events")
    assert rival.append(event) == 1
    with pytest.raises(Conflict):
        bronze._commit(overtaken, event)
    assert bronze.append(event) == 0
    assert await Drain(lake, hub).once() == 0
    assert one(lake, "SELECT count(*) FROM bronze.events") == (1,)


async def test_a_store_that_refuses_is_tried_again(
    lake: Lake, hub: Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where a folder must be: the drain says so and goes on once it is gone."""
    monkeypatch.setattr("cloud_sync.drain.STORE_PAUSE_S", 0.05)
    hub.send(sealed(1, 10))
    lake.table("bronze/events")
    obstacle = lake.path / "bronze/events" / "year=2026"
    obstacle.write_text("in the way")
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
        draining = tasks.create_task(Drain(lake, hub).run())
        while "cannot be written" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        obstacle.unlink()
        while lake.query("SELECT * FROM bronze.events").num_rows < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        draining.cancel()


async def test_a_gap_in_the_hub_is_recorded_once(lake: Lake, hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers the hub no longer has become a loss with its range; the stream goes on."""
    for first in (1, 11, 21, 31):
        hub.send(sealed(first, 10))
    bronze = Bronze(lake, hub.hub, hub.group)
    bronze.append([hub._read(0, 0)])
    hub.lose(0, 1, 2)
    with pytest.raises(Gap):
        bronze.append([hub._read(0, 3)])
    assert await Drain(lake, hub).once() == 1
    assert one(lake, "SELECT lo, hi FROM bronze.losses") == (1, 2)
    assert "2 events lost" in caplog.text
    Silver(lake).run_once()
    assert one(lake, "SELECT count(*) FROM silver.readings") == (20,)


async def test_bodies_that_cannot_be_opened_do_not_halt_the_stream(lake: Lake, hub: Hub) -> None:
    """Each becomes a dead letter with its reason; a good copy of the same entries still counts, even later."""
    good = sealed(1, 50)
    properties = good.properties(Lane.LIVE)
    hub.send_raw(properties, good.body[:-3] + b"zzz")
    hub.send_raw({**properties, "schema": "other/9"}, good.body)
    hub.send_raw({}, b"hello")
    hub.send_raw({**properties, "first": 2**63}, good.body)
    hub.send(misfit())
    hub.send(sealed(51, 50))
    await all_layers(lake, hub)
    found = lake.query("SELECT eh_sequence, reason FROM bronze.dead_letters ORDER BY ALL").to_pylist()
    assert [(row["eh_sequence"], row["reason"]) for row in found] == [
        (0, "bad-checksum"), (1, "unknown-schema"), (2, "unknown-schema"), (3, "bad-properties"), (4, "bad-entries"),
    ]  # fmt: skip
    assert one(lake, "SELECT count(*), min(seq) FROM silver.readings") == (50, 51)
    hub.send(good)
    await Drain(lake, hub).once()
    Silver(lake).run_once()
    assert one(lake, "SELECT count(*), min(seq) FROM silver.readings") == (100, 1)


def misfit() -> Sealed:
    """An envelope that is whole, but whose topics are numbers."""
    import google_crc32c
    import zstandard

    columns = {**to_columns(readings(101, 2)), "topic": [[7], 0]}
    document = {"plant": "northfield", "epoch": 1, "stream": "readings", "first": 101, **columns}
    body = zstandard.compress(json.dumps(document).encode())
    return Sealed("northfield", 1, Stream.READINGS, 101, 2, google_crc32c.value(body), body)


async def test_a_pass_cut_between_two_tables_is_repeated_with_its_own_bounds(lake: Lake, hub: Hub) -> None:
    """Predictions were committed, readings were not: the next pass adds the readings and no second prediction."""
    hub.send(seal(Envelope("northfield", 1, Stream.EVENTS, 1, (prediction(0.2, 0).entry(START_US),))))
    hub.send(sealed(1, 10))
    await Drain(lake, hub).once()
    whole = Silver(lake)
    letters = whole._letters
    letters.refresh()
    _, rows, _ = whole._opened(letters.next({}, {}, 60), {})
    app = f"silver/{letters.table_id}/{hub.hub}/0"
    assert append(lake.table("silver/predictions"), rows["silver/predictions"], {app: 1})
    hub.send(sealed(11, 10))
    hub.send(seal(Envelope("northfield", 1, Stream.EVENTS, 1, (prediction(0.2, 0).entry(START_US),) * 2)))
    await Drain(lake, hub).once()
    Silver(lake).run_once()
    assert one(lake, "SELECT count(*), count(DISTINCT seq) FROM silver.readings") == (20, 20)
    assert one(lake, "SELECT count(*), count(DISTINCT seq) FROM silver.predictions") == (2, 2)


async def test_times_of_any_year_find_their_day(lake: Lake, hub: Hub) -> None:
    """91 days of 2015, the future, and times that are none: each in its partition or at its arrival."""
    hub.send(sealed(1, 910, start_us=1_420_070_400_000_000, step_us=DAY_US // 10))
    hub.send(sealed(1001, 4, start_us=4_000_000_000_000_000))
    nonsense = [Reading(f"{PUMP}/flow", 1.0, 192, at, at, START_US, "x") for at in (-5, 2**62, 0)]
    hub.send(seal(Envelope("northfield", 1, Stream.READINGS, 2001, tuple(nonsense))))
    await all_layers(lake, hub)
    assert one(lake, "SELECT count(*), min(event_date) FROM silver.readings WHERE seq < 1000") == (
        910,
        date(2015, 1, 1),
    )
    assert one(lake, "SELECT count(DISTINCT event_date) FROM gold.sensor_daily WHERE year(event_date) = 2015") == (92,)
    assert one(lake, "SELECT count(*) FROM silver.readings WHERE year(event_date) = 2096") == (4,)
    assert one(lake, "SELECT count(*), count(late_by_ms) FROM silver.readings WHERE seq > 2000") == (3, 1)


async def test_gold_agrees_with_silver_and_is_remade_for_touched_days_only(lake: Lake, hub: Hub) -> None:
    """Late readings change their own day; the other days keep their files."""
    hub.send(sealed(1, 4_000, step_us=60_000_000))
    await all_layers(lake, hub)
    check_gold(lake)
    gold = Gold(lake)
    assert gold.refresh() == 0
    version = lake.table("gold/sensor_hourly").version()
    hub.send(sealed(4_001, 8, start_us=START_US - 4_000_000_000, step_us=1_000_000))
    await Drain(lake, hub).once()
    Silver(lake).run_once()
    assert gold.refresh() == 2  # One day, in two products.
    assert lake.table("gold/sensor_hourly").version() == version + 1
    check_gold(lake)


def check_gold(lake: Lake) -> None:
    sums = "SELECT sum(n), sum(n_value), min(min_value), max(max_value), sum(avg_value * n_value)"
    raw = "SELECT count(*), count(value), min(value), max(value), sum(value) FROM silver.readings"
    for table in ("gold.sensor_hourly", "gold.sensor_daily"):
        assert one(lake, f"{sums} FROM {table}") == pytest.approx(one(lake, raw))
    ends = one(
        lake,
        """SELECT count(*) FROM gold.sensor_daily g
           JOIN silver.readings f ON f.message_id = g.first_message_id JOIN silver.readings l
           ON l.message_id = g.last_message_id WHERE f.value = first_value AND l.value = last_value
           AND f.event_ts <= l.event_ts""",
    )
    assert ends == one(lake, "SELECT count(*) FROM gold.sensor_daily")


async def test_what_is_no_number_becomes_null_in_gold(lake: Lake, hub: Hub) -> None:
    """NaN, infinity and texts count as entries, never as numbers."""
    values = (math.nan, math.inf, "text", None, 4.0)
    entries = tuple(
        Reading(f"{PUMP}/flow", value, 192, START_US + n, START_US, START_US, "x") for n, value in enumerate(values)
    )
    alone = Reading(f"{PUMP}/pressure", math.nan, 192, START_US, START_US, START_US, "x")
    elsewhere = Reading("not/isa-95", 1.0, 192, START_US, START_US, START_US, "x")
    hub.send(seal(Envelope("northfield", 1, Stream.READINGS, 1, (*entries, alone, elsewhere))))
    await all_layers(lake, hub)
    row = "SELECT n, n_value, avg_value, std_value, last_message_id FROM gold.sensor_daily WHERE tag = "
    assert one(lake, f"{row}'flow'") == (5, 1, 4.0, None, "northfield:1:readings:5")
    assert one(lake, f"{row}'pressure'") == (1, 0, None, None, None)
    assert one(lake, "SELECT count(*) FROM silver.readings WHERE topic = 'not/isa-95' AND tag IS NULL") == (1,)


def prediction(probability: float, minute: int) -> Prediction:
    sign = Sign("mean_1h", "vibration_de", 7.1, "mm/s", 1.0, 3.0, 0.4)
    at_us = START_US + minute * 60_000_000
    return Prediction(PUMP, at_us, probability, 86_400, 3_600, None, 40, "pump-1", "bearing wear", (sign,))


async def test_a_predicted_failure_is_seen_in_gold(lake: Lake, hub: Hub) -> None:
    """Probability rises, an alarm is raised: one row for the equipment and day says when and how."""
    raised_us = START_US + 2 * 60_000_000
    events = [prediction(0.1 + 0.3 * minute, minute).entry(START_US) for minute in range(3)]
    alarm = Alarm(PUMP, "prediction", AlarmState.RAISED, 1, "bearing wear", 0.7, 0.5, raised_us, raised_us)
    gap = Reading(f"{PUMP}/_gap", "{}", 192, START_US, START_US, START_US, "gap")
    broken = Reading(f"{PUMP}/_prediction", "{", 192, START_US, START_US, START_US, "prediction")
    hub.send(seal(Envelope("northfield", 1, Stream.EVENTS, 1, (*events, alarm.entry(START_US), gap, broken))))
    await all_layers(lake, hub)
    at = datetime.fromtimestamp(raised_us / 1e6, UTC)
    columns = "predictions, round(max_probability, 6), first_above_at, mode, alarms_raised, first_alarm_at, equipment"
    assert one(lake, f"SELECT {columns} FROM gold.predictions_daily") == (3, 0.7, at, "bearing wear", 1, at, "pmp-204")
    assert one(lake, "SELECT count(*), max(life_high_s), max(signs->0->>'tag') FROM silver.predictions") == (
        3, None, "vibration_de",
    )  # fmt: skip
    assert one(lake, "SELECT count(*) FROM silver.events") == (2,)


async def test_small_files_are_joined_without_a_change(lake: Lake, hub: Hub) -> None:
    """After compaction the rows are the same, and silver goes on where it stood."""
    silver = Silver(lake)
    for first in range(1, 60, 10):
        hub.send(sealed(first, 10))
        await Drain(lake, hub).once()
        silver.step()
    assert compact(lake, READINGS, 3) > 0
    assert compact(lake, EVENTS, 3) == 0

    assert compact(lake, ENVELOPES, 3) > 0
    for keeper in (silver, Silver(lake)):
        hub.send(sealed(1, 70))
        await Drain(lake, hub).once()
        keeper.step()
    assert one(lake, "SELECT count(*), count(DISTINCT seq) FROM silver.readings") == (70, 70)
    assert one(lake, "SELECT count(*) FROM bronze.events") == (8,)
