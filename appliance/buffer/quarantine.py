"""The Quarantine: a folder beside the log that keeps the bytes of what could not be read."""

import logging
import os
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

FILES_MAX: Final = 200


class Quarantine:
    """Nothing reads it but people; beyond `FILES_MAX` files, or without room, bytes are let go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, name: str, body: bytes) -> bool:
        """Write the bytes down under this name; False when they could not be kept."""
        try:
            self.folder.mkdir(exist_ok=True)
            if len(list(self.folder.iterdir())) >= FILES_MAX:
                log.warning("buffer: %s is not kept, %s holds %d files; clear it", name, self.folder, FILES_MAX)
                return False
            with (self.folder / name).open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            log.warning("buffer: %s is not kept in %s (%s)", name, self.folder, error)
            return False
        return True
