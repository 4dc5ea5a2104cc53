"""The parts of the appliance as the configuration wants them, before they stand together in `main.py`."""

import logging
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any

from appliance import __version__
from appliance.bridge.bridge import Bridge
from appliance.bridge.eventhubs import EventHubsUplink
from appliance.bridge.folder import FolderUplink
from appliance.bridge.identity import Identity, chosen, credential
from appliance.bridge.pacing import Pace
from appliance.bridge.receipts import FolderReceipts, ReceiptReader, Take
from appliance.bridge.receipts_eventhubs import EventHubsReceipts
from appliance.bridge.uplink import Uplink
from appliance.buffer.buffer import Buffer
from appliance.buffer.retention import Bounds, Branch, Policy
from appliance.buffer.underway import FOLDER, UnderWay
from appliance.config import BufferConfig, Config, UplinkConfig, address
from appliance.contract.gap import Gap
from appliance.contract.reading import Stream
from appliance.folder import FolderError
from appliance.ledger.ledger import Ledger
from appliance.rehearsal.rehearsal import Rehearsal
from appliance.rehearsal.seams import Room
from appliance.supervisor import now_us

log = logging.getLogger(__name__)


def bridge_of(config: Config, buffer: Buffer, uplink: Uplink | None) -> Bridge | None:
    """The way to the cloud; nothing when the plant has none."""
    if uplink is None:
        return None
    refused = FolderUplink(config.plant.data / "refused")
    under_way = UnderWay(config.plant.data / FOLDER)
    return Bridge(buffer, uplink, refused, pace_of(config.uplink), root=config.namespace.root, under_way=under_way)


def receipts_of(config: Config, take: Take) -> ReceiptReader | None:
    """Where the cloud's word comes from; nothing when the plant has no uplink, or wants none."""
    uplink = config.uplink
    if uplink.kind == "none" or not uplink.receipts:
        return None
    if uplink.kind == "folder":
        assert uplink.path is not None, "the configuration is checked"
        return FolderReceipts(uplink.path, config.plant.name, take)
    identity = chosen(uplink)
    if identity is Identity.SECRET:
        text, transport = uplink.connection_string, uplink.transport
        return EventHubsReceipts.from_connection_string(text, uplink.receipts, take, transport)
    its_own = partial(credential, uplink, identity)
    return EventHubsReceipts.from_credential(uplink.namespace, uplink.receipts, its_own, take, uplink.transport)


def rehearsal_of(config: Config, buffer: Buffer, bridge: Bridge | None, ledger: Ledger) -> Rehearsal:
    """The outage on purpose, of this log and this link."""

    def room() -> Room:
        return Room(int(config.buffer.size_max), buffer.keeper.days_to_full, buffer.keeper.is_full)

    units = config.uplink.throughput_units
    return Rehearsal(buffer, room, bridge, ledger, config.plant.data, __version__, throughput_units=units)


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
        "forsaken_cursors": keeper.followers.forsaken[Stream.READINGS],
        "days_to_full": None if keeper.days_to_full is None else round(keeper.days_to_full, 2),
    }
