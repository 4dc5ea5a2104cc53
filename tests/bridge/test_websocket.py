"""AMQP over WebSocket, for plants whose firewall lets nothing but port 443 through."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from azure.core.credentials import AccessToken

from appliance.bridge.eventhubs import EventHubsUplink
from appliance.contract.envelope import Lane, envelopes
from appliance.contract.reading import Quality, Reading, Stream

READING = Reading("acme/northfield/a/l/c/pmp-1/flow", 1.5, Quality.GOOD, 1, 1, 1, "test")
(SEALED,) = envelopes("northfield", 1, Stream.READINGS, 1, [READING] * 100)


class Token:
    """A credential that needs nobody."""

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken("token", int(time.time()) + 3600)

    async def close(self) -> None:
        pass


class Gateway:
    """What stands in front of Event Hubs on port 443: WebSocket frames in, AMQP bytes out."""

    def __init__(self, amqp_port: int) -> None:
        self.amqp_port, self.opened = amqp_port, 0

    async def relay(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["AMQPWSB10"])
        await socket.prepare(request)
        self.opened += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", self.amqp_port)

        async def back() -> None:
            while data := await reader.read(65_536):
                await socket.send_bytes(data)
            await socket.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(back())
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    writer.write(message.data)
            writer.close()
        return socket


@pytest.fixture
async def gateway(hub_side: Any) -> AsyncIterator[tuple[Gateway, int]]:
    front = Gateway(hub_side.hubs.port)
    app = web.Application()
    app.router.add_get("/$servicebus/websocket", front.relay)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield front, runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # The SDK's own words, without TLS.
async def test_envelopes_leave_over_websocket(hub_side: Any, gateway: tuple[Gateway, int]) -> None:
    """Not one connection goes past the gateway, and after a close the next send comes through as well."""
    front, port = gateway
    door = EventHubsUplink.from_credential(
        f"127.0.0.1:{hub_side.hubs.port}",
        "readings",
        Token,
        "websocket",
        use_tls=False,
        custom_endpoint_address=f"sb://127.0.0.1:{port}",
    )
    async with asyncio.timeout(20):
        for _ in range(2):
            await door.send(SEALED, Lane.LIVE)
            await door.close()
    assert hub_side.arrived() == [SEALED, SEALED]
    assert front.opened >= 2
