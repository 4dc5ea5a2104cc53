"""The two services every namespace has: `$cbs` takes tokens, `$management` tells about hubs and partitions."""

from typing import Any

from cloud_sync.emulator.amqp import Array, Timestamp, UInt
from cloud_sync.emulator.faults import Faults
from cloud_sync.emulator.messages import Request
from cloud_sync.emulator.store import Store
from cloud_sync.emulator.tokens import TokenError, Tokens


def take_token(tokens: Tokens, faults: Faults, request: Request) -> bytes:
    """The encoded answer of `$cbs` to a token."""
    if faults.struck("refused_token"):
        return request.answer(401, "ExpiredToken: the token is refused on purpose.")
    try:
        tokens.put(request)
    except TokenError as error:
        return request.answer(401, str(error))
    return request.answer(202, "Accepted")


def tell(store: Store, request: Request) -> bytes:
    """The encoded answer of `$management` to a question."""
    hub, kind = request.text("name"), request.text("type")
    if hub not in store.hubs:
        return request.answer(404, f"The messaging entity '{hub}' could not be found.")
    if kind == "com.microsoft:eventhub":
        return request.answer(200, "OK", _hub(store, hub))
    partition = request.text("partition")
    if kind != "com.microsoft:partition" or not partition.isdecimal() or int(partition) >= store.hubs[hub]:
        return request.answer(400, f"There is no {kind} '{partition}' of '{hub}'.")
    return request.answer(200, "OK", _partition(store, hub, int(partition)))


def metrics(store: Store, hub: str, number: int, now_ms: int) -> dict[str, Any]:
    """What a receiver learns about its partition with each event, when it asked for that."""
    extent = store.extent(hub, number)
    return {
        "last_enqueued_sequence_number": extent.next - 1,
        "last_enqueued_offset": extent.last_offset,
        "last_enqueued_time_utc": Timestamp(extent.enqueued_ms),
        "runtime_info_retrieval_time_utc": Timestamp(now_ms),
    }


def _hub(store: Store, hub: str) -> dict[str, Any]:
    return {
        "name": hub,
        "type": "com.microsoft:eventhub",
        "created_at": Timestamp(store.created_ms(hub)),
        "partition_count": UInt(store.hubs[hub]),
        "partition_ids": Array(tuple(map(str, range(store.hubs[hub]))), str),
    }


def _partition(store: Store, hub: str, number: int) -> dict[str, Any]:
    extent = store.extent(hub, number)
    return {
        "name": hub,
        "type": "com.microsoft:partition",
        "partition": str(number),
        "begin_sequence_number": extent.begin,
        "last_enqueued_sequence_number": extent.next - 1,
        "last_enqueued_offset": extent.last_offset,
        "last_enqueued_time_utc": Timestamp(extent.enqueued_ms),
        "is_partition_empty": extent.begin == extent.next,
    }
