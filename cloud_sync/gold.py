"""Gold: what people and reports look at, made anew for the days that silver has touched since."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from cloud_sync import tables
from cloud_sync.lake import Lake, compact, files_of, files_sql, transaction
from cloud_sync.tables import Table

log = logging.getLogger(__name__)

DAYS_PER_QUERY_MAX = 30
REFRESHES_PER_COMPACTION = 200
THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Product:
    """One gold table: its SQL file has its name, and `sources` are the silver tables the SQL names."""

    table: Table
    sources: tuple[Table, ...]


PRODUCTS = (
    Product(tables.SENSOR_HOURLY, (tables.READINGS,)),
    Product(tables.SENSOR_DAILY, (tables.READINGS,)),
    Product(tables.PREDICTIONS_DAILY, (tables.PREDICTIONS, tables.ALARMS)),
)


@dataclass(frozen=True, slots=True)
class _Silver:
    """One silver table as it stands, with its files by day."""

    handle: DeltaTable
    app: str
    files: frozenset[str]


class Gold:
    """The gold tables of one lake."""

    def __init__(self, lake: Lake, threshold: float = THRESHOLD) -> None:
        self._lake, self._threshold = lake, threshold
        self._files_at: dict[tuple[str, int], frozenset[str]] = {}
        self._refreshes = 0

    def refresh(self) -> int:
        """Bring every product up to silver; returns how many days of products were made anew."""
        silver = {table.name: self._stand(table) for table in (tables.READINGS, tables.PREDICTIONS, tables.ALARMS)}
        days = sum(self._bring_up(product, [silver[table.name] for table in product.sources]) for product in PRODUCTS)
        self._files_at = {(name, stand.handle.version()): stand.files for name, stand in silver.items()}
        self._refreshes += bool(days)
        if days and self._refreshes % REFRESHES_PER_COMPACTION == 0:
            for product in PRODUCTS:
                compact(self._lake, product.table)
        return days

    def _stand(self, table: Table) -> _Silver:
        handle = self._lake.table(table.name)
        return _Silver(handle, f"gold/{handle.metadata().id}", frozenset(files_of(handle)))

    def _bring_up(self, product: Product, stands: Sequence[_Silver]) -> int:
        gold = self._lake.table(product.table.name)
        days: set[str] = set()
        for table, stand in zip(product.sources, stands, strict=True):
            days |= self._touched(table, stand, gold.transaction_version(stand.app))
        if not days:
            return 0
        reached = {stand.app: stand.handle.version() for stand in stands}
        parts = [list(part) for part in _parts(sorted(days))]
        for number, part in enumerate(parts, 1):
            # Replacing a day twice is harmless, so only the last part carries the positions.
            if not self._replace(product, stands, part, reached if number == len(parts) else {}):
                return 0
        return len(days)

    def _touched(self, table: Table, stand: _Silver, version: int | None) -> set[str]:
        """Days with files that were not there at `version`; all days when nobody knows that version any more."""
        if version == stand.handle.version():
            return set()
        before = None if version is None else self._files_at.get((table.name, version))
        if before is None and version is not None:
            handle = self._lake.table(table.name)
            try:
                handle.load_as_version(version)
                before = frozenset(files_of(handle))
            except DeltaError:
                log.info("gold: version %d of %s is gone, all days are made anew", version, table.name)
        return {_day_of(file) for file in stand.files - (before or frozenset())}

    def _replace(
        self, product: Product, stands: Sequence[_Silver], days: Sequence[str], reached: Mapping[str, int]
    ) -> bool:
        gold = self._lake.table(product.table.name)
        wanted = set(days)
        views = {
            table.name.partition("/")[2]: files_sql(
                table, stand.handle, [file for file in sorted(stand.files) if _day_of(file) in wanted]
            )
            for table, stand in zip(product.sources, stands, strict=True)
        }
        views["settings"] = f"SELECT CAST({self._threshold!r} AS DOUBLE) AS threshold"
        with self._lake.connect(views) as connection:
            rows: pa.Table = connection.sql(_sql(product.table.name)).to_arrow_table()
        listed = ", ".join(f"'{day}'" for day in days)
        try:
            write_deltalake(
                gold,
                rows.select(product.table.schema.names).cast(product.table.schema),
                mode="overwrite",
                predicate=f"event_date IN ({listed})",
                commit_properties=transaction(reached),
            )
        except CommitFailedError:
            return False
        return True


def _day_of(file: str) -> str:
    return file.rpartition("event_date=")[2].partition("/")[0]


def _parts(days: Sequence[str]) -> Sequence[Sequence[str]]:
    return [days[start : start + DAYS_PER_QUERY_MAX] for start in range(0, len(days), DAYS_PER_QUERY_MAX)]


@cache
def _sql(table: str) -> str:
    return (resources.files("cloud_sync") / "sql" / f"{table.partition('/')[2]}.sql").read_text(encoding="utf-8")
