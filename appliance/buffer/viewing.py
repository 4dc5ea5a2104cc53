"""A view of a log that is not in use: read like the log itself, while not a byte of it changes.

SQLite ends a database's write-ahead log when its last reader leaves, also at damage behind which commits stand. So the
view has a write-ahead log of its own, in which `wal.mended` makes those commits readable.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from appliance.buffer.wal import mended


@contextmanager
def viewed(path: Path) -> Iterator[tuple[Path, str]]:
    """A path to read the log by, and what of its write-ahead log is damaged, empty for nothing.

    The database itself is linked, or copied where it cannot be. Raises OSError when there is no room for that.
    """
    with _folder(path) as name:
        view = Path(name) / path.name
        try:
            view.hardlink_to(path)
        except OSError:
            shutil.copyfile(path, view)
        if (wal := Path(f"{path}-wal")).exists():
            shutil.copyfile(wal, f"{view}-wal")
        yield view, mended(view)


def _folder(path: Path) -> "TemporaryDirectory[str]":
    """Beside the log, where links reach; elsewhere when nobody may write there."""
    try:
        return TemporaryDirectory(dir=path.parent, prefix="view-")
    except OSError:
        return TemporaryDirectory(prefix="plantward-view-")
