"""The demo: it starts and stops politely, goes on where it stopped, and loses nothing when it is killed."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from processes import Program, free_port, rows, status, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes by POSIX signals")


def arguments(data: Path, http: int, *more: str) -> list[str]:
    ports = [f"--mqtt-port={free_port()}", f"--amqp-port={free_port()}", f"--opcua-port={free_port()}"]
    return ["demo", "--data", str(data), f"--http-port={http}", *ports, "--no-browser", "--speed=60", *more]


def refused(*more: str) -> str:
    """Run `plantward demo` that must not start; gives its one line."""
    command = [str(Path(sys.executable).with_name("plantward")), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def read(data: Path, http: int, more_than: int) -> int:
    """Wait until the running demo has written down more readings than that; gives how many."""
    logs = lambda: "\n".join(path.read_text("utf-8", "replace")[-800:] for path in (data / "logs").glob("*.log"))  # noqa: E731
    enough = lambda: status(http).get("buffer", {}).get("readings", 0) > more_than  # noqa: E731
    try:
        until(enough, f"more than {more_than} readings", 60)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{logs()}") from None
    return int(status(http)["buffer"]["readings"])


def test_a_wrong_start_is_one_clear_line(tmp_path: Path) -> None:
    """A taken port, a missing folder, a bad configuration: exit code 2 and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused(*arguments(tmp_path / "d", port))
        assert f"port {port} (http)" in text
        assert "name another with --http-port" in text
    assert "does not exist" in refused(*arguments(tmp_path / "no" / "d", free_port()))
    (tmp_path / "plant.toml").write_text("[plant]\nname = 'x'\ndata = '/'\nspeed = 1\n", "utf-8")
    text = refused("check", "--config", str(tmp_path / "plant.toml"))
    assert "plant.toml:4: unknown key 'speed'; known here: data, name" in text
    assert "cannot be read" in refused("status", "--data", str(tmp_path / "nothing"))


def test_killed_three_times_and_stopped_twice_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """Every reading that the machines' server knows to be acknowledged stands once in silver.

    The appliance is killed three times while the plant runs; then Ctrl-C, a second start that goes on,
    and Ctrl-C again. At the end the rest is drained, and counts, numbers and times are compared one by one.
    """
    data, http = tmp_path / "data", free_port()
    command = arguments(data, http)
    with Program("plantward", *command, log=tmp_path / "demo.log") as demo:
        seen = read(data, http, 300)
        assert "is in use by process" in refused(*arguments(data, free_port()))
        for _ in range(3):
            pid = int((data / "plantward.lock").read_text())
            subprocess.run(["kill", "-9", str(pid)], check=True)
            seen = read(data, http, seen + 200)
        demo.stop(signal.SIGINT)
        assert demo.process.returncode == 0
        assert "Traceback" not in demo.tail().split("stopping ...")[-1]
    with Program("plantward", *command, log=tmp_path / "demo.log") as demo:
        read(data, http, seen + 200)
        demo.stop(signal.SIGINT)
    assert "made with seed 1, not 7; delete it to start anew" in refused(*command, "--seed=7")

    drain(data, http)
    lake = data / "lake"
    ((count, distinct, first, last),) = rows(
        lake, "silver/readings", "SELECT count(*), count(DISTINCT seq), min(seq), max(seq) FROM t"
    )
    assert (distinct, first, last) == (count, 1, count), "numbers in silver are contiguous and stand once"
    samples = rows(lake, "silver/readings", "SELECT topic, epoch_us(event_ts), count(*) FROM t GROUP BY ALL")
    assert [sample for sample in samples if sample[2] != 1] == [], "no sample of a machine stands twice"
    in_silver = {(topic, at_us) for topic, at_us, _ in samples}
    acknowledged = delivered(data / "plant")
    assert len(acknowledged) > 1_000
    assert acknowledged - in_silver == set(), "everything acknowledged is there"


def delivered(folder: Path) -> set[tuple[str, int]]:
    """What the machines' server saw acknowledged: topic and source time."""
    found: set[tuple[str, int]] = set()
    for path in folder.glob("delivered*.jsonl*"):
        for line in path.read_text("utf-8").splitlines():
            found |= {(topic, at_us) for topic, at_us, *_ in json.loads(line)["values"]}
    return found


def drain(data: Path, http: int) -> None:
    """Run the demo's own configuration without its machines until silver holds all that the log holds."""
    text = (data / "plant.toml").read_text("utf-8")
    head, _, rest = text.partition("[[source]]")
    (data / "drain.toml").write_text(head + "[[equipment]]" + rest.partition("[[equipment]]")[2], "utf-8")
    amqp = text.partition("sb://127.0.0.1:")[2].partition(";")[0]
    with (
        Program("plantward-cloud", "emulate", "--port", amqp, "--data", data / "hub", log=data / "hub.log"),
        Program("plantward", "run", "--config", data / "drain.toml", log=data / "drain.log"),
        Program("plantward-cloud", "run", "--config", data / "cloud_sync.toml", log=data / "cloud.log"),
    ):
        until(lambda: status(http), "the appliance")

        def complete() -> bool:
            found = rows(data / "lake", "silver/readings", "SELECT count(*) FROM t")
            return bool(found) and found[0][0] >= status(http)["buffer"]["readings"]

        until(complete, "all readings in silver", 60)
