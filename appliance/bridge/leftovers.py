"""Connections that the azure-eventhub client leaves behind.

When the far side is mute while a connection is being made, or cuts one that stands, the client's `close`
skips that connection, and nothing of its public face leads to it: each outage would cost sockets until the
process has none left. So every connection that a client opens is noted as it is opened, and after closing,
what is still open of it is cut. A client that opens its connections in another way is left alone.
"""

from asyncio import BaseTransport, StreamWriter, Transport
from typing import Any, Final

import aiohttp

_MAKES: Final = ("create_send_client", "create_receive_client", "create_mgmt_client")


class Leftovers:
    """What one client of the SDK has open: its own connections and nobody else's. To be made right after the client."""

    def __init__(self, sdk: Any) -> None:
        self._opening: list[object] = []
        self._transports: list[object] = []
        for maker in (sdk, *getattr(sdk, "_producers", {}).values()):  # One stands from the start.
            if (makes := getattr(maker, "_amqp_transport", None)) is not None:
                maker._amqp_transport = _Noting(makes, self)

    def cut(self) -> int:
        """Cut what the client has left open; gives how many connections there were."""
        left = [*self._transports, *filter(None, map(_transport_of, self._opening))]
        self._transports.clear()
        return sum(_is_cut(transport) for transport in left)

    def noted(self, link: Any) -> Any:
        """The link, whose connection is noted when it opens: while it stands, the link may forget it."""
        opens = link.open_async

        async def open_async(*args: Any, **options: Any) -> Any:
            self._transports = [each for each in self._transports if _is_open(each)]
            self._opening.append(link)
            try:
                return await opens(*args, **options)
            finally:
                self._opening.remove(link)
                if (transport := _transport_of(link)) is not None and transport not in self._transports:
                    self._transports.append(transport)

        link.open_async = open_async
        return link


class _Noting:
    """The client's own way to make links, with a note of each one."""

    def __init__(self, makes: object, leftovers: Leftovers) -> None:
        self._makes, self._leftovers = makes, leftovers

    def __getattr__(self, name: str) -> Any:
        make = getattr(self._makes, name)
        if name not in _MAKES:
            return make
        return lambda *args, **options: self._leftovers.noted(make(*args, **options))


def _transport_of(link: object) -> object | None:
    return getattr(getattr(link, "_connection", None), "_transport", None)


def _is_open(transport: object) -> bool:
    session = getattr(transport, "session", None)
    if isinstance(session, aiohttp.ClientSession):
        return not session.closed
    # One that is closing counts too: it may wait for ever until a mute peer takes its last bytes.
    return isinstance(getattr(transport, "writer", None), StreamWriter)


def _is_cut(transport: object) -> bool:
    """Cut a transport of the client; gives whether there was anything to cut."""
    is_open, session = _is_open(transport), getattr(transport, "session", None)
    if isinstance(session, aiohttp.ClientSession):
        below = _under(getattr(transport, "sock", None))
        session.detach()
    else:
        below = getattr(getattr(transport, "writer", None), "transport", None)
    if isinstance(below, Transport):
        below.abort()
    return is_open


def _under(socket: object) -> BaseTransport | None:
    """The transport below a WebSocket, which its public face does not name."""
    connection = getattr(getattr(socket, "_response", None), "connection", None)
    transport = getattr(connection, "transport", None)
    return transport if isinstance(transport, BaseTransport) else None
