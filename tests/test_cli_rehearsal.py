"""`plantward rehearse-outage` and `verify-report`, against a small HTTP server that answers as the appliance does."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance import cli_rehearsal
from appliance.cli import app
from appliance.rehearsal.report import Course, Verdict, facts_of
from appliance.rehearsal.report_file import Shelf

STATUS = {
    "readings": 1_200, "waiting": 1_200, "peak_waiting": 1_300, "left_s": 60, "full_s": 9_000.0, "drain_s": None,
    "settled": 1, "windows": 2, "sentence": "", "verdict": "", "report": "",
}  # fmt: skip


@dataclass
class Answers:
    """What the appliance answers, one after the other; a number is an HTTP error."""

    queue: list[dict[str, object] | int] = field(default_factory=list)
    asked: list[tuple[str, object]] = field(default_factory=list)
    port: int = 0


@pytest.fixture
def answers() -> Iterator[Answers]:
    known = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            known.asked.append((f"{self.command} {self.path}", json.loads(body) if body else None))
            answer = known.queue.pop(0)
            self.send_response(answer if isinstance(answer, int) else 200)
            self.end_headers()
            text = {"error": "a rehearsal runs already (cut)"} if isinstance(answer, int) else STATUS | answer
            self.wfile.write(json.dumps(text).encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        known.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield known
        server.shutdown()
        thread.join()


def plant(folder: Path, port: int) -> Path:
    path = folder / "plant.toml"
    path.write_text(f'[plant]\nname = "northfield"\ndata = "{folder}"\n[http]\nbind = "127.0.0.1:{port}"\n')
    return path


def test_it_is_started_followed_and_judged(answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each phase, the verdict and the report's path; exit code 0 when passed, 1 when not proven."""
    monkeypatch.setattr(cli_rehearsal, "TURN_S", 0.01)
    config = str(plant(tmp_path, answers.port))
    for verdict, code in (("PASSED", 0), ("NOT PROVEN", 1), ("FAILED", 1), ("BROKEN OFF", 1)):
        done = {"phase": "done", "verdict": verdict, "sentence": "So it is.", "report": "rehearsal-x.html"}
        answers.queue = [{"phase": "cut"}, {"phase": "cut"}, {"phase": "draining"}, {"phase": "confirming"}, done]
        result = CliRunner().invoke(app, ["rehearse-outage", "--minutes", "2", "--config", config])
        assert result.exit_code == code
        lines = result.stdout.splitlines()
        assert lines[0].startswith(
            "cut: 60 s left, 1,200 readings in, 1,200 wait; full in 2 h, will drain in an unknown"
        )
        assert lines[1].startswith("draining: 1,200 wait of 1,300") and "confirmed 1 of 2 windows" in lines[2]
        assert lines[3:] == [f"{verdict}: So it is.", f"report: {tmp_path}/rehearsals/rehearsal-x.html"]
    assert answers.asked[0] == ("POST /api/rehearsal/start", {"minutes": 2})
    answers.queue = [{"phase": "done", "verdict": "PASSED", "report": "r.html"}]
    result = CliRunner().invoke(app, ["rehearse-outage", "--config", config, "--json"])
    assert json.loads(result.stdout)["report"] == f"{tmp_path}/rehearsals/r.html"


def test_a_refusal_a_cancel_and_wrong_usage(answers: Answers, tmp_path: Path) -> None:
    """What the appliance refuses is its own words and 1; minutes beyond the bounds are 2; nobody there is 1."""
    config = str(plant(tmp_path, answers.port))
    answers.queue = [409]
    result = CliRunner().invoke(app, ["rehearse-outage", "--config", config])
    assert (result.exit_code, result.stderr.strip()) == (1, "a rehearsal runs already (cut)")
    answers.queue = [{"phase": "broken off", "verdict": "BROKEN OFF"}]
    assert CliRunner().invoke(app, ["rehearse-outage", "--cancel", "--config", config]).exit_code == 0
    assert answers.asked[-1] == ("POST /api/rehearsal/cancel", {})
    for minutes in ("0", "241", "soon"):
        assert CliRunner().invoke(app, ["rehearse-outage", "--minutes", minutes, "--config", config]).exit_code == 2
    nobody = str(plant(tmp_path, 1))
    result = CliRunner().invoke(app, ["rehearse-outage", "--config", nobody])
    assert result.exit_code == 1 and "is it running?" in result.stderr


def test_a_report_is_verified_with_or_without_the_plants_key(tmp_path: Path) -> None:
    """Valid; changed; signed by another plant; not a report; no key."""
    course = Course("northfield", 3, "hub", "a test", 1, 1_790_000_000_000_000, 1, 0)
    facts = facts_of(course, [], Verdict.NOT_PROVEN, "Nothing came in.", "1.0", "UTC", 1_790_000_060_000_000)
    shelves = [Shelf(tmp_path / name) for name in ("a", "b")]
    files = [str(shelf.folder / shelf.put(facts)) for shelf in shelves]
    key = str(tmp_path / "a" / "keys" / "plant-signing.pub.pem")
    run = CliRunner().invoke
    result = run(app, ["verify-report", files[0]])
    assert result.exit_code == 0 and "valid: plant northfield, NOT PROVEN: Nothing came in." in result.stdout
    assert run(app, ["verify-report", files[0], "--key", key]).exit_code == 0
    result = run(app, ["verify-report", files[1], "--key", key])
    assert result.exit_code == 1 and "signed by another key" in result.stderr
    changed = tmp_path / "changed.html"
    changed.write_text(Path(files[0]).read_text("utf-8").replace("Nothing", "Everything"), "utf-8")
    assert run(app, ["verify-report", str(changed)]).exit_code == 1
    for wrong in (tmp_path, tmp_path / "absent.html", tmp_path / "a" / "keys" / "plant-signing.pem"):
        result = run(app, ["verify-report", str(wrong)])
        assert result.exit_code == 1 and result.stderr.startswith("NOT VALID: ")
    assert run(app, ["verify-report", files[0], "--key", files[0]]).exit_code == 2
