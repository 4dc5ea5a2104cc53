"""The appliance: its parts, and how they stand together.

OPC UA ─┐                               ┌─ cursor "bridge"     → Event Hubs → cloud_sync → bronze → silver → gold
MQTT ───┼──► buffer.append ─────────────┼─ cursor "predictor"  → features → ONNX → Prediction ─┐
        │   (durable, then answered)    ├─ cursor "alarms"     → limits, threshold → Alarm ────┤
events ◄┼───────────────────────────────┼──────────────────────────────────────────────────────┘
                                        ├─ cursor "republish"  → UNS topics on the broker
                                        ├─ the page's view     → trends, server-sent events
                                        ├─ the history         → minutes and hours on disk, long trends
                                        └─ the ledger          → what became of each reading ◄─ receipts of the lake
"""

import logging
from functools import partial

from appliance import assembly
from appliance.alarms.alarms import Alarms
from appliance.alarms.watchman import Watchman
from appliance.broker.embedded import EmbeddedBroker
from appliance.broker.republish import Republisher
from appliance.buffer.buffer import Buffer
from appliance.config import Config
from appliance.connectors.opcua import OpcUaConnector
from appliance.contract.gap import source_gap_topic
from appliance.health import Health
from appliance.history.history import History
from appliance.history.store import HistoryStore
from appliance.inference.model import Model
from appliance.inference.predictor import Predictor
from appliance.ledger.ledger import Ledger
from appliance.ledger.store import LedgerStore
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
    uplink = assembly.uplink_for(config.uplink)
    data, plant, root = config.plant.data, config.plant.name, config.namespace.root
    async with (
        Buffer.open(data / "buffer.db", plant, assembly.bounds_of(config.buffer), root) as buffer,
        HistoryStore.open(data / "history.db") as history_store,
        LedgerStore.open(data / "ledger.db") as ledger_store,
    ):
        model = Model.load(config.inference.model)

        bridge = assembly.bridge_of(config, buffer, uplink)
        ledger = Ledger(buffer, ledger_store, root, now_us, bridge)
        receipts = assembly.receipts_of(config, ledger.received)
        rehearsal = assembly.rehearsal_of(config, buffer, bridge, ledger)
        history = History(buffer, history_store, config.history.size_max)
        view = PlantView(buffer, config.equipment, now_us)
        app = create_app(
            view, plant, health.status, health.metrics, health.ready, past=history, ledger=ledger, rehearsal=rehearsal
        )
        server = WebServer(config.http.bind, app)
        predictor = Predictor(buffer, await buffer.cursor("predictor"), model, config.equipment)
        watchman = await Watchman.following(buffer, root, lambda: buffer.makes_wait)
        alarms = await Alarms.following(buffer, config.equipment, config.inference.threshold or model.threshold)
        broker = EmbeddedBroker(config.broker, buffer, root, config.namespace.enforce)
        republisher = await Republisher.following(buffer, broker)

        # The last one started is the first one stopped, so readings cease to come
        # in before the parts that carry them go away.
        async with supervise() as parts:
            health.parts = parts.parts
            health.ask("buffer", lambda: assembly.buffer_status(buffer, config))
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
                parts.start("rehearsal", rehearsal.run)
                health.ask("rehearsal", rehearsal.status)
            if receipts:
                parts.start("receipts", receipts.run)
                health.ask("receipts", receipts.status)
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
                tell = partial(assembly.tell_losses, buffer, source_gap_topic(root, buffer.plant, source.name))
                connector = OpcUaConnector(source, buffer.append, now_us, buffer.latest, tell=tell)
                parts.start(f"connector {source.name}", connector.run)
                health.ask(f"connector {source.name}", connector.status)
            log.info("appliance: plant %s runs, page on http://%s", plant, config.http.bind)
            await asked_to_stop.wait()
        log.info("appliance: plant %s has stopped, %d readings in the log", plant, buffer.last())
