"""One reading, followed by its message id from the machine's OPC UA server to the gold row."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from asyncua import Server, ua
from gmqtt import Client
from processes import Program, free_port, listens, rows, status, until, write_cloud, write_plant

TOPIC = "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de"
MEASURED = datetime(2026, 3, 29, 1, 30, 0, 123_000, tzinfo=UTC)
VALUE = 6.84


@asynccontextmanager
async def a_machine(port: int) -> AsyncIterator[None]:
    """A real OPC UA server with one variable, measured once."""
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    node = await server.nodes.objects.add_variable(ua.NodeId(TOPIC, 2), "vibration_de", 0.0)
    await server.write_attribute_value(
        node.nodeid,
        ua.DataValue(ua.Variant(VALUE, ua.VariantType.Double), SourceTimestamp=MEASURED, ServerTimestamp=MEASURED),
    )
    async with server:
        yield


async def on_the_uns(mqtt: int) -> tuple[dict[str, object], str]:
    """What an MQTT client sees on the topic: the payload, and the message id beside it."""
    client, seen = Client("witness"), asyncio.get_running_loop().create_future()

    async def on_message(_: object, topic: str, payload: bytes, __: int, properties: dict[str, object]) -> int:
        if topic == TOPIC and not seen.done():
            seen.set_result((json.loads(payload), dict(properties["user_property"])["message-id"]))  # type: ignore[call-overload]
        return 0

    client.on_message = on_message
    await client.connect("127.0.0.1", mqtt)
    client.subscribe("#", qos=1)
    found: tuple[dict[str, object], str] = await asyncio.wait_for(seen, 20)
    await client.disconnect()
    return found


async def test_a_reading_keeps_its_name_from_the_machine_to_gold(tmp_path: Path) -> None:
    """Machine, log, UNS, Event Hubs endpoint, bronze, silver and gold all speak of the same one reading."""
    mqtt, http, amqp, opcua = (free_port() for _ in range(4))
    source = f'[[source]]\nname = "boiler"\nkind = "opcua"\nendpoint = "opc.tcp://127.0.0.1:{opcua}"\n'
    source += f'[[source.tag]]\nnode = "ns=2;s={TOPIC}"\ntopic = "{TOPIC}"\n'
    plant, cloud, lake = write_plant(tmp_path, mqtt, http, amqp, source), write_cloud(tmp_path, amqp), tmp_path / "lake"
    async with a_machine(opcua):
        with Program(
            "plantward-cloud", "emulate", "--port", str(amqp), "--data", tmp_path / "hub", log=tmp_path / "hub.log"
        ):
            with Program("plantward", "run", "--config", plant, log=tmp_path / "plant.log") as appliance:
                await asyncio.to_thread(until, lambda: listens(mqtt), "the broker")
                payload, message_id = await on_the_uns(mqtt)
                assert payload == {"value": VALUE, "timestamp": "2026-03-29T01:30:00.123Z", "quality": "GOOD"}
                plant_name, epoch, stream, seq = message_id.split(":")
                assert (plant_name, stream, seq) == ("northfield", "readings", "1")
                sent = lambda: status(http)["bridge"]["readings"]["acknowledged_seq"] == 1  # noqa: E731
                await asyncio.to_thread(until, sent, f"the hub's acknowledgement; {appliance.tail()}")
                page = await asyncio.to_thread(status, http)
                assert page["buffer"]["readings"] == 1
            with Program("plantward-cloud", "run", "--config", cloud, log=tmp_path / "cloud.log") as companion:
                gold = (
                    "SELECT n, avg_value, first_message_id, last_message_id, hour_ts FROM t WHERE tag = 'vibration_de'"
                )
                found = await asyncio.to_thread(
                    until, lambda: rows(lake, "gold/sensor_hourly", gold), f"the gold row; {companion.tail()}", 60
                )
    assert found == [(1, VALUE, message_id, message_id, datetime(2026, 3, 29, 1, tzinfo=UTC))]
    silver = f"SELECT value, quality, event_ts, epoch, origin FROM t WHERE message_id = '{message_id}'"
    assert [(*row[:2], row[2].astimezone(UTC), *row[3:]) for row in rows(lake, "silver/readings", silver)] == [
        (VALUE, 192, MEASURED, int(epoch), "opcua:boiler")
    ]
    bronze = rows(lake, "bronze/events", f"SELECT first, count FROM t WHERE epoch = {epoch} AND stream = 'readings'")
    assert bronze == [(1, 1)]
