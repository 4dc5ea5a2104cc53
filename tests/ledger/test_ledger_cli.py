"""`plantward status --ledger`: what a technician reads when he asks whether everything has arrived."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ledgers import NOON_US, PUMPS, plant, reading
from typer.testing import CliRunner

from appliance.cli import app
from appliance.contract.ledger import WINDOW_US
from appliance.contract.reading import Stream
from appliance.ledger import ledger as ledger_module


@contextmanager
def answering(folder: Path, document: dict[str, Any], asked: list[str], code: int = 200) -> Iterator[Path]:
    """The page's address gives this document; gives the plant's configuration."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            """Nothing on standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        config = folder / "plant.toml"
        bind = f'bind = "127.0.0.1:{server.server_port}"'
        config.write_text(f'[plant]\nname = "northfield"\ndata = "{folder.as_posix()}"\n[http]\n{bind}\n', "utf-8")
        try:
            yield config
        finally:
            server.shutdown()
            thread.join()


async def test_the_table_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One window is green and one lacks three readings: the table counts by pump and names the numbers."""
    monkeypatch.setattr(ledger_module, "TURN_S", 0.005)
    monkeypatch.setattr(ledger_module, "LOOK_S", 0.0)
    async with plant(tmp_path) as its:
        for start_us in (NOON_US, NOON_US + WINDOW_US):
            await its.buffer.append([reading(start_us + number, PUMPS[number % 3]) for number in range(1_500)])
        its.clock.us += 2 * WINDOW_US + 40_000_000
        await its.until(lambda: its.buffer.last(Stream.EVENTS) >= 2)
        await its.counted()
        its.lake_has_all(but=[(2_204, 2_206)])
        await its.counted()
        await its.buffer.append([reading(its.clock.us)])
        its.lake_has_all(but=[(2_204, 2_206)])
        proof = its.receipt([(1, 2_203), (2_207, 3_001)])
        its.receipt([(1, 2_203), (2_207, 3_001)], complete_to_us=proof.at_us)
        await its.until(lambda: its.ledger.status().missing_readings == 3)
        epoch, windows = its.buffer.epoch, await its.ledger.windows(0, NOON_US + WINDOW_US)
        document = {"windows": [asdict(window) for window in windows], "status": asdict(its.ledger.status())}

    asked: list[str] = []
    with answering(tmp_path, document, asked) as config:
        result = CliRunner().invoke(app, ["status", "--ledger", "--hours", "2", "--config", str(config)])
        as_json = CliRunner().invoke(app, ["status", "--ledger", "--json", "--config", str(config)])
    assert (result.exit_code, as_json.exit_code) == (0, 0)
    assert asked == ["/api/ledger?hours=2", "/api/ledger?hours=24"]
    assert json.loads(as_json.stdout) == json.loads(json.dumps(document))
    head, age, columns, *rows, named, green = result.stdout.splitlines()
    assert head == "2 windows of the last 2 hours: 1 green, 0 explained, 0 waiting, 1 missing"
    assert age.startswith("the cloud said so ")
    assert columns.split()[:3] == ["window", "state", "produced"]
    for row, pump in zip(rows, PUMPS, strict=True):
        *_, state, produced, stored, sent, acknowledged, in_lake, dropped, missing, waiting, equipment = row.split()
        assert (state, equipment, dropped, waiting) == ("missing", pump, "0", "0")
        assert (produced, stored, sent, acknowledged, in_lake, missing) == ("500", "500", "500", "500", "499", "1")
    assert named == f"  missing: readings 2,204-2,206 of epoch {epoch}"
    assert green.split()[2:4] + green.split()[-2:] == ["green", "1,500", "all", "3"]


def test_a_plant_without_a_ledger_says_so(tmp_path: Path) -> None:
    """The answer's own words, and exit code 1."""
    with answering(tmp_path, {"error": "This plant keeps no ledger."}, [], 404) as config:
        result = CliRunner().invoke(app, ["status", "--ledger", "--config", str(config)])
    assert result.exit_code == 1
    assert "This plant keeps no ledger." in result.stderr
