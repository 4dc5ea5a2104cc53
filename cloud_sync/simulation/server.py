"""The simulated plant behind a real OPC UA server.

Every variable's node id is its topic, such as `ns=2;s=acme/northfield/utilities/boiler-house/feed/pmp-204/flow`.
Source and server timestamps are plant time. Plant time starts at the wall clock's minute, advances `speed` times as
fast, and stands still while no client is subscribed, or while the client does not acknowledge: so stopping,
killing and starting again the client or this server loses no sample and says none twice with another value.
A second client that listens counts as well: then plant time goes on without the first.
"""

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any, Self

from asyncua import ua
from asyncua.common.node import Node
from asyncua.server.internal_server import InternalServer
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds

from cloud_sync.simulation.delivery import Delivered, DeliveryLog, WitnessedSubscriptions
from cloud_sync.simulation.plant import EQUIPMENT, equipment_toml
from cloud_sync.simulation.recording import Recording, SampleSet

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
NAMESPACE = 2
NAMESPACE_URI = "urn:plantward:simulation"
TICK_S = 0.5
VALUES_PER_S_MAX = 1_250
SETTLE_S = 5.0
"""A client that subscribed gets so long to choose its tags before plant time goes on without the others."""
_PERIODS_S = (1, 2, 5, 10, 15, 20, 30, 60, 90, 120, 300, 600, 900, 1800, 3600)
_EPOCH = ua.DateTime(1970, 1, 1, tzinfo=UTC)
_GOOD = ua.StatusCode()


def period_of(speed: float, tags: int) -> int:
    """The seconds of plant time between two samples: as few as keep the values per second within bounds."""
    return next((period for period in _PERIODS_S if speed / period * tags <= VALUES_PER_S_MAX), _PERIODS_S[-1])


async def serve(
    data: Path,
    port: int,
    speed: float,
    seed: int,
    equipment_file: Path | None = None,
    ready: Callable[[], None] | None = None,
) -> None:
    """Simulate until cancelled; a taken port is an OSError, a foreign state file a ValueError, both told plainly."""
    _prepare(data, equipment_file)
    async with PlantServer(data, port, speed, seed) as plant:
        if ready is not None:
            ready()
        await plant.run()


def _prepare(data: Path, equipment_file: Path | None) -> None:
    data.mkdir(parents=True, exist_ok=True)
    if equipment_file is not None:
        equipment_file.write_text(equipment_toml(), "utf-8")


class PlantServer:
    """An OPC UA server whose variables follow a Recording."""

    def __init__(self, data: Path, port: int, speed: float, seed: int) -> None:
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        self._data, self.port, self._speed = data, port, speed
        start_us = int(time.time()) // 60 * 60 * 1_000_000
        self.recording = Recording.open(data / "plant.json", seed, start_us)
        self._first = self.recording.rewind()
        self._nodes = {topic: ua.NodeId(ua.String(topic), ua.Int16(NAMESPACE)) for topic in self._first.values}
        self._period_s = period_of(speed, len(self._nodes))
        internal = InternalServer()
        self.subscriptions = WitnessedSubscriptions(internal, self._rewind, self._acknowledged)
        internal.subscription_service = self.subscriptions
        self._server = Server(iserver=internal)
        self._delivered: DeliveryLog | None = None
        self._stack = AsyncExitStack()

    @property
    def endpoint(self) -> str:
        return f"opc.tcp://{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        self.recording.save()
        log.info("plant: stopped at plant time %s", _moment(self.recording.now_us).isoformat(timespec="seconds"))

    async def _open(self, stack: AsyncExitStack) -> None:
        server = self._server
        await server.init()
        server.set_server_name("Plantward simulated plant")
        server.set_endpoint(self.endpoint)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_identity_tokens([ua.AnonymousIdentityToken])
        await server.register_namespace(NAMESPACE_URI)
        await _build(server, self._first)
        self._delivered = DeliveryLog(self._data / "delivered.jsonl")
        stack.callback(self._delivered.close)
        try:
            await server.start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                text = f"port {self.port} on {HOST} is taken; stop what uses it or give another --port"
                raise OSError(errno.EADDRINUSE, text) from error
            raise
        stack.push_async_callback(server.stop)
        listening = server.bserver
        assert listening is not None
        self.port = listening.port
        self.subscriptions.protocols = lambda: listening.clients
        log.info(
            "plant: %d machines, %d tags on %s, plant time %s, %g times as fast, a sample each %d s",
            len(EQUIPMENT),
            len(self._nodes),
            self.endpoint,
            _moment(self.recording.now_us).isoformat(timespec="seconds"),
            self._speed,
            self._period_s,
        )

    async def run(self) -> None:
        """Step and say, tick by tick, until cancelled."""
        owed_s, before = 0.0, time.monotonic()
        listened = False
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            elapsed_s, before = min(now - before, 2 * TICK_S), now
            if listened != (listened := self.subscriptions.is_listened_to(len(self._nodes), SETTLE_S)):
                log.info(
                    "plant: %s",
                    "a client listens, plant time goes on" if listened else "nobody listens, plant time stands still",
                )
            if not listened:
                owed_s = 0.0
                continue
            owed_s += elapsed_s * self._speed
            periods = int(owed_s // self._period_s)
            owed_s -= periods * self._period_s
            self.recording.step(self._period_s, periods)
            for sample_set in self.recording.unsaid():
                await self._say(sample_set)

    async def _say(self, sample_set: SampleSet) -> None:
        moment = _moment(sample_set.at_us)
        space = self._server.iserver.aspace
        for topic, value in sample_set.values.items():
            await space.write_attribute_value(self._nodes[topic], AttributeIds.Value, _data_value(value, moment))

    async def _rewind(self) -> None:
        """Before the first subscription: show the oldest values that nobody acknowledged; the others follow."""
        await self._say(self.recording.rewind())

    def _acknowledged(self, subscription: int, seq: int, values: list[Delivered]) -> None:
        ours = [each for each in values if each.topic in self._nodes]
        if ours and self._delivered is not None:
            self._delivered.write(subscription, seq, ours)
            self.recording.release(max(each.source_us for each in ours))


def _moment(at_us: int) -> ua.DateTime:
    return _EPOCH + timedelta(microseconds=at_us)


def _data_value(value: float | bool, moment: ua.DateTime) -> ua.DataValue:
    kind = ua.VariantType.Boolean if isinstance(value, bool) else ua.VariantType.Double
    return ua.DataValue(ua.Variant(value, kind), _GOOD, moment, moment)


async def _build(server: Server, first: SampleSet) -> None:
    """A folder per level, an object per machine, a variable per tag with its unit."""
    moment = _moment(first.at_us)
    folders: dict[str, Node] = {"": server.nodes.objects}
    units = {f"{each.path}/{tag}": unit for each in EQUIPMENT for tag, unit in each.units.items()}
    for topic, value in first.values.items():
        parent, tag = await _folder(folders, topic.rpartition("/")[0]), topic.rpartition("/")[2]
        node = await parent.add_variable(_id(topic), ua.QualifiedName(tag, NAMESPACE), value)
        await node.write_value(_data_value(value, moment))
        if unit := units.get(topic):
            eu = ua.EUInformation(
                NamespaceUri="http://www.opcfoundation.org/UA/units/un/cefact", DisplayName=ua.LocalizedText(unit)
            )
            await node.add_property(_id(f"{topic}.EngineeringUnits"), "0:EngineeringUnits", eu)


async def _folder(folders: dict[str, Any], path: str) -> Node:
    if path not in folders:
        above, _, name = path.rpartition("/")
        parent = await _folder(folders, above)
        folders[path] = await parent.add_folder(_id(path), ua.QualifiedName(name, NAMESPACE))
    node: Node = folders[path]
    return node


def _id(text: str) -> ua.NodeId:
    return ua.NodeId(ua.String(text), ua.Int16(NAMESPACE))
