"""Recorded data replayed at full speed: every value arrives once for each time it was sent, times unchanged."""

import csv
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
from processes import Program, free_port, listens, rows, until, write_cloud, write_plant

RECORDED = Path(__file__).parents[2] / "shared/data/azure_pdm/PdM_telemetry.csv"
VALUES = 103_680
TEMPLATE = "acme/pdm/hall/line1/cell1/m{machineID}/{column}"


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded set ../shared/data/azure_pdm is not on this machine")
@pytest.mark.timeout(300)
def test_a_recorded_set_arrives_whole_and_a_second_time_as_new_messages(tmp_path: Path) -> None:
    """12 machines, 25,920 hours, 4 values each, twice: 207,360 readings that differ in arrival and number alone."""
    mqtt, http, amqp = (free_port() for _ in range(3))
    plant, cloud, lake = write_plant(tmp_path, mqtt, http, amqp), write_cloud(tmp_path, amqp), tmp_path / "lake"
    with (
        Program(
            "plantward-cloud", "emulate", "--port", str(amqp), "--data", tmp_path / "hub", log=tmp_path / "hub.log"
        ),
        Program("plantward", "run", "--config", plant, log=tmp_path / "plant.log"),
        Program("plantward-cloud", "run", "--config", cloud, log=tmp_path / "cloud.log"),
    ):
        until(lambda: listens(mqtt) and listens(http), "the appliance")
        for times in (1, 2):
            assert f"{VALUES:,} values" in replay(mqtt)
            until(lambda times=times: counted(lake) >= times * VALUES, f"replay {times} in silver", 120)
            assert counted(lake) == times * VALUES
        page = f"http://127.0.0.1:{http}/equipment/acme/pdm/hall/line1/cell1/m1?at=2015-01-01T06:00:00Z"
        with urllib.request.urlopen(page, timeout=30) as response:
            text = response.read().decode()
    assert text.count("2015-01-01 06:00:00") >= 8, "the page shows both deliveries of all four tags"

    numbers = "SELECT count(DISTINCT seq), min(seq), max(seq) FROM t"
    assert rows(lake, "silver/readings", numbers) == [(2 * VALUES, 1, 2 * VALUES)]
    both = rows(
        lake,
        "silver/readings",
        "SELECT topic, epoch_us(event_ts), min(value), max(value), count(*), count(DISTINCT message_id), "
        "max(arrival_ts) > min(arrival_ts) FROM t GROUP BY ALL",
    )
    assert {(topic, at_us, low) for topic, at_us, low, *_ in both} == recorded()
    assert all(low == high and count == 2 and ids == 2 and later for *_, low, high, count, ids, later in both)


def replay(mqtt: int) -> str:
    """Run `plantward replay` as fast as the broker acknowledges; gives what it said."""
    command = [str(Path(sys.executable).with_name("plantward")), "replay", str(RECORDED), f"--mqtt=127.0.0.1:{mqtt}"]
    command += ["--topic-template", TEMPLATE, "--time-column", "datetime", "--speed", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def counted(lake: Path) -> int:
    found = rows(lake, "silver/readings", "SELECT count(*) FROM t")
    return int(found[0][0]) if found else 0


def recorded() -> set[tuple[str, int, float]]:
    """The file's own words: topic, time in microseconds, value."""
    found = set()
    with RECORDED.open(newline="") as file:
        for line in csv.DictReader(file):
            at = datetime.fromisoformat(line.pop("datetime")).replace(tzinfo=UTC)
            machine = line.pop("machineID")
            found |= {
                (TEMPLATE.format(machineID=machine, column=column), int(at.timestamp()) * 1_000_000, float(value))
                for column, value in line.items()
            }
    return found
