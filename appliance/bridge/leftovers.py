"""Connections that the azure-eventhub client leaves behind.

When the far side is mute while a connection is being made, or cuts one that stands, the client's `close`
skips that connection, and nothing of its public face leads to it: each outage would cost sockets until the
process has none left. So, after closing, the client's transports to the address are looked up among all
objects (some 20 ms for half a million) and cut. A client without such transports is left alone.
"""

import gc
import sys
from asyncio import StreamWriter

_MODULE = "azure.eventhub._pyamqp.aio._transport_async"
_CLASS = "AsyncTransport"


def cut(address: str) -> int:
    """Cut what the client has left open to `host` or `host:port`; gives how many there were.

    Every uplink to that address in this process loses its connection, and takes it up anew with its next send.
    """
    base: type | None = getattr(sys.modules.get(_MODULE), _CLASS, None)
    if base is None:
        return 0
    kinds = {base, *base.__subclasses__()}
    transports = [candidate for candidate in gc.get_objects() if type(candidate) in kinds]
    writers = [writer for transport in transports if (writer := _open_writer(transport, address)) is not None]
    for writer in writers:
        writer.transport.abort()
    return len(writers)


def _open_writer(transport: object, address: str) -> StreamWriter | None:
    host, port = getattr(transport, "host", None), getattr(transport, "port", None)
    writer = getattr(transport, "writer", None)
    # One that is closing counts too: it may wait for ever until a mute peer takes its last bytes.
    return writer if address in (host, f"{host}:{port}") and isinstance(writer, StreamWriter) else None
