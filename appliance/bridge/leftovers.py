"""Connections that the azure-eventhub client leaves behind.

When the far side is mute while a connection is being made, or cuts one that stands, the client's `close`
skips that connection, and nothing of its public face leads to it: each outage would cost sockets until the
process has none left. So, after closing, the client's transports to the address are looked up among all
objects (some 20 ms for half a million) and cut, those over WebSocket too. A client without such transports is
left alone.
"""

import gc
import sys
from asyncio import BaseTransport, StreamWriter, Transport

import aiohttp

_MODULE = "azure.eventhub._pyamqp.aio._transport_async"
_CLASSES = ("AsyncTransport", "WebSocketTransportAsync")


def cut(address: str) -> int:
    """Cut what the client has left open to `host` or `host:port`; gives how many there were.

    Every uplink to that address in this process loses its connection, and takes it up anew with its next send.
    """
    module = sys.modules.get(_MODULE)
    bases: list[type] = [found for name in _CLASSES if (found := getattr(module, name, None)) is not None]
    kinds = {kind for base in bases for kind in (base, *base.__subclasses__())}
    if not kinds:
        return 0
    candidates = [candidate for candidate in gc.get_objects() if type(candidate) in kinds]
    return sum(_is_cut(candidate) for candidate in candidates if _leads_to(candidate, address))


def _leads_to(candidate: object, address: str) -> bool:
    host, port = str(getattr(candidate, "host", "")), getattr(candidate, "port", None)
    if hasattr(candidate, "session"):  # Over WebSocket the host goes on with the path, and the port is the door's.
        return host.split("/")[0] == address.rsplit(":", 1)[0]
    return address in (host, f"{host}:{port}")


def _is_cut(candidate: object) -> bool:
    """Cut a transport of the client; gives whether there was anything to cut."""
    session = getattr(candidate, "session", None)
    if isinstance(session, aiohttp.ClientSession):
        transport = _under(getattr(candidate, "sock", None))
        is_open = not session.closed
        session.detach()
    else:
        # One that is closing counts too: it may wait for ever until a mute peer takes its last bytes.
        writer = getattr(candidate, "writer", None)
        transport = writer.transport if isinstance(writer, StreamWriter) else None
        is_open = transport is not None
    if isinstance(transport, Transport):
        transport.abort()
    return is_open


def _under(socket: object) -> BaseTransport | None:
    """The transport below a WebSocket, which its public face does not name."""
    connection = getattr(getattr(socket, "_response", None), "connection", None)
    transport = getattr(connection, "transport", None)
    return transport if isinstance(transport, BaseTransport) else None
