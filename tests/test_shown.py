"""What the demo shows: a machine is predicted to fail before it does, for operators, machines and analysts alike."""

import asyncio
import json
import sys
import urllib.request
from pathlib import Path

import pytest
from gmqtt import Client
from processes import Program, free_port, rows, status, until

from appliance.contract.prediction import Alarm, AlarmState
from appliance.contract.reading import Reading

WORN = "acme/northfield/utilities/boiler-house/feed/pmp-204"


@pytest.mark.skipif(sys.platform == "win32", reason="stops processes by POSIX signals")
async def test_a_worn_pump_is_announced_before_it_stops(tmp_path: Path) -> None:
    """At ten times the demo's speed: a card on the page, a message on the UNS, rows in gold, and then it fails."""
    data, http, mqtt = tmp_path / "data", free_port(), free_port()
    ports = [f"--http-port={http}", f"--mqtt-port={mqtt}", f"--amqp-port={free_port()}", f"--opcua-port={free_port()}"]
    command = ["demo", "--data", str(data), *ports, "--no-browser", "--speed=600"]
    with Program("plantward", *command, log=tmp_path / "demo.log"):
        standing = lambda: [text for text in status(http).get("view", {}).get("standing", []) if "pmp-204" in text]  # noqa: E731
        await asyncio.to_thread(until, standing, "an alarm of pmp-204", 60)
        alarm = await on_the_uns(mqtt, f"{WORN}/_alarm")
        page = await asyncio.to_thread(read, f"http://127.0.0.1:{http}/")
        assert "PMP-204" in page
        assert "Likely failure in" in page
        gold = "SELECT mode, alarms_raised FROM t WHERE equipment = 'pmp-204' AND alarms_raised > 0"
        found = await asyncio.to_thread(until, lambda: rows(data / "lake", "gold/predictions_daily", gold), "gold", 30)
        assert found[0][0] == "bearing wear"
        stopped = f"SELECT min(epoch_us(event_ts)) FROM t WHERE topic = '{WORN}/running' AND value = 0"
        failed = await asyncio.to_thread(
            until, lambda: rows(data / "lake", "silver/readings", f"{stopped} HAVING count(*) > 0"), "its failure", 90
        )
    assert alarm.state is AlarmState.RAISED
    assert alarm.at_us < failed[0][0], "it was announced before it failed"


async def on_the_uns(mqtt: int, topic: str) -> Alarm:
    """The alarm that is retained on a topic."""
    client, seen = Client("witness"), asyncio.get_running_loop().create_future()

    async def on_message(_: object, __: str, payload: bytes, *___: object) -> int:
        if not seen.done():
            seen.set_result(payload)
        return 0

    client.on_message = on_message
    await client.connect("127.0.0.1", mqtt)
    client.subscribe(topic, qos=1)
    payload = await asyncio.wait_for(seen, 10)
    await client.disconnect()
    assert json.loads(payload)["equipment"] == WORN
    return Alarm.from_entry(Reading(topic, payload.decode(), 192, 0, 0, 0, "alarm"))


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        text: str = response.read().decode()
        return text
