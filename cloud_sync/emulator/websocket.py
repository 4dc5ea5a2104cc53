"""The WebSocket door: AMQP for plants whose firewall lets only port 443 through."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from cloud_sync.emulator.streams import Stream, WebSocketStream

PATH: Final = "/$servicebus/websocket"
SUBPROTOCOL: Final = "AMQPWSB10"
_CLOSE_S_MAX: Final = 1.0

Serve = Callable[[Stream], Awaitable[None]]


async def open_door(serve: Serve, host: str, port: int, tls: ssl.SSLContext | None) -> web.AppRunner:
    """Take WebSockets on Azure's path and give each to `serve`; `cleanup` of what is returned closes the door."""

    async def accept(request: web.Request) -> web.StreamResponse:
        if SUBPROTOCOL not in request.headers.get("Sec-WebSocket-Protocol", ""):
            raise web.HTTPBadRequest(text=f"This speaks the WebSocket subprotocol {SUBPROTOCOL} only.\n")
        socket = web.WebSocketResponse(protocols=(SUBPROTOCOL,), timeout=_CLOSE_S_MAX)
        await socket.prepare(request)
        if request.transport is None:
            return socket
        stream = WebSocketStream(socket, request.transport)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stream.carry(), name="emulator websocket")
            try:
                await serve(stream)
            finally:
                stream.close()
        return socket

    return await open_site([web.get(PATH, accept), web.get(PATH + "/", accept)], host, port, tls)


async def open_site(
    routes: list[web.RouteDef], host: str, port: int, tls: ssl.SSLContext | None = None
) -> web.AppRunner:
    """Serve the routes until `cleanup`; raises `OSError` when the port is taken."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_S_MAX, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


def port_of(runner: web.AppRunner) -> int:
    """The port a door is at."""
    return int(runner.addresses[0][1])
