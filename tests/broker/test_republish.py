"""The Republisher: the log on the UNS, without echo."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.broker.message import Message
from appliance.broker.properties import Property
from appliance.broker.republish import BEHIND_MAX, EVENTS_CURSOR, Republisher
from appliance.buffer.buffer import Buffer
from appliance.contract.prediction import Alarm, AlarmState
from appliance.contract.reading import Reading, Stream

PUMP = "acme/northfield/utilities/boiler-house/feed/pmp-204"
AT_US = 1_790_000_000_250_000


def reading(tag: str, value: Any, origin: str = "opcua:boiler") -> Reading:
    return Reading(f"{PUMP}/{tag}", value, 192, AT_US, AT_US, AT_US, origin)


@dataclass
class Door:
    """Keeps what is published."""

    messages: list[Message] = field(default_factory=list)

    def publish(self, message: Message) -> None:
        self.messages.append(message)


async def republish(buffer: Buffer, door: Any, eventually: Any, condition: Any) -> None:
    """Run a Republisher until the condition holds."""
    republisher = await Republisher.following(buffer, door)
    task = asyncio.create_task(republisher.run())
    await eventually(lambda: task.done() or condition())
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_readings_and_events_reach_their_topics(tmp_path: Path, eventually: Any) -> None:
    """Each entry is published on its topic, retained, with its message id; MQTT's own entries are left out."""
    alarm = Alarm(PUMP, "limit/flow", AlarmState.RAISED, 2, "too little", 1.0, 2.0, AT_US, AT_US).entry(AT_US)
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        door = Door()
        task = asyncio.create_task((await Republisher.following(buffer, door)).run())
        await buffer.append([reading("flow", 12.5), reading("speed", 3, "mqtt:gateway"), reading("flow", float("nan"))])
        await buffer.append([alarm], Stream.EVENTS)
        await eventually(lambda: len(door.messages) == 3)
        task.cancel()
        by_id = {
            message.properties[Property.USER_PROPERTY]: (message.topic, json.loads(message.payload))
            for message in door.messages
        }
        shown = {"timestamp": "2026-09-21T14:13:20.250Z", "quality": "GOOD"}
        head = f"northfield:{buffer.epoch}"
        assert by_id == {
            (("message-id", f"{head}:readings:1"),): (f"{PUMP}/flow", {"value": 12.5, **shown}),
            (("message-id", f"{head}:readings:3"),): (f"{PUMP}/flow", {"value": "NaN", **shown}),
            (("message-id", f"{head}:events:1"),): (f"{PUMP}/_alarm", json.loads(str(alarm.value))),
        }
        assert {(message.qos, message.retain) for message in door.messages} == {(1, True)}


async def test_a_start_far_behind_shows_what_is_not_what_was(tmp_path: Path, eventually: Any) -> None:
    """With a long log behind it, only the newest value of each topic is published, and the cursor moves on."""
    async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        count = BEHIND_MAX + 1
        await buffer.append([reading(f"tag_{number % 3}", number) for number in range(count)])
        await buffer.append([reading("tag_0", -1, "mqtt:gateway")])
        door = Door()
        await republish(buffer, door, eventually, lambda: len(door.messages) == 2)
        values = {message.topic[-5:]: json.loads(message.payload)["value"] for message in door.messages}
        newest = {f"tag_{number % 3}": number for number in range(count)}
        assert values == {tag: newest[tag] for tag in ("tag_1", "tag_2")}


async def test_a_restart_brings_back_the_current_state(tmp_path: Path, eventually: Any) -> None:
    """What is retained is lost with the process; the newest value of each topic is published again."""
    for _ in range(2):
        async with Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
            if not buffer.last():
                await buffer.append([reading("flow", number) for number in range(10)])
            await (await buffer.cursor("republish")).advance(10)
            await (await buffer.cursor(EVENTS_CURSOR, Stream.EVENTS)).advance(0)
            door = Door()
            await republish(buffer, door, eventually, lambda door=door: bool(door.messages))
            assert [json.loads(message.payload)["value"] for message in door.messages] == [9]


async def test_subscribers_of_the_broker_see_the_machines(serve: Any, tmp_path: Path, eventually: Any) -> None:
    """An OPC UA reading reaches an MQTT subscriber that comes later, retained, at the QoS it asked for."""
    async with serve() as served, Buffer.open(tmp_path / "buffer.db", "northfield") as buffer:
        await buffer.append([reading("flow", 12.5)])
        await republish(buffer, served.broker, eventually, lambda: served.broker.statistics().retained == 1)
        peer = await served.peer("page")
        await peer.subscribe("acme/#", 1)
        message = await peer.message()
        assert (message.topic, message.qos, message.retain) == (f"{PUMP}/flow", 1, True)
        assert json.loads(message.payload)["value"] == 12.5
        assert served.log.entries == []
