"""The command line: what a technician types, and what it answers when something is wrong."""

import json
import socket
from pathlib import Path

import pytest
from processes import Program, free_port, until
from processes import status as ask
from typer.testing import CliRunner

from appliance.cli import app

PLANT = '[plant]\nname = "northfield"\ndata = "{data}"\n[http]\nbind = "127.0.0.1:{http}"\n'
BROKER = '[[broker.listener]]\nbind = "127.0.0.1:{mqtt}"\nanonymous = true\n'


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    """A plant.toml that is fine, with ports nobody has."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "plant.toml"
    text = (PLANT + BROKER).format(data=(tmp_path / "data").as_posix(), http=free_port(), mqtt=free_port())
    path.write_text(text, "utf-8")
    return path


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_check_says_that_a_file_is_fine(plant: Path) -> None:
    """One line with what the file asks for."""
    code, out, _ = run("check", "--config", plant)
    assert (code, out.partition(": ")[2]) == (0, "fine; plant northfield, 0 sources, 0 equipment, uplink none\n")


def test_check_names_a_missing_data_folder(plant: Path) -> None:
    """Before the restart, not after it."""
    (plant.parent / "data").rmdir()
    code, _, error = run("check", "--config", plant)
    assert code == 2
    assert "of [plant] data does not exist; create it" in error


def test_check_prints_all_keys_as_json_schema() -> None:
    """For editors and for other programs."""
    code, out, _ = run("check", "--schema")
    assert code == 0
    assert "broker" in json.loads(out)["properties"]


def test_status_of_a_plant_that_does_not_run(plant: Path) -> None:
    """It failed, and says where it asked."""
    code, _, error = run("status", "--config", plant)
    assert code == 1
    assert "does not answer on 127.0.0.1" in error


def test_a_taken_port_is_named_with_its_key(plant: Path) -> None:
    """Nothing has been started when the line is printed."""
    text = plant.read_text("utf-8")
    port = int(text.partition('bind = "127.0.0.1:')[2].partition('"')[0])
    with socket.create_server(("127.0.0.1", port)):
        code, _, error = run("run", "--config", plant)
    assert code == 2
    assert f"127.0.0.1:{port} cannot be bound" in error
    assert "change http.bind" in error
    assert not (plant.parent / "data" / "buffer.db").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["replay", "/nowhere.csv", "--mqtt", "here"], 2, "is not HOST:PORT"),
        (["replay", "/nowhere.csv", "--topic-template", "a/{column}"], 1, "cannot be read"),
        (["run", "--config", "/nowhere.toml"], 2, "give --config the path of plant.toml"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], code: int, words: str) -> None:
    """No traceback, whatever was mistyped."""
    found, _, error = run(*arguments)
    assert (found, len(error.strip().splitlines())) == (code, 1)
    assert words in error


def test_a_plant_runs_answers_and_stops(plant: Path, tmp_path: Path) -> None:
    """`run` with nothing configured serves page, broker and status, and ends with exit code 0."""
    http = int(plant.read_text("utf-8").partition('bind = "127.0.0.1:')[2].partition('"')[0])
    with Program("plantward", "run", "--config", plant, log=tmp_path / "plant.log") as appliance:
        until(lambda: ask(http).get("ready"), "a ready appliance")
        code, out, _ = run("status", "--config", plant, "--json")
        assert code == 0
        assert json.loads(out)["buffer"]["plant"] == "northfield"
        code, out, _ = run("status", "--config", plant)
        assert "plant: northfield" in out
        code, _, error = run("run", "--config", plant)
        assert (code, "is in use by process" in error) == (2, True)
        appliance.stop()
        assert appliance.process.returncode == 0, appliance.tail()
    messages = [json.loads(line)["message"] for line in appliance.log.read_text("utf-8").splitlines()]
    assert messages[-1] == "appliance: plant northfield has stopped, 0 readings in the log"
