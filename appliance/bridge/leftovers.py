"""Connections that the azure-eventhub client leaves behind.

When the far side is mute while a connection is being made, or cuts one that stands, the client's `close`
skips that connection, and nothing of its public face leads to it: each outage would cost sockets until the
process has none left. So, after closing, the client's transports to the address are looked up among all
objects and cut.
"""

import gc
from asyncio import StreamWriter

_MODULE = "azure.eventhub._pyamqp"
_NAMES = ("AsyncTransport", "SASLTransport")


def cut(address: str) -> int:
    """Cut what the client has left open to `host` or `host:port`; gives how many there were.

    Every uplink to that address in this process loses its connection, and takes it up anew with its next send.
    """
    writers = [writer for candidate in gc.get_objects() if (writer := _open_writer(candidate, address)) is not None]
    for writer in writers:
        writer.transport.abort()
    return len(writers)


def _open_writer(candidate: object, address: str) -> StreamWriter | None:
    kind = type(candidate)
    if kind.__name__ not in _NAMES or not kind.__module__.startswith(_MODULE):
        return None
    host, port = getattr(candidate, "host", None), getattr(candidate, "port", None)
    writer = getattr(candidate, "writer", None)
    # One that is closing counts too: it may wait for ever until a mute peer takes its last bytes.
    return writer if address in (host, f"{host}:{port}") and isinstance(writer, StreamWriter) else None
