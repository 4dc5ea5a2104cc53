"""AMQP over WebSocket, for plants whose firewall lets nothing but port 443 through."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from azure.core.credentials import AccessToken
from certificates import certificate_in

from appliance.bridge.eventhubs import EventHubsUplink
from appliance.bridge.uplink import UplinkError
from appliance.contract.envelope import Lane, envelopes
from appliance.contract.reading import Quality, Reading, Stream
from cloud_sync.emulator.command import Doors
from cloud_sync.emulator.eventhubs import EventHubs

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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for loopback that signs itself, and its key."""
    return certificate_in(tmp_path_factory.mktemp("tls"))


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
    uplink = EventHubsUplink.from_credential(
        f"127.0.0.1:{hub_side.hubs.port}",
        "readings",
        Token,
        "websocket",
        use_tls=False,
        custom_endpoint_address=f"sb://127.0.0.1:{port}",
    )
    async with asyncio.timeout(20):
        for _ in range(2):
            await uplink.send(SEALED, Lane.LIVE)
            await uplink.close()
    assert hub_side.arrived() == [SEALED, SEALED]
    assert front.opened >= 2


def door(hubs: EventHubs, port: int, trusted: Path | None) -> EventHubsUplink:
    """An uplink that reaches the hub by its WebSocket door alone; over TLS when there is a certificate to trust."""
    options: dict[str, Any] = {"use_tls": False} if trusted is None else {"connection_verify": str(trusted)}
    endpoint = f"sb://127.0.0.1:{port}"
    return EventHubsUplink.from_credential(
        f"127.0.0.1:{hubs.port}", "readings", Token, "websocket", custom_endpoint_address=endpoint, **options
    )


async def test_envelopes_leave_over_websocket_and_tls(
    hub_side: Any, certificate: tuple[Path, Path], tmp_path: Path, until: Callable[..., Any]
) -> None:
    """As on Azure's port 443: encrypted, and not to whom the plant does not trust."""
    tls = Doors(cert=certificate[0], key=certificate[1]).tls()
    port = await hub_side.hubs.serve_websocket(tls=tls)
    async with asyncio.timeout(20):
        uplink = door(hub_side.hubs, port, certificate[0])
        await uplink.send(SEALED, Lane.LIVE)
        await uplink.close()
        (tmp_path / "other").mkdir()
        stranger = door(hub_side.hubs, port, certificate_in(tmp_path / "other")[0])
        with pytest.raises(UplinkError, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.send(SEALED, Lane.LIVE)
        await stranger.close()
    assert hub_side.arrived() == [SEALED]
    await until(lambda: not hub_side.hubs._wires)


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")  # The SDK's own words, without TLS.
@pytest.mark.parametrize("is_tls", [False, True])
async def test_what_a_mute_far_side_leaves_open_is_cut(
    hub_side: Any, certificate: tuple[Path, Path], until: Callable[..., Any], is_tls: bool
) -> None:
    """The WebSockets of a client that nobody closes any more end at once, the neighbour's do not, and others follow."""
    tls = Doors(cert=certificate[0], key=certificate[1]).tls() if is_tls else None
    hubs = hub_side.hubs
    port = await hubs.serve_websocket(tls=tls)
    uplink = door(hubs, port, certificate[0] if is_tls else None)
    async with asyncio.timeout(20):
        await hub_side.uplink.send(SEALED, Lane.LIVE)
        neighbours = set(hubs._wires)
        await uplink.send(SEALED, Lane.LIVE)
        assert uplink._client is not None
        assert uplink._client.leftovers.cut() == 2  # The one that asked for partitions, and a producer's.
        await until(lambda: hubs._wires == neighbours)
        assert uplink._client.leftovers.cut() == 0
        await uplink.close()
        await uplink.send(SEALED, Lane.LIVE)
        await uplink.close()
        await until(lambda: hubs._wires == neighbours)
    assert hub_side.arrived() == [SEALED, SEALED, SEALED]
