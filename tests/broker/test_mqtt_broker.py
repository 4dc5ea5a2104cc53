"""The embedded broker, packet by packet: what it records, answers, delivers and refuses."""

import asyncio
import random
import socket
from typing import Any

import pytest

from appliance.broker.codec import encode
from appliance.broker.packets import (
    Ack,
    Answers,
    Connack,
    Connect,
    Farewell,
    Filter,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
)
from appliance.broker.properties import Kind, Property
from appliance.broker.wire import Reason, Version

PUMP = "acme/northfield/utilities/boiler-house/feed/pmp-204"
FLOW = f"{PUMP}/flow"
both = pytest.mark.parametrize("version", list(Version))


@both
async def test_puback_comes_after_the_commit(serve: Any, eventually: Any, version: Version) -> None:
    """While the disk has not answered, the publisher is not answered either, and nobody sees the value."""
    async with serve(held=True) as served:
        reader = await served.peer("page")
        await reader.subscribe("acme/#")
        machine = await served.peer("gateway", version)
        machine.send(Publish(FLOW, b"12.5", 1, packet_id=7), Ping())
        assert await machine.receive() == Ping(Kind.PINGRESP)
        await eventually(lambda: served.log.appends == 1)
        assert served.log.entries == []
        served.log.open.set()
        assert await machine.receive() == Ack(Kind.PUBACK, 7)
        assert (await reader.message()).payload == b"12.5"
        (reading,) = served.log.entries
        assert (reading.topic, reading.value, reading.origin) == (FLOW, 12.5, "mqtt:gateway")


async def test_publishes_that_gather_are_one_commit_and_answered_in_order(serve: Any, eventually: Any) -> None:
    """What comes while a commit runs waits for the next one, all together; refusals keep their place."""
    async with serve(held=True) as served:
        machine = await served.peer("gateway")
        machine.send(Publish(FLOW, b"0", 1, packet_id=500))
        await eventually(lambda: served.log.appends == 1)
        burst = [Publish(FLOW if n % 10 else "off/grammar", b"%d" % n, 1, packet_id=n) for n in range(1, 201)]
        machine.send(*burst)
        await eventually(lambda: served.broker.statistics().received == 201)
        served.log.open.set()
        answers = [await machine.receive() for _ in range(201)]
        assert [answer.packet_id for answer in answers] == [500, *range(1, 201)]  # type: ignore[union-attr]
        assert [n for n, answer in enumerate(answers) if answer.reason] == list(range(10, 201, 10))  # type: ignore[union-attr]
        assert served.log.appends == 2
        assert [entry.value for entry in served.log.entries] == [n for n in range(201) if n % 10 or not n]


async def test_a_failed_commit_answers_nobody(serve: Any) -> None:
    """When the log breaks, the broker ends without PUBACK: publishers will send again."""
    async with serve(held=True) as served:
        machine = await served.peer("gateway")
        machine.send(Publish(FLOW, b"1", 1, packet_id=1))
        served.log.error = RuntimeError("the disk is gone")
        served.log.open.set()
        assert await machine.receive() is None
        with pytest.raises(RuntimeError, match="the disk is gone"):
            await served.task


@pytest.mark.parametrize(
    ("topic", "payload", "reason", "says"),
    [
        ("acme/northfield/flow", b"1", Reason.TOPIC_NAME_INVALID, "line: is missing"),
        (f"{PUMP}/flow rate", b"1", Reason.TOPIC_NAME_INVALID, "nearest valid level is 'flow_rate'"),
        (FLOW.replace("acme", "ACME"), b"1", Reason.TOPIC_NAME_INVALID, "begins with 'acme'"),
        (f"{PUMP}/_alarm", b"1", Reason.TOPIC_NAME_INVALID, "reserved for the appliance"),
        (FLOW, b"[1]", Reason.PAYLOAD_FORMAT_INVALID, "array"),
        (FLOW, b"\xff", Reason.PAYLOAD_FORMAT_INVALID, "not UTF-8"),
    ],
)
async def test_refusals_say_why(serve: Any, topic: str, payload: bytes, reason: Reason, says: str) -> None:
    """MQTT 5 clients get the reason and a hint; 3.1.1 has no word for it and is only counted; QoS 0 too."""
    async with serve() as served:
        machine = await served.peer("gateway")
        machine.send(Publish(topic, payload, 1, packet_id=1))
        answer = await machine.receive()
        assert isinstance(answer, Ack)
        assert answer.reason == reason
        assert says in str(answer.properties[Property.REASON_STRING])
        old = await served.peer("old-gateway", Version.V311)
        old.send(Publish(topic, payload, 1, packet_id=1))
        assert await old.receive() == Ack(Kind.PUBACK, 1)
        old.send(Publish(topic, payload), Ping())
        assert await old.receive() == Ping(Kind.PINGRESP)
        assert (served.broker.statistics().refused, served.log.entries) == (3, [])


async def test_clients_that_want_no_reason_text_get_none(serve: Any) -> None:
    """Request Problem Information 0 means: the code, no words."""
    async with serve() as served:
        machine = await served.peer("tiny", properties={Property.REQUEST_PROBLEM_INFORMATION: 0})
        machine.send(Publish("x", b"1", 1, packet_id=1))
        assert await machine.receive() == Ack(Kind.PUBACK, 1, Reason.TOPIC_NAME_INVALID)


async def test_report_accepts_and_counts(serve: Any) -> None:
    """Enforcement `report`: what fits is recorded, the rest passes, counted."""
    async with serve("report") as served:
        machine = await served.peer("gateway")
        await machine.subscribe("#")
        for number, (topic, payload) in enumerate([("any/topic", b"1"), (FLOW, b"[]"), (FLOW, b"3")], 1):
            machine.send(Publish(topic, payload, 1, packet_id=number))
            assert (await machine.message()).topic == topic
            assert await machine.receive() == Ack(Kind.PUBACK, number)
        counted = served.broker.statistics()
        assert (counted.reported, counted.recorded, counted.refused) == (2, 1, 0)


async def test_off_passes_everything_without_the_log(serve: Any) -> None:
    """Enforcement `off`: a plain broker; nothing waits for a commit."""
    async with serve("off", held=True) as served:
        peer = await served.peer("any")
        await peer.subscribe("+/b")
        peer.send(Publish("a/b", b"\xff\0", 1, packet_id=9))
        assert (await peer.message()).payload == b"\xff\0"
        assert await peer.receive() == Ack(Kind.PUBACK, 9)
        assert (served.log.appends, served.broker.statistics().passed) == (0, 1)


@both
async def test_retained_messages_come_on_subscribing(serve: Any, version: Version) -> None:
    """A late subscriber gets what was retained, marked so; an empty payload clears it."""
    async with serve() as served:
        machine = await served.peer("gateway", version)
        machine.send(Publish(FLOW, b"1", 1, True, packet_id=1), Publish(FLOW, b"2", 1, True, packet_id=2))
        assert [await machine.receive() for _ in "12"] == [Ack(Kind.PUBACK, 1), Ack(Kind.PUBACK, 2)]
        late = await served.peer("late", version)
        assert await late.subscribe(f"{PUMP}/+") == 1
        message = await late.message()
        assert (message.payload, message.retain, message.qos) == (b"2", True, 1)
        machine.send(Publish(FLOW, b"", 1, True, packet_id=3))
        await machine.receive()
        assert (await late.message()).retain is False
        assert served.broker.statistics().retained == 0
        assert len(served.log.entries) == 2


async def test_retain_handling_and_no_local(serve: Any) -> None:
    """MQTT 5: retained only for new subscriptions or never, and nothing of one's own."""
    async with serve() as served:
        peer = await served.peer("scada")
        peer.send(Publish(FLOW, b"1", 1, True, packet_id=1))
        await peer.receive()
        await peer.subscribe(FLOW, retain_handling=2)
        await peer.subscribe(FLOW, retain_handling=1, no_local=True)
        peer.send(Publish(FLOW, b"2", 1, packet_id=2))
        assert await peer.receive() == Ack(Kind.PUBACK, 2)
        await peer.subscribe(FLOW, retain_as_published=True)
        assert (await peer.message()).retain
        peer.send(Publish(FLOW, b"3", 1, True, packet_id=3))
        assert (await peer.message()).retain


async def test_properties_pass_through(serve: Any) -> None:
    """User properties, content type and the like arrive as sent, with the subscriber's identifiers added."""
    async with serve() as served:
        peer = await served.peer("scada")
        await peer.subscribe("acme/#", properties={Property.SUBSCRIPTION_IDENTIFIER: (5,)})
        sent = {
            Property.USER_PROPERTY: (("unit", "m3/h"), ("unit", "again")),
            Property.CONTENT_TYPE: "text/plain",
            Property.CORRELATION_DATA: b"\0\1",
        }
        aliased = {**sent, Property.TOPIC_ALIAS: 1}
        peer.send(Publish(FLOW, b"1", properties=aliased), Publish("", b"2", properties={Property.TOPIC_ALIAS: 1}))
        first, second = await peer.message(), await peer.message()
        assert first.properties == {**sent, Property.SUBSCRIPTION_IDENTIFIER: (5,)}
        assert (second.topic, second.payload) == (FLOW, b"2")


async def test_wildcards_leave_dollar_topics_alone(serve: Any) -> None:
    """`#` and `+` do not match topics that begin with $."""
    async with serve("off") as served:
        peer = await served.peer("scada")
        await peer.subscribe("#")
        await peer.subscribe("+/x")
        peer.send(Publish("$SYS/x", b"1"), Publish("a/x", b"2"))
        assert (await peer.message()).topic == "a/x"


async def test_subscriptions_answered_one_by_one(serve: Any) -> None:
    """QoS 2 is granted as 1; bad filters and shared subscriptions are refused; unsubscribing says what was there."""
    async with serve(subscriptions_max=2) as served:
        peer = await served.peer("scada")
        wanted = [("a/#", 2), ("b", 0), ("c", 0), ("a/#/b", 0), ("$share/g/a", 1)]
        granted = [await peer.subscribe(topic, qos) for topic, qos in wanted]
        assert granted == [1, 0, 0x97, 0x8F, 0x9E]
        peer.send(Unsubscribe(2, ("a/#", "never")))
        assert await peer.receive() == Answers(Kind.UNSUBACK, 2, (0, 0x11))
        old = await served.peer("old", Version.V311)
        assert await old.subscribe("a/#/b") == 0x80


async def test_what_connack_says(serve: Any) -> None:
    """A v5 client hears the limits and its assigned id; the id works as origin."""
    async with serve() as served:
        peer = await served.raw()
        welcome = await peer.connect(properties={Property.SESSION_EXPIRY: 60})
        assert welcome.properties[Property.MAXIMUM_QOS] == 1
        assert welcome.properties[Property.SESSION_EXPIRY] == 0
        peer.send(Publish(FLOW, b"1", 1, packet_id=1))
        await peer.receive()
        assert served.log.entries[0].origin == f"mqtt:{welcome.properties[Property.ASSIGNED_CLIENT_ID]}"


async def test_a_newer_connection_takes_over(serve: Any) -> None:
    """The older connection of a client id is told so and closed; its subscriptions end, its will is published."""
    async with serve() as served:
        watcher = await served.peer("watcher")
        await watcher.subscribe("acme/#")
        older = await served.peer("scada", will=Will(f"{PUMP}/link", b"false", 1))
        await older.subscribe("acme/#")
        await served.peer("scada")
        farewell = await older.receive()
        assert isinstance(farewell, Farewell) and farewell.reason == Reason.SESSION_TAKEN_OVER
        assert await older.receive() is None
        assert (await watcher.message()).payload == b"false"
        assert served.broker.statistics().connections == 2


@both
async def test_the_will_of_who_leaves_without_a_word(serve: Any, version: Version) -> None:
    """A cut connection publishes the will, recorded like any reading; a DISCONNECT does not."""
    async with serve() as served:
        watcher = await served.peer("watcher")
        await watcher.subscribe("acme/#")
        will = Will(f"{PUMP}/link", b'"lost"', 1, True)
        polite = await served.peer("polite", version, will=will)
        polite.send(Farewell())
        assert await polite.receive() is None
        rude = await served.peer("rude", version, will=will)
        await rude.close()
        assert (await watcher.message()).payload == b'"lost"'
        assert [(entry.value, entry.origin) for entry in served.log.entries] == [("lost", "mqtt:rude")]
        assert served.broker.statistics().retained == 1


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"\x34\x06\0\1a\0\1\0", Reason.QOS_NOT_SUPPORTED),
        (b"\x36\x06\0\1a\0\1\0", Reason.MALFORMED_PACKET),
        (b"\x30\xff\xff\xff\x7f", Reason.PACKET_TOO_LARGE),
        (b"\x30\xff\xff\xff\xff\x7f", Reason.MALFORMED_PACKET),
        (b"\x30\x04\0\1+\0", Reason.TOPIC_NAME_INVALID),
        (b"\x30\x03\0\0\0", Reason.TOPIC_NAME_INVALID),
        (b"\x30\x06\0\0\3\x23\0\7", Reason.PROTOCOL_ERROR),
        (b"\x30\x06\0\0\3\x23\xff\xff", Reason.TOPIC_ALIAS_INVALID),
        (b"\x10\x0d\0\4MQTT\5\2\0\0\0\0\0", Reason.PROTOCOL_ERROR),
        (b"\x20\x03\0\0\0", Reason.PROTOCOL_ERROR),
        (b"\xf0\x00", Reason.PROTOCOL_ERROR),
        (b"\x00\x00", Reason.MALFORMED_PACKET),
        (b"\x82\x03\0\1\0", Reason.PROTOCOL_ERROR),
    ],
)
async def test_mistakes_end_the_connection_and_nothing_else(serve: Any, wire: bytes, reason: Reason) -> None:
    """The guilty hears why and is closed; the others notice nothing."""
    async with serve() as served:
        bystander, guilty = await served.peer("bystander"), await served.peer("guilty")
        guilty.writer.write(wire)
        farewell = await guilty.receive()
        assert isinstance(farewell, Farewell)
        assert farewell.reason == reason, farewell
        assert await guilty.receive() is None
        bystander.send(Publish(FLOW, b"1", 1, packet_id=1))
        assert await bystander.receive() == Ack(Kind.PUBACK, 1)
        assert served.broker.statistics().connections_failed == 1


@pytest.mark.parametrize("seed", range(4))
async def test_damaged_streams_never_hurt_the_broker(serve: Any, seed: int) -> None:
    """Clients whose bytes are damaged at random: no error escapes, and an honest client is served throughout."""
    escaped: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
    chance = random.Random(seed)
    will = Will(FLOW, b"1", 1, properties={Property.WILL_DELAY: 3})
    script: list[Packet] = [
        Connect(Version.V5, "damaged", keepalive_s=9, will=will, properties={Property.RECEIVE_MAXIMUM: 9}),
        Subscribe(1, (Filter("acme/+/#", 1), Filter("$share/a/b", 2))),
        Publish(FLOW, b'{"value": 1, "timestamp": "2026-01-01"}', 1, True, packet_id=2),
        Publish(FLOW, b"2", properties={Property.TOPIC_ALIAS: 3, Property.USER_PROPERTY: (("a", "b"),)}),
        Unsubscribe(3, ("acme/+/#",)),
        Ack(Kind.PUBACK, 1),
        Ping(),
        Farewell(),
    ]
    async with serve(chance.choice(["off", "report", "refuse"])) as served:
        honest = await served.peer("honest")
        for number in range(1, 101):
            peer = await served.raw()
            chosen = [script[0], *chance.choices(script, k=5)]
            data = bytearray(b"".join(encode(packet, Version.V5) for packet in chosen))
            for _ in range(chance.randint(0, 3)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            peer.writer.write(bytes(data))
            peer.writer.write_eof()
            honest.send(Publish(FLOW, b"1", 1, packet_id=number))
            assert await honest.receive() == Ack(Kind.PUBACK, number)
        assert escaped == []
        assert not served.task.done()


@pytest.mark.parametrize(
    "wire",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\xc0\x00", b"\x10\x00"],
)
async def test_strangers_are_closed_without_an_answer(serve: Any, wire: bytes) -> None:
    """Who does not begin with CONNECT is no MQTT client."""
    async with serve() as served:
        stranger = await served.raw()
        stranger.writer.write(wire)
        assert await stranger.receive() is None
        assert served.broker.statistics().connections_failed == 1


async def test_unknown_versions_hear_so(serve: Any) -> None:
    """MQTT 3.1 and whatever comes after 5 get return code 1."""
    async with serve() as served:
        for wire in (b"\x10\x0e\0\6MQIsdp\3\2\0\0\0\0", b"\x10\x0c\0\4MQTT\6\2\0\0\0\0"):
            peer = await served.raw(Version.V311)
            peer.writer.write(wire)
            assert await peer.receive() == Connack(Reason.UNSUPPORTED_PROTOCOL_VERSION)
            assert await peer.receive() is None


async def test_silence_is_noticed(serve: Any) -> None:
    """No CONNECT, or no packet for 1.5 keepalives: closed; the will says so."""
    async with serve(connect_timeout_s=0.2) as served:
        mute = await served.raw()
        assert await mute.receive() is None
        watcher = await served.peer("watcher")
        await watcher.subscribe("acme/#")
        silent = await served.peer("silent", keepalive_s=1, will=Will(f"{PUMP}/link", b"0"))
        farewell = await silent.receive()
        assert isinstance(farewell, Farewell) and farewell.reason == Reason.KEEP_ALIVE_TIMEOUT
        assert (await watcher.message()).topic == f"{PUMP}/link"


async def test_surplus_clients_are_refused(serve: Any) -> None:
    """Beyond the bound clients are refused with a reason, and sockets are cut; a take-over still works."""
    async with serve(connections_max=2) as served:
        await served.peer("a")
        await served.peer("b")
        surplus = await served.raw()
        assert (await surplus.connect("c")).reason == Reason.QUOTA_EXCEEDED
        assert await surplus.receive() is None
        old = await served.raw(Version.V311)
        assert (await old.connect("c")).reason == Reason.SERVER_UNAVAILABLE
        await served.peer("a")
        idle = [await served.raw() for _ in range(4)]
        assert await idle[-1].receive() is None


async def test_listeners_that_trust_nobody(serve: Any) -> None:
    """Without roles, a listener that is not anonymous admits nobody."""

    class Closed:
        bind, anonymous = "127.0.0.1:0", False

    class Settings:
        listener = (Closed(),)

    async with serve(settings=Settings()) as served:
        for version in Version:
            peer = await served.raw(version)
            assert (await peer.connect("x", username="admin", password=b"admin")).reason == Reason.NOT_AUTHORIZED


async def test_the_receive_maximum_of_a_client_is_its_window(serve: Any) -> None:
    """No more unacknowledged QoS 1 than the client takes; the rest waits and comes as it acknowledges."""
    async with serve("off") as served:
        slow = await served.peer("slow", properties={Property.RECEIVE_MAXIMUM: 2})
        await slow.subscribe("t")
        fast = await served.peer("fast")
        for number in range(1, 6):
            fast.send(Publish("t", b"%d" % number, 1, packet_id=number))
        for _ in range(5):
            await fast.receive()
        slow.send(Ping())
        got = [await slow.message(), await slow.message()]
        assert await slow.receive() == Ping(Kind.PINGRESP)
        while len(got) < 5:
            slow.send(Ack(Kind.PUBACK, got[len(got) - 2].packet_id))
            got.append(await slow.message())
        assert [message.payload for message in got] == [b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_slow_subscriber_costs_only_itself(serve: Any, eventually: Any, qos: int) -> None:
    """Who does not read loses messages, counted; the publisher and the others go on, and memory stays bounded."""
    limits = {"unsent_bytes_max": 1 << 16, "queue_bytes_max": 1 << 18}
    async with serve("off", **limits) as served:
        slow, healthy = await served.peer("slow"), await served.peer("healthy")
        await slow.subscribe("t", qos)
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await healthy.subscribe("u", qos)
        fast = await served.peer("fast")
        for number in range(1, 401):
            fast.send(Publish("t", bytes(40_000), 1, packet_id=number))
            assert await fast.receive() == Ack(Kind.PUBACK, number)
        fast.send(Publish("u", b"still here", 1, packet_id=1))
        assert (await healthy.message()).payload == b"still here"
        assert served.broker.statistics().dropped > 0


async def test_publishers_are_slowed_down_when_commits_are_slow(serve: Any, eventually: Any) -> None:
    """Beyond the bound the broker stops reading from publishers; when the disk is back all is recorded."""
    async with serve(held=True, ingest_messages_max=100) as served:
        machine = await served.peer("gateway", Version.V311)
        count = 20_000
        machine.send(*[Publish(FLOW, b"%d" % n + b" " * 100, 1, packet_id=n) for n in range(1, count + 1)])
        await eventually(lambda: served.broker.statistics().waiting > 100)
        for _ in range(20):
            await asyncio.sleep(0)
        assert served.broker.statistics().received < count
        served.log.open.set()
        for number in range(1, count + 1):
            assert await machine.receive() == Ack(Kind.PUBACK, number)
        assert [entry.value for entry in served.log.entries] == list(range(1, count + 1))


async def test_more_unanswered_publishes_than_announced(serve: Any) -> None:
    """A v5 client that ignores the receive maximum is disconnected."""
    async with serve(held=True, receive_max=5) as served:
        machine = await served.peer("gateway")
        machine.send(*[Publish(FLOW, b"1", 1, packet_id=n) for n in range(1, 7)])
        farewell = await machine.receive()
        assert isinstance(farewell, Farewell) and farewell.reason == Reason.RECEIVE_MAXIMUM_EXCEEDED


async def test_packets_too_large_for_a_client_are_not_sent(serve: Any) -> None:
    """The client's maximum packet size is kept."""
    async with serve("off") as served:
        small = await served.peer("small", properties={Property.MAXIMUM_PACKET_SIZE: 100})
        await small.subscribe("t")
        small.send(Publish("t", bytes(200)), Publish("t", b"fits"))
        assert (await small.message()).payload == b"fits"


async def test_a_taken_port_is_said_in_one_line(serve: Any) -> None:
    """The broker names the address and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"

        class Listener:
            anonymous = True

        Listener.bind = bind  # type: ignore[attr-defined]

        class Settings:
            listener = (Listener(),)

        with pytest.raises(OSError, match=f"cannot listen on {bind}.*change bind"):
            async with serve(settings=Settings()):
                pass


async def test_stopping_closes_the_ports_and_starting_again_works(serve: Any, eventually: Any) -> None:
    """A stopped broker leaves no port and no connection; the supervisor may run it again."""
    async with serve() as served:
        peer = await served.peer("scada", will=Will(FLOW, b"1"))
        served.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await served.task
        assert await peer.receive() is None
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", served.port)
        served.task = asyncio.create_task(served.broker.run())
        await eventually(lambda: bool(served.broker.addresses))
        served.port = served.broker.addresses[0][1]
        again = await served.peer("scada")
        again.send(Publish(FLOW, b"2", 1, packet_id=1))
        assert await again.receive() == Ack(Kind.PUBACK, 1)
        assert [entry.value for entry in served.log.entries] == [2]
