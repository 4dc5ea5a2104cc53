"""The tables of the lake: names, columns and what they mean. Times are UTC-aware, in microseconds."""

from dataclasses import dataclass

import pyarrow as pa

TEXT, LONG, INT, DOUBLE, BYTES, DATE = (
    pa.string(), pa.int64(), pa.int32(), pa.float64(), pa.binary(), pa.date32(),
)  # fmt: skip
TIME = pa.timestamp("us", "UTC")
LEVEL_COLUMNS = ("enterprise", "site", "area", "line", "cell", "equipment")


@dataclass(frozen=True, slots=True)
class Table:
    """One Delta table: `layer/noun`, its Arrow schema, and how its files are parted."""

    name: str
    description: str
    schema: pa.Schema
    partition_by: tuple[str, ...] = ()
    append_only: bool = False


def _schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"comment": text}) for name, kind, text in columns])


_HUB = (
    ("eh_hub", TEXT, "namespace/hub the event came from"),
    ("eh_partition", INT, "partition of the hub"),
    ("eh_sequence", LONG, "sequence number in the partition"),
)
_ENTRY = (
    ("plant", TEXT, "plant that wrote the entry"),
    ("epoch", LONG, "epoch of the plant's log"),
    ("stream", TEXT, "stream of the plant's log"),
    ("seq", LONG, "number of the entry in its stream"),
    ("message_id", TEXT, "plant:epoch:stream:seq, the name of the entry everywhere"),
)
_PLACE = tuple((level, TEXT, f"level {number} of ISA-95") for number, level in enumerate(LEVEL_COLUMNS, 1))
_TIMES = (
    ("event_ts", TIME, "when the machine says it happened"),
    ("arrival_ts", TIME, "when the appliance received it"),
    ("event_date", DATE, "day of event_ts in UTC"),
)
_DELIVERY = (("enqueued_at", TIME, "when the hub took the envelope"), *_HUB)
_STATISTICS = (
    ("n", LONG, "entries"),
    ("n_good", LONG, "entries of good quality"),
    ("n_value", LONG, "entries with a finite number"),
    ("avg_value", DOUBLE, "mean of the finite numbers"),
    ("min_value", DOUBLE, "smallest"),
    ("max_value", DOUBLE, "largest"),
    ("std_value", DOUBLE, "sample standard deviation; null for a single number"),
    ("p95_value", DOUBLE, "95th percentile"),
    ("first_value", DOUBLE, "first in time"),
    ("last_value", DOUBLE, "last in time"),
    ("first_message_id", TEXT, "entry of first_value"),
    ("last_message_id", TEXT, "entry of last_value"),
)

ENVELOPES = Table(
    "bronze/events",
    "Every event of the hub as it came, unopened; the table's log holds the offsets.",
    _schema(
        *_HUB,
        ("eh_offset", TEXT, "offset in the partition"),
        ("enqueued_at", TIME, "when the hub took the event"),
        ("partition_key", TEXT, "partition key of the event"),
        ("properties", TEXT, "application properties as JSON"),
        ("plant", TEXT, "from the properties; null when they cannot be read"),
        ("epoch", LONG, "from the properties"),
        ("stream", TEXT, "from the properties"),
        ("first", LONG, "number of the first entry, from the properties"),
        ("count", LONG, "entries, from the properties"),
        ("body", BYTES, "the sealed body"),
        ("ingested_at", TIME, "when the drain wrote the row"),
        ("year", INT, "of enqueued_at"),
        ("month", INT, "of enqueued_at"),
        ("day", INT, "of enqueued_at"),
    ),
    partition_by=("year", "month", "day"),
    append_only=True,
)
LOSSES = Table(
    "bronze/losses",
    "Ranges of sequence numbers that the hub no longer had when the drain came for them.",
    _schema(*_HUB[:2], ("lo", LONG, "first missing"), ("hi", LONG, "last missing"), ("found_at", TIME, "when noticed")),
)
DEAD_LETTERS = Table(
    "bronze/dead_letters",
    "Index of the envelopes that cannot be opened, with the reason; the bodies stay in bronze/events.",
    _schema(
        *_HUB,
        ("enqueued_at", TIME, "when the hub took the event"),
        ("reason", TEXT, "short code, such as bad-checksum"),
        ("error", TEXT, "what exactly is wrong"),
        ("found_at", TIME, "when noticed"),
    ),
)
_READING = _schema(
    *_ENTRY,
    *_PLACE,
    ("tag", TEXT, "the tag; null with all levels when the topic does not fit ISA-95"),
    ("topic", TEXT, "the whole topic"),
    *_TIMES,
    ("server_ts", TIME, "when the server in front of the machine saw it"),
    ("value", DOUBLE, "numbers and booleans (0, 1) as a double; may be NaN or infinite"),
    ("value_text", TEXT, "texts"),
    ("value_int", LONG, "integers, exact to 64 bits"),
    ("value_type", TEXT, "float, int, bool, text or null"),
    ("quality", INT, "192 good, 64 uncertain, 0 bad"),
    ("origin", TEXT, "where the appliance had it from"),
    ("late_by_ms", LONG, "from event_ts to enqueued_at; null when the entry carried no usable time"),
    *_DELIVERY,
)
READINGS = Table("silver/readings", "What machines said, each entry once.", _READING, ("event_date",))
EVENTS = Table(
    "silver/events", "Entries of the stream events that have no table of their own.", _READING, ("event_date",)
)
PREDICTIONS = Table(
    "silver/predictions",
    "What the models said, each prediction once.",
    _schema(
        *_ENTRY,
        *_PLACE,
        *_TIMES,
        ("probability", DOUBLE, "of failing within horizon_s"),
        ("horizon_s", LONG, "what the probability looks ahead"),
        ("life_low_s", LONG, "low end of the remaining life"),
        ("life_high_s", LONG, "high end; null when out of sight"),
        ("health", INT, "0 failing to 100 as new"),
        ("model", TEXT, "model that said so"),
        ("mode", TEXT, "what most likely fails"),
        ("signs", TEXT, "what speaks for it, as JSON"),
        *_DELIVERY,
    ),
    ("event_date",),
)
ALARMS = Table(
    "silver/alarms",
    "Changes of alarms, each once.",
    _schema(
        *_ENTRY,
        *_PLACE,
        *_TIMES,
        ("key", TEXT, "`prediction`, or `limit/` and the tag"),
        ("state", TEXT, "raised or cleared"),
        ("priority", INT, "1 critical, 2 high, 3 medium"),
        ("message", TEXT, "what the operator reads"),
        ("value", DOUBLE, "the value that raised or cleared it"),
        ("limit", DOUBLE, "the limit it was held against"),
        ("raised_at", TIME, "when the alarm was raised"),
        *_DELIVERY,
    ),
    ("event_date",),
)
GAPS = Table(
    "silver/gaps",
    "What the plants' logs let go of, and why; each gap once.",
    _schema(
        *_ENTRY,
        *_TIMES,
        ("gap_epoch", LONG, "epoch of the numbers"),
        ("gap_stream", TEXT, "stream of the numbers"),
        ("first", LONG, "first number"),
        ("last", LONG, "last number"),
        ("count", LONG, "entries that were there"),
        ("unread", LONG, "of these, entries that had not been sent to everyone"),
        ("reason", TEXT, "size, age, disk, damaged and so on"),
        ("gap", TEXT, "all that the plant said of it, as JSON"),
        *_DELIVERY,
    ),
    ("event_date",),
)
LEDGER = Table(
    "silver/ledger",
    "What the plants wrote down: readings by equipment and 5-minute window of arrival. Rows of one window add up.",
    _schema(
        *_ENTRY,
        *_TIMES,
        ("window_start", TIME, "start of the window"),
        ("ledger_epoch", LONG, "epoch of the numbers"),
        ("first", LONG, "first number of the readings counted here"),
        ("last", LONG, "last number; first - 1 when there was none"),
        ("equipment_path", TEXT, "whose readings; null when there was none"),
        ("entries", LONG, "how many"),
        ("fingerprint", LONG, "sum of their fingerprints modulo 2^64, as a signed number"),
        *_DELIVERY,
    ),
    ("event_date",),
)
SENSOR_HOURLY = Table(
    "gold/sensor_hourly",
    "Each tag by the hour.",
    _schema(
        ("event_date", DATE, "day in UTC"), ("hour_ts", TIME, "start of the hour"),
        *_PLACE, ("tag", TEXT, "the tag"), *_STATISTICS,
    ),
)  # fmt: skip
SENSOR_DAILY = Table(
    "gold/sensor_daily",
    "Each tag by the day.",
    _schema(("event_date", DATE, "day in UTC"), *_PLACE, ("tag", TEXT, "the tag"), *_STATISTICS),
)
PREDICTIONS_DAILY = Table(
    "gold/predictions_daily",
    "Each equipment by the day: how probable its failure became, and which alarms came of it.",
    _schema(
        ("event_date", DATE, "day in UTC"),
        *_PLACE,
        ("predictions", LONG, "predictions made"),
        ("max_probability", DOUBLE, "highest probability of failure"),
        ("max_probability_at", TIME, "when it was highest"),
        ("first_above_at", TIME, "first time at or above the threshold; null when never"),
        ("threshold", DOUBLE, "the threshold that was asked for"),
        ("min_health", INT, "lowest health"),
        ("mode", TEXT, "what most likely fails, at the highest probability"),
        ("model", TEXT, "model at the highest probability"),
        ("alarms_raised", LONG, "alarms raised by predictions"),
        ("limit_alarms_raised", LONG, "alarms raised by limits"),
        ("first_alarm_at", TIME, "first alarm raised"),
        ("max_message_id", TEXT, "prediction with the highest probability"),
    ),
)

TABLES = (
    ENVELOPES, LOSSES, DEAD_LETTERS, READINGS, EVENTS, PREDICTIONS, ALARMS, GAPS, LEDGER,
    SENSOR_HOURLY, SENSOR_DAILY, PREDICTIONS_DAILY,
)  # fmt: skip
BY_NAME = {table.name: table for table in TABLES}
