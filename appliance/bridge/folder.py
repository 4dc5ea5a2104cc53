"""The Folder uplink: envelopes as files, for a plant without a network, to be carried away and drained later.

A file is `plant-PLANT/EPOCH/STREAM/FIRST-COUNT.envelope`, see `contract/envelope_file.py`. It appears under its name
only when it is whole and on disk. Sending the same envelope again replaces the file by an equal one.
"""

import asyncio
import os
from pathlib import Path
from urllib.parse import quote

from appliance.bridge.uplink import UplinkError
from appliance.contract.envelope import Lane, Sealed
from appliance.contract.envelope_file import SUFFIX, to_bytes


class FolderUplink:
    """Writes envelopes into a folder."""

    name = "folder"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        """Write one envelope; returns when it is on disk."""
        try:
            await asyncio.to_thread(_write, self._path / _place(sealed), to_bytes(sealed, lane))
        except OSError as error:
            text = f"cannot write to {self._path}: {error.strerror or error}"
            raise UplinkError(text, "check that the folder exists, is writable and has space") from error

    async def close(self) -> None:
        """Nothing is held open."""


def _place(sealed: Sealed) -> Path:
    file_name = f"{sealed.first:020d}-{sealed.count}{SUFFIX}"
    # A plant's name is data: quoting keeps it one level below the folder.
    return Path("plant-" + quote(sealed.plant, safe="")) / str(sealed.epoch) / str(sealed.stream) / file_name


def _write(path: Path, data: bytes) -> None:
    _make_folder(path.parent)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    _sync_folder(path.parent)


def _make_folder(path: Path) -> None:
    """Create a folder and those above it, each durable in the one above."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    if os.name == "nt":
        return  # Windows has no such call, and needs none for a rename on NTFS.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
