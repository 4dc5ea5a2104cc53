"""The appliance: its parts, and how they stand together.

OPC UA ─┐                               ┌─ cursor "bridge"     → Event Hubs → cloud_sync → bronze → silver → gold
MQTT ───┼──► buffer.append ─────────────┼─ cursor "predictor"  → features → ONNX → Prediction ─┐
        │   (durable, then answered)    ├─ cursor "alarms"     → limits, threshold → Alarm ────┤
events ◄┼───────────────────────────────┼──────────────────────────────────────────────────────┘
                                        ├─ cursor "republish"  → UNS topics on the broker
                                        ├─ the page's view     → trends, server-sent events
                                        └─ the history         → minutes and hours on disk, long trends
"""

import logging
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any

from appliance.alarms.alarms import Alarms
from appliance.alarms.watchman import Watchman
from appliance.bridge.bridge import Bridge
from appliance.bridge.eventhubs import EventHubsUplink
from appliance.bridge.folder import FolderUplink
from appliance.bridge.identity import Identity, chosen, credential
from appliance.bridge.pacing import Pace
from appliance.bridge.uplink import Uplink
from appliance.broker.embedded import EmbeddedBroker
from appliance.broker.republish import Republisher
from appliance.buffer.buffer import Buffer
from appliance.buffer.history import History
from appliance.buffer.history_store import HistoryStore
from appliance.buffer.ledger import Ledger
from appliance.buffer.ledger_store import LedgerStore
from appliance.buffer.retention import Bounds, Branch, Policy
from appliance.config import BufferConfig, Config, UplinkConfig, address
from appliance.connectors.opcua import OpcUaConnector
from appliance.contract.gap import Gap, source_gap_topic
from appliance.contract.reading import Stream
from appliance.folder import FolderError
from appliance.health import Health
from appliance.inference.model import Model
from appliance.inference.predictor import Predictor
from appliance.supervisor import now_us, stop_requested, supervise
from appliance.ui.app import create_app
from appliance.ui.server import WebServer
from appliance.ui.view import PlantView

log = logging.getLogger(__name__)


async def main(config: Config) -> None:
    """Run the appliance until it is asked to stop.

    Every reading enters through `buffer.append`; every part that needs readings
    follows the buffer with a cursor of its own. The parts never call each other.
    """
    asked_to_stop = stop_requested()
    health = Health()
    uplink = uplink_for(config.uplink)
    data = config.plant.data
    async with (
        Buffer.open(data / "buffer.db", config.plant.name, bounds_of(config.buffer), config.namespace.root) as buffer,
        HistoryStore.open(data / "history.db") as history_store,
        LedgerStore.open(data / "ledger.db") as ledger_store,
    ):
        model = Model.load(config.inference.model)

        bridge = Bridge(buffer, uplink, FolderUplink(data / "refused"), pace_of(config.uplink)) if uplink else None
        ledger = Ledger(buffer, ledger_store, config.namespace.root, now_us, bridge)
        history = History(buffer, history_store, config.history.size_max)
        view = PlantView(buffer, config.equipment, now_us)
        app = create_app(view, config.plant.name, health.status, health.metrics, health.ready, past=history)
        server = WebServer(config.http.bind, app)
        predictor = Predictor(buffer, await buffer.cursor("predictor"), model, config.equipment)
        watchman = await Watchman.following(buffer, config.namespace.root, lambda: buffer.makes_wait)
        alarms = await Alarms.following(buffer, config.equipment, config.inference.threshold or model.threshold)
        broker = EmbeddedBroker(config.broker, buffer, config.namespace.root, config.namespace.enforce)
        republisher = await Republisher.following(buffer, broker)

        # The last one started is the first one stopped, so readings cease to come
        # in before the parts that carry them go away.
        async with supervise() as parts:
            health.parts = parts.parts
            health.ask("buffer", lambda: buffer_status(buffer, config))
            parts.start("history", history.run)
            health.ask("history", history.status)
            parts.start("view", view.run)
            health.ask("view", view.status)
            parts.start("web", server.run)
            parts.start("ledger", ledger.run)
            health.ask("ledger", ledger.status)
            if bridge:
                parts.start("bridge", bridge.run)
                health.ask("bridge", bridge.status)
            parts.start("predictor", predictor.run)
            health.ask("inference", predictor.status)
            parts.start("alarms", alarms.run)
            health.ask("alarms", alarms.status)
            parts.start("watchman", watchman.run)
            health.ask("watchman", watchman.status)
            parts.start("broker", broker.run)
            health.ask("broker", broker.statistics)
            parts.start("republisher", republisher.run)
            for source in config.source:
                tell = partial(tell_losses, buffer, source_gap_topic(config.namespace.root, buffer.plant, source.name))
                connector = OpcUaConnector(source, buffer.append, now_us, buffer.latest, tell=tell)
                parts.start(f"connector {source.name}", connector.run)
                health.ask(f"connector {source.name}", connector.status)
            log.info("appliance: plant %s runs, page on http://%s", config.plant.name, config.http.bind)
            await asked_to_stop.wait()
        log.info("appliance: plant %s has stopped, %d readings in the log", config.plant.name, buffer.last())


async def tell_losses(buffer: Buffer, topic: str, gaps: Sequence[Gap]) -> None:
    """Write down what a source lost before it came here."""
    await buffer.append([gap.entry(topic, now_us()) for gap in gaps], Stream.EVENTS)


def bounds_of(config: BufferConfig) -> Bounds:
    """What the log may take, as the Buffer knows it."""
    branches = tuple(Branch(branch.topic, Policy(branch.policy)) for branch in config.branch)
    return Bounds(int(config.size_max), float(config.age_max), int(config.free_min), Policy(config.policy), branches)


def uplink_for(config: UplinkConfig) -> Uplink | None:
    """Where the Bridge sends to; nothing when the plant has no uplink. Raises `IdentityError`."""
    if config.kind == "folder":
        assert config.path is not None, "the configuration is checked"
        return FolderUplink(config.path)
    if config.kind == "none":
        return None
    identity = chosen(config)
    if identity is Identity.SECRET:
        log.warning("appliance: [uplink] connection_string is a secret in a file; use an identity outside development")
        return EventHubsUplink.from_connection_string(config.connection_string, config.hub, transport=config.transport)
    log.info("appliance: the uplink to %s signs in with identity %s", config.namespace, identity)
    return EventHubsUplink.from_credential(
        config.namespace, config.hub, partial(credential, config, identity), config.transport
    )


def pace_of(config: UplinkConfig) -> Pace:
    """How the Bridge sends, as configured."""
    return Pace(
        backlog_share=config.backlog_share, in_flight=config.in_flight, throughput_units=config.throughput_units
    )


def check_ports(config: Config) -> None:
    """Raises `FolderError` for the first address that cannot be bound, before anything is started."""
    addresses = {"http.bind": config.http.bind} | {
        f"broker.listener[{number}].bind": listener.bind for number, listener in enumerate(config.broker.listener)
    }
    for key, bind in addresses.items():
        try:
            with socket.create_server(address(bind)):
                pass
        except OSError as error:
            raise FolderError(f"{bind} cannot be bound ({error.strerror}); change {key}, or stop who has it") from error


def buffer_status(buffer: Buffer, config: Config) -> dict[str, Any]:
    """What the log holds, and how much room it has."""
    path = config.plant.data / "buffer.db"
    keeper = buffer.keeper
    size_bytes = sum(file.stat().st_size for file in path.parent.glob("buffer.db*"))
    return {
        "plant": buffer.plant,
        "epoch": buffer.epoch,
        "readings": buffer.last(Stream.READINGS),
        "events": buffer.last(Stream.EVENTS),
        "size_bytes": size_bytes,
        "size_max_bytes": int(config.buffer.size_max),
        "is_over_size_max": size_bytes > config.buffer.size_max,
        "commits": buffer.commits,
        "sealed_readings": keeper.sealed_to[Stream.READINGS],
        "sealed_events": keeper.sealed_to[Stream.EVENTS],
        "dropped_entries": keeper.dropped_entries,
        "is_full": keeper.is_full,
        "is_tight": buffer.admission.is_tight,
        "thinned_readings": buffer.admission.thinned_entries,
        "forsaken_cursors": keeper.forsaken[Stream.READINGS],
        "days_to_full": None if keeper.days_to_full is None else round(keeper.days_to_full, 2),
    }
