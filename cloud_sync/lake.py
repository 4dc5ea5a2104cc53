"""The Lake: Delta tables in one folder. Every read and every write goes through a table's log, never a listing."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import ColumnProperties, CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from cloud_sync.tables import BY_NAME, TABLES, Table

MEMORY_LIMIT = "2GB"
THREADS = 2
COMMITS_PER_CHECKPOINT = 100
FILES_PER_PARTITION_MAX = 40
"""More small files than this in one partition are joined into few."""
_create_lock = threading.Lock()
_PLAIN = ColumnProperties(dictionary_enabled=False)
_WRITER = WriterProperties(compression="ZSTD", column_properties={"message_id": _PLAIN, "seq": _PLAIN})
"""Half the size of the defaults at the same speed: no two entries share these two columns' values."""


class Lake:
    """The tables below `path`, made when first asked for; each call of `table` reads the log anew."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def table(self, name: str) -> DeltaTable:
        """A fresh handle on the table, which stays on the version it was opened at."""
        uri = str(self.path / name)
        with _create_lock:
            if not DeltaTable.is_deltatable(uri):
                return self._create(BY_NAME[name], uri)
        return DeltaTable(uri)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The answer of DuckDB; tables are named as in `SELECT count(*) FROM silver.readings`."""
        with self.connect() as connection:
            answer: pa.Table = connection.sql(sql, params=list(parameters)).to_arrow_table()
            return answer

    def connect(self, views: Mapping[str, str] | None = None) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection with a view on each table, or only on `views` (name of the view → SQL)."""
        connection = duckdb.connect(config={"threads": THREADS, "memory_limit": MEMORY_LIMIT})
        connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
        if views is None:
            views = {table.name.replace("/", "."): files_sql(table, self.table(table.name)) for table in TABLES}
        for layer in sorted({name.partition(".")[0] for name in views if "." in name}):
            connection.execute(f"CREATE SCHEMA {layer}")
        for name, sql in views.items():
            connection.execute(f"CREATE VIEW {name} AS {sql}")
        return connection

    @staticmethod
    def _create(table: Table, uri: str) -> DeltaTable:
        configuration = {"delta.checkpointInterval": str(COMMITS_PER_CHECKPOINT)}
        if table.append_only:
            configuration["delta.appendOnly"] = "true"
        return DeltaTable.create(
            uri,
            table.schema,
            mode="ignore",
            partition_by=list(table.partition_by),
            name=table.name.replace("/", "_"),
            description=table.description,
            configuration=configuration,
        )


def files_of(handle: DeltaTable) -> list[str]:
    """Where the table's files are, as DuckDB and pyarrow want to hear it."""
    return [unquote(uri) for uri in handle.file_uris()]


def files_sql(table: Table, handle: DeltaTable, files: Sequence[str] | None = None) -> str:
    """SQL that reads these files of the table, or all; typed and empty when there are none."""
    files = files_of(handle) if files is None else files
    columns = ", ".join(f'"{field.name}"' for field in table.schema)
    if not files:
        typed = ", ".join(f'CAST(NULL AS {_duck_type(field.type)}) AS "{field.name}"' for field in table.schema)
        return f"SELECT {typed} WHERE false"
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    types = ", ".join(f"{name}: {_duck_type(table.schema.field(name).type)}" for name in table.partition_by)
    hive = f", hive_partitioning = true, hive_types = {{{types}}}" if types else ", hive_partitioning = false"
    return f"SELECT {columns} FROM read_parquet([{listed}], union_by_name = true{hive})"


def transaction(app_id_versions: Mapping[str, int]) -> CommitProperties:
    """What makes a commit count once: the positions it reaches. A rival's commit for the same id is a conflict."""
    return CommitProperties(app_transactions=[Transaction(app, version) for app, version in app_id_versions.items()])


def append(handle: DeltaTable, rows: pa.Table, positions: Mapping[str, int]) -> bool:
    """Commit rows and positions together on the handle that chose them; False when a rival was faster."""
    try:
        properties = transaction(positions)
        write_deltalake(handle, rows, mode="append", writer_properties=_WRITER, commit_properties=properties)
    except CommitFailedError:
        return False
    return True


def compact(lake: Lake, table: Table, files_max: int = FILES_PER_PARTITION_MAX) -> int:
    """Join the files of each partition that has more than `files_max`; returns how many files went away."""
    handle = lake.table(table.name)
    counts: dict[str, int] = {}
    for file in files_of(handle):
        partition = file.removeprefix(str(lake.path / table.name)).rpartition("/")[0].strip("/")
        counts[partition] = counts.get(partition, 0) + 1
    removed = 0
    for partition, count in counts.items():
        if count > files_max:
            pairs = [level.partition("=") for level in partition.split("/") if "=" in level]
            try:
                metrics = handle.optimize.compact(partition_filters=[(key, "=", value) for key, _, value in pairs])
            except CommitFailedError:
                return removed
            removed += int(metrics["numFilesRemoved"]) - int(metrics["numFilesAdded"])
            handle = lake.table(table.name)
    return removed


def now() -> int:
    """Wall clock in microseconds."""
    return time.time_ns() // 1_000


Clock = Callable[[], int]


def _duck_type(kind: pa.DataType) -> str:
    names = {
        pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.int32(): "INTEGER", pa.float64(): "DOUBLE",
        pa.binary(): "BLOB", pa.date32(): "DATE",
    }  # fmt: skip
    return names.get(kind, "TIMESTAMPTZ")
