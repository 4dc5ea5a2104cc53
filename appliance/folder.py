"""The data folder: it has one owner at a time."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FolderError(Exception):
    """A data folder that cannot be used; one line with a hint."""


class FolderInUseError(FolderError):
    """A data folder that another process owns."""


@contextmanager
def owned(folder: Path, lock_name: str = "plantward.lock") -> Iterator[None]:
    """Own the folder for as long as the block lasts; raises `FolderError` when it is missing, and
    `FolderInUseError` when it is owned already.

    The lock belongs to the open file, so it is gone with the process, however that ends.
    """
    if not folder.is_dir():
        raise FolderError(f"the folder {folder} does not exist; create it first, or name another with --data")
    path = folder / lock_name
    try:
        lock = path.open("a+b")
    except OSError as error:
        raise FolderError(f"the folder {folder} cannot be written ({error.strerror}); check its owner") from error
    with lock:
        try:
            _lock(lock.fileno())
        except OSError:
            lock.seek(0)
            owner = lock.read(32).decode("ascii", "replace") or "unknown"
            hint = "stop it, or name another folder with --data"
            raise FolderInUseError(f"the folder {folder} is in use by process {owner}; {hint}") from None
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1_000, os.SEEK_SET)  # Beyond the text, which others may read.
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
