"""Receipts: what the cloud says stands in the lake, read from the hub `receipts` or from a file carried back."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias
from urllib.parse import quote

from appliance.contract.receipt import Receipt, ReceiptError

log = logging.getLogger(__name__)

FOLDER: Final = "receipts"
LOOK_S: Final = 5.0
Take: TypeAlias = Callable[[Receipt], None]


@dataclass(frozen=True, slots=True)
class ReceiptsStatus:
    """What the reader says of itself."""

    receipts: int
    """Taken since the start."""
    passed_over: int
    """Bodies that were no receipt, since the start."""
    newest_us: int
    """When the newest one was made, by the cloud's clock; 0 when none has come."""
    last_error: str
    """Empty while all is well."""


class ReceiptReader(Protocol):
    """Hands over what the cloud says; whatever goes wrong on the way is said in the log and tried again."""

    async def run(self) -> None:
        """Follow until cancelled."""

    def status(self) -> ReceiptsStatus: ...


class Story:
    """What came and what went wrong, said once each."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._receipts = self._newest_us = self._passed_over = 0
        self._hint = self.last_error = ""

    def came(self, body: bytes) -> None:
        try:
            receipt = Receipt.from_body(body)
        except ReceiptError as error:
            if not self._passed_over:
                log.warning("receipts: something that is no receipt is passed over: %s", error)
            self._passed_over += 1
            return
        self._receipts += 1
        self._newest_us = max(self._newest_us, receipt.at_us)
        self._take(receipt)

    def failed(self, text: str, hint: str) -> None:
        """Texts differ from try to try, by what names the try; another hint is another trouble."""
        log.log(logging.DEBUG if hint == self._hint else logging.WARNING, "receipts: %s; %s", text, hint)
        self._hint, self.last_error = hint, f"{text}; {hint}"

    def well(self) -> None:
        if self.last_error:
            log.info("receipts: they come again")
        self._hint = self.last_error = ""

    def status(self) -> ReceiptsStatus:
        return ReceiptsStatus(self._receipts, self._passed_over, self._newest_us, self.last_error)


class FolderReceipts:
    """Reads `PATH/receipts/PLANT.json`, which was carried back beside the envelopes."""

    def __init__(self, path: Path, plant: str, take: Take, look_s: float = LOOK_S) -> None:
        self._file, self._look_s = path / FOLDER / f"{quote(plant, safe='')}.json", look_s
        self._story = Story(take)
        self._stood: tuple[int, int] | None = None

    def status(self) -> ReceiptsStatus:
        return self._story.status()

    async def run(self) -> None:
        """Look at the file every few seconds until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(self._look_s)

    async def _look(self) -> None:
        try:
            stands, text = await asyncio.to_thread(self._changed)
        except OSError as error:
            self._story.failed(f"{self._file} cannot be read: {error.strerror}", "let the service's user read it")
            return
        if stands == self._stood or text is None:
            self._story.well()
            return
        try:
            said = json.loads(text)
            bodies = [json.dumps(each).encode() for each in said] if isinstance(said, list) else [text]
        except ValueError:
            self._story.failed(f"{self._file} is not whole", "carry it here again")
            return
        self._stood = stands
        self._story.well()
        for body in bodies:
            self._story.came(body)

    def _changed(self) -> tuple[tuple[int, int] | None, bytes | None]:
        """How the file stands, and what is in it when that is new."""
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return None, None
        stands = (status.st_mtime_ns, status.st_size)
        return stands, None if stands == self._stood else self._file.read_bytes()
