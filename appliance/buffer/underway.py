"""Under way: envelopes that had left when the log turned bad, kept until the far side has them for sure.

They may have arrived or not. Under the numbers of the new epoch they could stand in the lake twice, so they are sent
again under their old ones, which the cloud counts once. One file each in a folder beside the log, whole and on disk
before the new log takes the place of the old one.
"""

import logging
import os
from pathlib import Path
from typing import Final

from appliance.contract.envelope import EnvelopeError, Lane, Sealed
from appliance.contract.envelope_file import SUFFIX, split, to_bytes

log = logging.getLogger(__name__)

FOLDER: Final = "under-way"


class UnderWay:
    """The folder. It is there only after a log was renewed with envelopes on their way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, sealed: Sealed, lane: Lane) -> bool:
        """Write an envelope down; False when it could not be kept."""
        path = self._folder / f"{sealed.epoch}-{sealed.stream}-{sealed.first:020d}-{sealed.count}{SUFFIX}"
        try:
            self._folder.mkdir(exist_ok=True)
            with path.open("wb") as file:
                file.write(to_bytes(sealed, lane))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            log.warning("buffer: %s cannot be kept (%s); its readings may reach the lake twice", path.name, error)
            path.unlink(missing_ok=True)
            return False
        return True

    def kept(self) -> list[Path]:
        """The envelopes that are still to be sent, the oldest first."""
        return sorted(self._folder.glob(f"*{SUFFIX}")) if self._folder.is_dir() else []

    def read(self, path: Path) -> tuple[Sealed, Lane]:
        """An envelope and its lane; raises `EnvelopeError` for a file that is damaged itself."""
        properties, body = split(path.read_bytes())
        lane = properties.get("lane")
        if lane not in set(Lane):
            raise EnvelopeError("bad-properties", f"lane is {lane!r}")
        return Sealed.from_wire(properties, body), Lane(lane)

    def settle(self, path: Path) -> None:
        """The far side has this one."""
        path.unlink(missing_ok=True)
        if not self.kept():
            self._folder.rmdir()
