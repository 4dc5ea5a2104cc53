"""The Reserve: a file of no content beside the log, given up when the disk is full so that the log can still write."""

import logging
import os
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

RESERVE_BYTES: Final = 8 * 1024 * 1024


class Reserve:
    """Space that is taken while there is plenty, so that it is there when there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_there(self) -> bool:
        return self._path.exists()

    def take(self) -> bool:
        """Take the space; False when the disk does not have it."""
        try:
            with self._path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
                else:
                    file.write(bytes(RESERVE_BYTES))
        except OSError:
            self.give_up()
            return False
        return True

    def give_up(self) -> bool:
        """Give the space back to the disk; False when there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
