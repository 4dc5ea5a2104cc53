"""Bronze as a queue: which letters come next and which numbers were seen, found through the table's log."""

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from pyarrow import dataset

from cloud_sync import tables
from cloud_sync.dead_letters import Letter
from cloud_sync.lake import Lake
from cloud_sync.ranges import Ranges

Partition = tuple[str, int]
Positions = dict[Partition, int]
Seen = dict[tuple[str, int, str], Ranges]

_KEY = ["eh_hub", "eh_partition", "eh_sequence"]
_LETTER = [*_KEY, "enqueued_at", "properties", "body"]
_HEAD = [*_KEY, "plant", "epoch", "stream", "first", "count"]
_FILE_SCHEMA = pa.schema([column for column in tables.ENVELOPES.schema if column.name not in ("year", "month", "day")])


class Letters:
    """The letters of bronze as of the last `refresh`."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self.table_id = ""
        self.partitions: set[Partition] = set()
        self._files: list[dict[str, Any]] = []
        self._known_files: set[str] = set()

    def refresh(self) -> None:
        """Read the log anew."""
        handle = self._lake.table(tables.ENVELOPES.name)
        self.table_id = str(handle.metadata().id)
        self._files = _files(handle)
        new = [file for file in self._files if file["path"] not in self._known_files]
        self.partitions.update(_only_partition(file) for file in new if _only_partition(file))  # type: ignore[misc]
        mixed = [file for file in new if not _only_partition(file)]
        if mixed:
            rows = self._read(mixed, _KEY[:2])
            self.partitions.update(zip(*(rows[name].to_pylist() for name in _KEY[:2]), strict=True))
        self._known_files.update(file["path"] for file in new)

    def next(self, floor: Positions, bounds: Positions, limit: int) -> list[Letter]:
        """Letters beyond `floor`: exactly those up to `bounds` if there are any, else about `limit` of them.

        The order is that of partition and sequence number, so the same bounds give the same list.
        """
        keys = self._read(self._beyond(floor), _KEY)
        wanted: dict[Partition, list[int]] = {}
        for hub, partition, sequence in zip(*(keys[name].to_pylist() for name in _KEY), strict=True):
            end = bounds.get((hub, partition), -1) if bounds else None
            if sequence > floor.get((hub, partition), -1) and (end is None or sequence <= end):
                wanted.setdefault((hub, partition), []).append(sequence)
        if not wanted:
            return []
        share = max(1, limit // len(wanted))
        ends = bounds or {key: sorted(numbers)[:share][-1] for key, numbers in wanted.items()}
        chosen = None
        for (hub, partition), end in ends.items():
            beyond = floor.get((hub, partition), -1)
            field = dataset.field
            one = (field("eh_hub") == hub) & (field("eh_partition") == partition)
            one = one & (field("eh_sequence") > beyond) & (field("eh_sequence") <= end)
            chosen = one if chosen is None else chosen | one
        rows = self._read(self._beyond(floor), _LETTER, chosen)
        columns = [rows[name].to_pylist() for name in _LETTER if name != "enqueued_at"]
        columns.insert(3, rows["enqueued_at"].cast(pa.int64()).to_pylist())
        return sorted(map(Letter, *columns), key=lambda letter: letter[:3])

    def seen(self, floor: Positions) -> Seen:
        """The numbers in the letters up to `floor`, but for the letters that could not be opened."""
        dead_rows = self._lake.table(tables.DEAD_LETTERS.name).to_pyarrow_table(columns=_KEY)
        dead = set(zip(*(dead_rows[name].to_pylist() for name in _KEY), strict=True))
        heads = self._read(self._files, _HEAD, dataset.field("plant").is_valid())
        seen: Seen = {}
        for hub, partition, sequence, plant, epoch, stream, first, count in zip(
            *(heads[name].to_pylist() for name in _HEAD), strict=True
        ):
            if sequence <= floor.get((hub, partition), -1) and (hub, partition, sequence) not in dead:
                seen.setdefault((plant, epoch, stream), Ranges()).take(first, first + count - 1)
        return seen

    def _beyond(self, floor: Positions) -> list[dict[str, Any]]:
        def holds_more(file: dict[str, Any]) -> bool:
            partition = _only_partition(file)
            return partition is None or file["max.eh_sequence"] > floor.get(partition, -1)

        return [file for file in self._files if holds_more(file)]

    def _read(self, files: Collection[dict[str, Any]], columns: Sequence[str], wanted: Any = None) -> pa.Table:
        if not files:
            return _FILE_SCHEMA.empty_table().select(list(columns))
        folder = self._lake.path / tables.ENVELOPES.name
        paths = [str(folder / file["path"]) for file in files]
        return dataset.dataset(paths, _FILE_SCHEMA, format="parquet").to_table(columns=list(columns), filter=wanted)


def _files(handle: DeltaTable) -> list[dict[str, Any]]:
    actions = pa.table(handle.get_add_actions(flatten=True))
    wanted = ["path", *(f"{end}.{name}" for end in ("min", "max") for name in _KEY)]
    found: list[dict[str, Any]] = actions.select([name for name in wanted if name in actions.column_names]).to_pylist()
    return found


def _only_partition(file: dict[str, Any]) -> Partition | None:
    """The partition all of the file's rows are from; None when there are several, or the log does not say."""
    hub, partition = file.get("min.eh_hub"), file.get("min.eh_partition")
    is_known = hub is not None and partition is not None and file.get("max.eh_sequence") is not None
    if is_known and (hub, partition) == (file.get("max.eh_hub"), file.get("max.eh_partition")):
        return str(hub), int(partition or 0)
    return None
