"""The ledger from end to end: what the lake lacks is named by the plant, resent without a person, and stands once."""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gmqtt import Client
from processes import Program, delete, free_port, listens, rows, status, until, write_cloud, write_plant

AREA = "acme/northfield/utilities/boiler-house/feed"
READINGS = 40
HELD = "SELECT seq, count(*) FROM t GROUP BY seq ORDER BY seq"


@dataclass
class Way:
    """A plant, a hub and a lake, all running."""

    folder: Path
    mqtt: int
    http: int
    switches: int
    appliance: Program
    companion: Program

    def ledger(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/api/ledger?hours=24", timeout=5) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def windows(self) -> list[dict[str, Any]]:
        return [window for window in self.ledger()["windows"] if window["last"] >= window["first"]]

    def missing(self) -> list[list[int]]:
        return sorted(part for window in self.windows() for part in window["missing"])

    def started_again(self) -> Program:
        """The companion, after it was killed."""
        config, log = self.folder / "cloud_sync.toml", self.folder / "cloud.log"
        return Program("plantward-cloud", "run", "--config", config, log=log)

    def in_lake(self) -> list[tuple[int, int]]:
        return rows(self.folder / "lake", "silver/readings", HELD)

    def forget(self, count: int) -> None:
        body = json.dumps({"forget": count}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.switches}/faults", body, method="PUT")
        with urllib.request.urlopen(request, timeout=5):
            pass


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    mqtt, http, amqp, switches = (free_port() for _ in range(4))
    plant, cloud = write_plant(tmp_path, mqtt, http, amqp), write_cloud(tmp_path, amqp)
    doors = ("--port", str(amqp), "--faults-port", str(switches))
    with ExitStack() as programs:
        enter = programs.enter_context
        enter(Program("plantward-cloud", "emulate", *doors, "--data", tmp_path / "hub", log=tmp_path / "hub.log"))
        until(lambda: listens(amqp) and listens(switches), "the hub")
        appliance = enter(Program("plantward", "run", "--config", plant, log=tmp_path / "plant.log"))
        companion = enter(Program("plantward-cloud", "run", "--config", cloud, log=tmp_path / "cloud.log"))
        until(lambda: listens(mqtt) and status(http), f"the appliance; {appliance.tail()}")
        yield Way(tmp_path, mqtt, http, switches, appliance, companion)


async def publish(way: Way, number: int) -> None:
    """One round of readings of two machines, at QoS 1."""
    client = Client(f"scada-{number}")
    await client.connect("127.0.0.1", way.mqtt)
    for position in range(READINGS):
        client.publish(
            f"{AREA}/pmp-{position % 2}/t{position % 4}", json.dumps({"value": number + position / 7}), qos=1
        )
    await client.disconnect()


async def going_on(way: Way, holds: Callable[[], bool]) -> int:
    """The plant goes on until something holds: that is what tells late from lost. Gives the readings so far."""
    for number in range(10, 100):
        if holds():
            return status(way.http)["buffer"]["readings"]
        await publish(way, number)
        await asyncio.sleep(2)
    raise AssertionError(f"not within 90 rounds; {way.appliance.tail()} {way.companion.tail()}")


@pytest.mark.timeout(400)
async def test_what_the_hub_forgets_is_named_and_sent_again_by_itself(way: Way) -> None:
    """The hub acknowledges and keeps nothing: the lake's account finds it, the plant sends it again, nothing twice."""
    await publish(way, 0)
    until(lambda: len(way.in_lake()) == READINGS, f"the first readings in silver; {way.companion.tail()}", 60)
    way.companion.kill()  # Its receipts shall not be what is forgotten.
    way.forget(1)
    await publish(way, 1)
    until(lambda: status(way.http)["bridge"]["readings"]["backlog"] == 0, f"acknowledgements; {way.appliance.tail()}")
    with way.started_again():
        lost = lambda: status(way.http)["ledger"]["resends"] > 0  # noqa: E731
        await going_on(way, lost)
        total = status(way.http)["buffer"]["readings"]
        whole = [(seq, 1) for seq in range(1, total + 1)]
        until(lambda: way.in_lake() == whole, f"{total} readings once in silver; {way.appliance.tail()}", 90)
    assert "acknowledged and are not in the lake" in way.appliance.log.read_text()


@pytest.mark.timeout(400)
async def test_rows_deleted_from_the_lake_are_named_by_the_plant(way: Way) -> None:
    """Three numbers, exactly these three, on the plant's page and on its command line, while the plant goes on."""
    for number in range(3):
        await publish(way, number)
    total = 3 * READINGS
    until(lambda: len(way.in_lake()) == total, f"silver; {way.companion.tail()}", 60)
    heard = lambda: status(way.http)["ledger"]["receipt_age_s"] is not None  # noqa: E731
    until(heard, f"a receipt; {way.appliance.tail()} {way.companion.tail()}", 60)
    held = lambda: sum(its["in_lake"] for window in way.windows() for its in window["accounts"]) == total  # noqa: E731
    until(held, f"the receipt that says all is held; {way.appliance.tail()}", 60)
    delete(way.folder / "lake", "silver/readings", "seq IN (7, 8, 60)")
    await going_on(way, lambda: bool(way.missing()))
    assert way.missing() == [[7, 8], [60, 60]], way.appliance.tail()
    command = [
        str(Path(sys.executable).with_name("plantward")),
        "status",
        "--ledger",
        "--config",
        way.folder / "plant.toml",
    ]
    said = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert "missing: readings 7-8, 60" in said.stdout, said.stdout + said.stderr
