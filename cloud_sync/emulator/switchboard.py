"""The switchboard: an HTTP server on loopback at which tests of any language switch faults on and off.

`GET /faults` shows the switches, `PUT /faults` sets them all (those not named are off), `PUT /cut` cuts every
connection that stands. Browsers cannot be lured into it: a PUT from a foreign page needs a permission that is
never given, and names other than loopback's are refused.
"""

import json
from collections.abc import Callable
from typing import Final

from aiohttp import web

from cloud_sync.emulator.faults import Faults, FaultsError
from cloud_sync.emulator.websocket import open_site

HOSTS: Final = ("127.0.0.1", "localhost")


async def open_switchboard(faults: Faults, cut: Callable[[], int], host: str, port: int) -> web.AppRunner:
    """Serve until `cleanup` of what is returned; raises `OSError` when the port is taken."""

    async def show(request: web.Request) -> web.Response:
        _own_host(request)
        return web.json_response(faults.document())

    async def switch(request: web.Request) -> web.Response:
        _own_host(request)
        try:
            faults.replace(json.loads(await request.text()))
        except ValueError as error:
            text = str(error) if isinstance(error, FaultsError) else f"this is not JSON: {error}"
            return web.json_response({"error": text}, status=400)
        return web.json_response(faults.document())

    async def cut_all(request: web.Request) -> web.Response:
        _own_host(request)
        return web.json_response({"cut": cut()})

    routes = [web.get("/faults", show), web.put("/faults", switch), web.put("/cut", cut_all)]
    return await open_site(routes, host, port)


def _own_host(request: web.Request) -> None:
    if request.host.rpartition(":")[0] not in HOSTS:
        raise web.HTTPForbidden(text="The switchboard answers to 127.0.0.1 and localhost only.\n")
