"""The OPC UA connector against a real server, with a door between them that can be cut or frozen."""

import asyncio
import contextlib
import logging
import math
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.monitored_item_service import MonitoredItemService
from asyncua.server.server import Server

from appliance.connectors.opcua import OpcUaConnector
from appliance.connectors.opcua_status import Pace
from appliance.contract.gap import Gap, GapReason
from appliance.contract.reading import Reading
from appliance.supervisor import now_us

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUICK = Pace(retry_s_min=0.05, retry_s_max=0.2, request_s=2.0, refused_tag_s=0.1, keep_alive_s=0.2)
ROOT = "acme/northfield/utilities/boiler-house/feed/pmp-204"
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


async def until(is_so: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until it is so; fails after the deadline."""
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so in time"
        await asyncio.sleep(0.01)


@dataclass(frozen=True)
class TagConfig:
    node: str
    topic: str


@dataclass(frozen=True)
class SourceConfig:
    endpoint: str
    name: str = "boiler"
    browse: str = f"ns=2;s={ROOT}"
    topic: str = "{id}"
    tag: tuple[TagConfig, ...] = ()
    publishing_interval_ms: int = 50
    sampling_interval_ms: int = 0
    queue_size: int = 100


class Machine:
    """An OPC UA server with one machine, whose tags are made and written by the test."""

    def __init__(self, port: int) -> None:
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        self.port = port
        self.server = Server()
        self.moment = START

    async def start(self) -> None:
        server = self.server
        await server.init()
        server.set_endpoint(self.endpoint)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        await server.register_namespace("urn:plantward:test")
        await self.furnish()
        await server.start()

    async def furnish(self) -> None:
        """An empty machine in the place of the old one."""
        node = self.server.get_node(self.id(ROOT))
        await self.server.delete_nodes([node], recursive=True)
        self.folder = await self.server.nodes.objects.add_folder(self.id(ROOT), ua.QualifiedName("pmp-204", 2))

    async def stop(self) -> None:
        await self.server.stop()

    @property
    def endpoint(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    def id(self, text: str) -> ua.NodeId:
        return ua.NodeId(text, 2)

    async def add(self, tag: str, value: Any, kind: ua.VariantType = ua.VariantType.Double, after_s: int = 0) -> None:
        node = self.id(f"{ROOT}/{tag}")
        await self.folder.add_variable(node, ua.QualifiedName(tag, 2), value, kind)
        await self.say(tag, value, kind, after_s)

    async def say(
        self, tag: str, value: Any, kind: ua.VariantType = ua.VariantType.Double, after_s: int = 0, status: int = 0
    ) -> None:
        moment = START + timedelta(seconds=after_s)
        data = ua.DataValue(ua.Variant(value, kind), ua.StatusCode(status), moment, moment + timedelta(milliseconds=5))
        await self.server.write_attribute_value(self.id(f"{ROOT}/{tag}"), data)

    @property
    def subscription(self) -> Any:
        """The newest subscription, as the server keeps it."""
        subscriptions = self.server.iserver.subscription_service.subscriptions
        return subscriptions[max(subscriptions)]

    @property
    def unacknowledged(self) -> list[int]:
        return list(self.subscription._not_acknowledged_results)


@dataclass
class Door:
    """A TCP relay in front of a server: it can be cut, or left open with nothing passing."""

    target: int
    port: int = 0
    is_frozen: bool = False
    connections: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _thawed: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        self._thawed.set()
        self._server = await asyncio.start_server(self._enter, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.thaw()
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    def freeze(self) -> None:
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    def cut(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self._writers += [writer, inner_writer]
        await asyncio.gather(self._relay(reader, inner_writer), self._relay(inner_reader, writer))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._thawed.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@dataclass
class Log:
    """The durable log, as the connector sees it: it can be held, or fail once."""

    readings: list[Reading] = field(default_factory=list)
    asked: int = 0
    failure: OSError | None = None
    gaps: list[Gap] = field(default_factory=list)
    is_open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.is_open.set()

    async def append(self, readings: Sequence[Reading]) -> None:
        self.asked += 1
        await self.is_open.wait()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        self.readings.extend(readings)

    async def tell(self, gaps: Sequence[Gap]) -> None:
        self.gaps.extend(gaps)

    def has(self, value: float) -> bool:
        return any(reading.value == value for reading in self.readings)

    def values(self, tag: str) -> list[Any]:
        return [reading.value for reading in self.readings if reading.topic == f"{ROOT}/{tag}"]


@contextlib.asynccontextmanager
async def following(connector: OpcUaConnector) -> AsyncIterator[OpcUaConnector]:
    """The connector, running."""
    task = asyncio.create_task(connector.run())
    try:
        yield connector
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def connector_of(endpoint: str, log: Log, **config: Any) -> OpcUaConnector:
    return OpcUaConnector(SourceConfig(endpoint, **config), log.append, now_us, pace=QUICK, tell=log.tell)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Machine]:
    """Takes a second or two to start, so the tests share it."""
    machine = Machine(free_port())
    await machine.start()
    yield machine
    await machine.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def machine(server: Machine) -> Machine:
    await server.furnish()
    return server


@pytest_asyncio.fixture(loop_scope="module")
async def door(machine: Machine) -> AsyncIterator[Door]:
    door = Door(machine.port)
    await door.start()
    yield door
    await door.stop()


@pytest.fixture
def log() -> Log:
    return Log()


async def test_every_kind_of_value_arrives_with_quality_and_all_three_times(machine: Machine, log: Log) -> None:
    """What the server says stands in the log as said: type, value, quality, source and server time; arrival is ours."""
    kinds = ua.VariantType
    said = {
        "a_double": (1.5, kinds.Double),
        "a_float": (0.25, kinds.Float),
        "an_int": (-7, kinds.Int16),
        "a_long": (2**63 - 1, kinds.Int64),
        "wider_than_64_bits": (2**64 - 1, kinds.UInt64),
        "a_bool": (True, kinds.Boolean),
        "a_text": ("läuft", kinds.String),
    }
    for tag, (value, kind) in said.items():
        await machine.add(tag, value, kind)
    await machine.add("doubtful", 3.0)
    await machine.say("doubtful", 4.0, after_s=1, status=ua.status_codes.StatusCodes.UncertainLastUsableValue)
    await machine.add("broken", 3.0)
    await machine.say("broken", 0.0, after_s=1, status=ua.status_codes.StatusCodes.BadSensorFailure)
    before_us = now_us()
    async with following(connector_of(machine.endpoint, log)):
        await until(lambda: len(log.readings) == 9)
    readings = {reading.topic.rsplit("/", 1)[1]: reading for reading in log.readings}
    for tag, (value, _) in said.items():
        expected = str(value) if tag == "wider_than_64_bits" else value
        assert (readings[tag].value, type(readings[tag].value)) == (expected, type(expected))
        assert readings[tag].quality == 192
    assert (readings["doubtful"].value, readings["doubtful"].quality) == (4.0, 64)
    assert (readings["broken"].value, readings["broken"].quality) == (None, 0)
    reading = readings["a_double"]
    assert reading.source_us == START.timestamp() * 1e6
    assert reading.server_us == reading.source_us + 5_000
    assert before_us <= reading.arrival_us <= now_us()
    assert reading.origin == "opcua:boiler"


async def test_every_sample_is_taken_even_when_the_value_stays(machine: Machine, log: Log) -> None:
    """Several samples between two notifications all arrive, in order, each with its own source time."""
    await machine.add("flow", 0.0)
    async with following(connector_of(machine.endpoint, log)):
        await until(lambda: log.readings)
        for second in range(1, 41):
            await machine.say("flow", float(second // 2), after_s=second)
        await until(lambda: len(log.readings) == 41)
    assert [reading.source_us for reading in log.readings] == [
        int(START.timestamp() + second) * 1_000_000 for second in range(41)
    ]


async def test_acknowledgement_waits_for_the_commit(machine: Machine, log: Log) -> None:
    """KEY PROMISE: while the log has not committed, the server still holds the notification for us.

    This also pins asyncua: its own publish loop, which acknowledges by itself, must never have been started.
    """
    await machine.add("flow", 1.0)
    log.is_open.clear()
    connector = connector_of(machine.endpoint, log)
    async with following(connector):
        await until(lambda: log.asked == 1)
        await machine.say("flow", 2.0, after_s=1)
        await until(lambda: machine.subscription._publish_cycles_count >= 4)  # cycles without a publish request from us
        assert machine.unacknowledged == [1]
        assert connector._link._session._publish_task is None
        assert connector.status().acknowledged == 0
        log.is_open.set()
        await until(lambda: log.values("flow") == [1.0, 2.0] and not machine.unacknowledged)
        await until(lambda: connector.status().acknowledged == 2)


async def test_a_failed_commit_is_never_acknowledged(machine: Machine, log: Log) -> None:
    """The disk is full for a moment: the server is asked for the same notification again, and it is taken once."""
    await machine.add("flow", 1.0)
    log.failure = OSError(28, "No space left on device")
    async with following(connector_of(machine.endpoint, log)) as connector:
        await until(lambda: log.values("flow") == [1.0])
        await machine.say("flow", 2.0, after_s=1)
        await until(lambda: log.values("flow") == [1.0, 2.0] and not machine.unacknowledged)
        assert "No space left" in connector.status().last_error


async def test_one_bad_node_does_not_stop_the_others(machine: Machine, log: Log, caplog: Any) -> None:
    """Tags the server does not know, and topics out of the grammar, are named; the rest flows, and a late tag joins."""
    await machine.add("flow", 1.0)
    node = f"ns=2;s={ROOT}/"
    tags = (
        TagConfig(f"{node}missing", f"{ROOT}/missing"),
        TagConfig(f"{node}flow", f"{ROOT}/flow"),
        TagConfig(f"{node}other", "too/short"),
        TagConfig("nonsense", f"{ROOT}/nonsense"),
    )
    with caplog.at_level(logging.INFO, "appliance"):
        async with following(connector_of(machine.endpoint, log, browse="", tag=tags)) as connector:
            await until(lambda: log.values("flow") == [1.0] and connector.status().connected)
            status = connector.status()
            assert (status.tags, status.bad_tags) == (1, 3)
            assert status.bad_tag == f"{node}missing: BadNodeIdUnknown"
            await machine.add("missing", 5.0)
            await until(lambda: log.values("missing") == [5.0])
            await until(lambda: connector.status().tags == 2)
    assert "BadNodeIdUnknown" in caplog.text
    assert "topic 'too/short': area: is missing" in caplog.text
    assert "'nonsense' is not a node id" in caplog.text
    assert "1 tags that were refused are monitored now" in caplog.text


async def test_values_that_the_log_does_not_keep_are_counted(machine: Machine, log: Log, caplog: Any) -> None:
    """An array is skipped with one line, however often it comes; its neighbour flows."""
    await machine.add("curve", [1.0, 2.0])
    await machine.add("flow", 1.0)
    with caplog.at_level(logging.INFO, "appliance"):
        async with following(connector_of(machine.endpoint, log)) as connector:
            await until(lambda: log.values("flow"))
            await machine.say("curve", [1.0, 3.0], after_s=1)
            await until(lambda: connector.status().unreadable == 2)
    assert caplog.text.count("holds an array of Double, which is not kept") == 1
    assert log.values("curve") == []


async def test_overflow_and_lost_notifications_are_counted(machine: Machine, log: Log, caplog: Any) -> None:
    """The server's overflow bit and a hole in the sequence numbers that it cannot fill are said and counted."""
    await machine.add("flow", 1.0)
    with caplog.at_level(logging.INFO, "appliance"):
        async with following(connector_of(machine.endpoint, log)) as connector:
            await until(lambda: log.values("flow") == [1.0])
            machine.subscription._notification_seq += 3
            await machine.say("flow", 2.0, after_s=1, status=0x0480)
            await until(lambda: log.values("flow") == [1.0, 2.0])
            await until(lambda: log.gaps)
            status = connector.status()
    assert (status.overflows, status.missed) == (1, 3)
    told = {gap.reason: gap for gap in log.gaps}
    assert (told[GapReason.MISSED].count, told[GapReason.MISSED].topics) == (3, ())
    assert (told[GapReason.OVERFLOW].count, told[GapReason.OVERFLOW].topics) == (1, (f"{ROOT}/flow",))
    assert all((gap.epoch, gap.first, gap.last) == (0, 0, -1) for gap in log.gaps)
    assert all(0 < gap.from_us <= gap.to_us for gap in log.gaps)
    assert log.readings[-1].quality == 192
    assert "3 notifications from 2 on are lost" in caplog.text
    assert "queue overflowed for 1 tags" in caplog.text


async def test_a_queue_that_is_too_short_is_a_gap_with_its_tags(
    machine: Machine, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue of two and a burst of twenty: eighteen never come, and the log says of which tag, once a minute.

    asyncua's server drops without the bit that the standard asks for, so it is completed here as other servers have it.
    """
    enqueue = InternalSubscription._enqueue_event

    async def marking(self: Any, mid: int, data: Any, size: int, queue: dict[int, list[Any]]) -> None:
        is_dropping = size > 1 and len(queue.get(mid, ())) >= size
        await enqueue(self, mid, data, size, queue)
        if is_dropping:
            oldest = queue[mid][0]
            oldest.Value = replace(oldest.Value, StatusCode=ua.StatusCode(0x0480))

    monkeypatch.setattr(InternalSubscription, "_enqueue_event", marking)
    await machine.add("flow", 0.0)
    await machine.add("steady", 0.0)
    async with following(connector_of(machine.endpoint, log, queue_size=2)) as connector:
        await until(lambda: log.values("flow") and log.values("steady"))
        for burst in (100, 200):
            for number in range(burst + 1, burst + 21):
                await machine.say("flow", float(number), after_s=number)
            await until(partial(log.has, float(burst + 20)))
    lost = 41 - len(log.values("flow"))
    assert 2 <= connector.status().overflows <= lost
    (gap,) = log.gaps  # The first at once; the second waits for its minute.
    assert (gap.reason, gap.topics, gap.topic_count) == (GapReason.OVERFLOW, (f"{ROOT}/flow",), 1)
    assert 1 <= gap.count <= lost


async def test_a_cut_link_loses_and_doubles_nothing(machine: Machine, door: Door, log: Log, caplog: Any) -> None:
    """The cable is pulled again and again under load: the session is rejoined, what was on the way is republished."""
    await machine.add("flow", 0.0)
    endpoint = f"opc.tcp://127.0.0.1:{door.port}"
    with caplog.at_level(logging.INFO, "appliance"):
        async with following(connector_of(endpoint, log)) as connector:
            await until(lambda: log.readings)
            for second in range(1, 61):
                await machine.say("flow", float(second), after_s=second)
                if second % 20 == 0:
                    door.cut()
                    await until(lambda: not connector.status().connected)
                    await until(lambda: connector.status().connected)
                else:
                    await asyncio.sleep(0.005)
            await until(lambda: len(log.readings) >= 61)
            status = connector.status()
    assert log.values("flow") == [float(second) for second in range(61)]
    assert (status.missed, status.attempts) == (0, 4)
    assert log.gaps == []
    assert "link back after 0 s, 1 tags" in caplog.text


async def test_a_restarted_server_is_followed_again(log: Log) -> None:
    """The server forgets everything: one attempt per step of the back-off, and the value it tells again is dropped."""
    machine = Machine(free_port())
    await machine.start()
    await machine.add("flow", 1.0)
    async with following(connector_of(machine.endpoint, log)) as connector:
        await until(lambda: log.values("flow") == [1.0])
        await machine.stop()
        await until(lambda: not connector.status().connected)
        await until(lambda: connector.status().attempts >= 4)
        machine.server = Server()
        await machine.start()
        await machine.add("flow", 1.0)
        await until(lambda: connector.status().connected and connector.status().repeated == 1)
        await machine.say("flow", 2.0, after_s=1)
        await until(lambda: log.values("flow") == [1.0, 2.0])
        assert connector.status().tags == 1
        await until(lambda: log.gaps)
    (gap,) = log.gaps
    assert (gap.reason, gap.epoch, gap.count) == (GapReason.UNWATCHED, 0, 0)
    assert log.readings[0].arrival_us <= gap.from_us < gap.to_us <= log.readings[-1].arrival_us
    await machine.stop()


async def test_a_hung_server_is_noticed(machine: Machine, door: Door, log: Log) -> None:
    """Connected, yet nothing comes, not even keep-alives: the link is given up, and is back when the server is."""
    await machine.add("flow", 1.0)
    async with following(connector_of(f"opc.tcp://127.0.0.1:{door.port}", log)) as connector:
        await until(lambda: log.values("flow") == [1.0])
        door.freeze()
        await until(lambda: "no sign of life" in connector.status().last_error)
        assert not connector.status().connected
        await machine.say("flow", 2.0, after_s=1)
        door.thaw()
        await until(lambda: log.values("flow") == [1.0, 2.0])
        await until(lambda: connector.status().connected)


async def test_attempts_follow_the_back_off(log: Log) -> None:
    """Nobody listens at all: the pauses double up to their cap, with one attempt each."""
    connector = connector_of(f"opc.tcp://127.0.0.1:{free_port()}", log)
    started = time.monotonic()
    async with following(connector):
        await until(lambda: connector.status().attempts >= 6)
    assert time.monotonic() - started > 0.9 * (0.05 + 0.1 + 0.18 + 0.18 + 0.18)
    assert connector.status().tags == 0


async def test_a_restarted_appliance_drops_what_its_log_has(machine: Machine, log: Log) -> None:
    """A new process is told the newest source time per topic: the first value is not written twice."""
    await machine.add("flow", 1.0)
    await machine.add("pressure", 1.0, after_s=5)

    async def latest() -> Mapping[str, int]:
        return {f"{ROOT}/{tag}": int(START.timestamp()) * 1_000_000 for tag in ("flow", "pressure")}

    connector = OpcUaConnector(SourceConfig(machine.endpoint), log.append, now_us, latest, QUICK)
    async with following(connector):
        await until(lambda: log.values("pressure") == [1.0] and connector.status().repeated == 1)
        await machine.say("flow", math.inf, after_s=1)
        await until(lambda: log.values("flow") == [math.inf])


async def test_leaving_closes_the_session(machine: Machine, log: Log) -> None:
    """Stopping is quick and polite: the server keeps neither session nor subscription."""
    await machine.add("flow", 1.0)
    subscriptions = machine.server.iserver.subscription_service.subscriptions
    before = set(subscriptions)
    async with following(connector_of(machine.endpoint, log)):
        await until(lambda: log.values("flow") == [1.0])
        assert set(subscriptions) > before
        started = time.monotonic()
    assert time.monotonic() - started < 1.0
    assert set(subscriptions) == before


async def test_browsing_finds_variables_level_by_level(
    machine: Machine, log: Log, monkeypatch: Any, caplog: Any
) -> None:
    """Topics come from the template; properties are no tags; continuation points and small servers are respected."""
    monkeypatch.setattr("appliance.connectors.opcua_browse._REFERENCES_PER_NODE", 2)
    monkeypatch.setattr("appliance.connectors.opcua_browse.NODES_PER_BROWSE", 1)
    area = await machine.folder.add_folder(machine.id(f"{ROOT}/motor"), ua.QualifiedName("motor", 2))
    for tag in ("current", "speed", "torque", "not valid"):
        await area.add_variable(machine.id(f"m.{tag}"), ua.QualifiedName(tag, 2), 1.0)
    flow = await machine.folder.add_variable(machine.id("f"), ua.QualifiedName("flow", 2), 2.0)
    await flow.add_property(machine.id("f.unit"), ua.QualifiedName("EngineeringUnits", 2), "m3/h")
    with caplog.at_level(logging.INFO, "appliance"):
        async with following(connector_of(machine.endpoint, log, topic=f"{ROOT}/{{path}}")) as connector:
            await until(lambda: len(log.readings) == 4)
            assert connector.status().bad_tags == 1
    topics = {reading.topic for reading in log.readings}
    assert topics == {f"{ROOT}/{tag}" for tag in ("motor/current", "motor/speed", "motor/torque", "flow")}
    assert "'motor/not valid'" in caplog.text or "the nearest valid level is 'not_valid'" in caplog.text


async def test_a_server_without_filters_is_followed_all_the_same(machine: Machine, log: Log, monkeypatch: Any) -> None:
    """Where the filter for every sample is refused, the item is asked for without it."""
    asked: list[bool] = []
    create = MonitoredItemService._create_data_change_monitored_item

    async def refusing(self: Any, params: Any) -> Any:
        asked.append(type(params.RequestedParameters.Filter).__name__ == "DataChangeFilter")
        if asked[-1]:
            code = ua.status_codes.StatusCodes.BadMonitoredItemFilterUnsupported
            return ua.MonitoredItemCreateResult(StatusCode=ua.StatusCode(code))
        return await create(self, params)

    monkeypatch.setattr(MonitoredItemService, "_create_data_change_monitored_item", refusing)
    await machine.add("flow", 1.0)
    async with following(connector_of(machine.endpoint, log)) as connector:
        await until(lambda: log.values("flow") == [1.0] and connector.status().tags == 1)
        assert connector.status().bad_tags == 0
    assert asked == [True, False]


async def test_a_subscription_that_the_server_ends_is_made_anew(machine: Machine, log: Log) -> None:
    """The server says that the subscription is over: a new one follows, and nothing is written twice."""
    await machine.add("flow", 1.0)
    async with following(connector_of(machine.endpoint, log)) as connector:
        await until(lambda: log.values("flow") == [1.0] and connector.status().connected)
        ended = machine.subscription
        await ended.enqueue_statuschange(ua.StatusCode(ua.status_codes.StatusCodes.BadTimeout))
        ended._startup = True  # publish it with the next cycle
        await until(lambda: "the server ended the subscription: BadTimeout" in connector.status().last_error)
        await until(lambda: connector.status().connected and connector.status().repeated == 1)
        await machine.say("flow", 2.0, after_s=1)
        await until(lambda: log.values("flow") == [1.0, 2.0])
        assert ended.data.SubscriptionId not in machine.server.iserver.subscription_service.subscriptions


async def test_the_connector_can_be_run_again(machine: Machine, log: Log) -> None:
    """The supervisor starts it again after an error that is not the link's: what was not committed comes again."""
    await machine.add("flow", 1.0)
    healthy, failures = log.append, ["a broken promise"]

    async def append(readings: Sequence[Reading]) -> None:
        if failures:
            raise RuntimeError(failures.pop())
        await healthy(readings)

    connector = OpcUaConnector(SourceConfig(machine.endpoint), append, now_us, pace=QUICK)
    with pytest.raises(ExceptionGroup):
        await connector.run()
    assert log.values("flow") == []
    async with following(connector):
        await until(lambda: log.values("flow") == [1.0])
