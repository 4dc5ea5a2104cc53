"""The emulator's doors and rules, as the unmodified SDK finds them: TLS, WebSocket, tokens, throughput, faults."""

import asyncio
import base64
import hmac
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import aiohttp
import pytest
from azure.core.credentials import AccessToken
from azure.eventhub import EventData, TransportType
from azure.eventhub.aio import EventHubConsumerClient, EventHubProducerClient, EventHubSharedKeyCredential
from azure.eventhub.exceptions import AuthenticationError, EventHubError
from certificates import certificate_in
from typer.main import get_command

from appliance.bridge.leftovers import Leftovers
from cloud_sync.cli import app
from cloud_sync.emulator.command import Doors, emulate
from cloud_sync.emulator.eventhubs import EventHubs
from cloud_sync.emulator.faults import Faults, FaultsError
from cloud_sync.emulator.throughput import Bucket, Throughput
from cloud_sync.emulator.tokens import Trust

KEY = "c2VjcmV0"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for loopback that signs itself, and its key."""
    return certificate_in(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def producer(hubs: EventHubs, **options: Any) -> AsyncIterator[EventHubProducerClient]:
    string = hubs.connection_string("readings")
    client = EventHubProducerClient.from_connection_string(string, retry_total=0, **options)
    left = Leftovers(client)
    try:
        async with asyncio.timeout(20), client:
            yield client
    finally:
        left.cut()


async def there_and_back(hubs: EventHubs, **options: Any) -> list[bytes]:
    """Bodies sent as one batch with a large event, and received again, both by the SDK with these options."""
    got: list[bytes] = []
    enough = asyncio.Event()

    async def on_event(_: Any, event: Any) -> None:
        got.append(b"".join(event.body))
        if len(got) == 3:
            enough.set()

    async with producer(hubs, **options) as client:
        await client.send_batch([EventData(b"a"), EventData(b"b" * 500_000), EventData(b"c")], partition_id="0")
        receiver = EventHubConsumerClient.from_connection_string(
            hubs.connection_string("readings"), "$Default", **options
        )
        async with receiver, asyncio.TaskGroup() as tasks:
            receiving = tasks.create_task(receiver.receive(on_event, partition_id="0", starting_position="-1"))
            await enough.wait()
            receiving.cancel()
    return got


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated")  # the SDK's call of aiohttp
@pytest.mark.parametrize("door", ["tls", "websocket", "websocket over tls"])
async def test_events_come_back_through_every_door(tmp_path: Path, certificate: tuple[Path, Path], door: str) -> None:
    """The SDK is told another address and whom to trust, as in a plant that lets only 443 out; nothing else."""
    tls = Doors(cert=certificate[0], key=certificate[1]).tls() if "tls" in door else None
    async with EventHubs.open(tmp_path / "hubs.db") as hubs:
        port = await hubs.serve(tls=tls)
        options: dict[str, Any] = {"transport_type": TransportType.Amqp}
        if "websocket" in door:
            port = await hubs.serve_websocket(tls=tls)
            options["transport_type"] = TransportType.AmqpOverWebsocket
        options["custom_endpoint_address"] = f"sb://127.0.0.1:{port}"
        if tls is not None:
            options["connection_verify"] = str(certificate[0])
        assert await there_and_back(hubs, **options) == [b"a", b"b" * 500_000, b"c"]


async def test_a_client_that_does_not_know_the_certificate_stays_away(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    tls = Doors(cert=certificate[0], key=certificate[1]).tls()
    async with EventHubs.open(tmp_path / "hubs.db") as hubs:
        port = await hubs.serve(tls=tls)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())


async def test_files_that_are_no_certificate_are_named(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    with pytest.raises(ValueError, match="--cert and --key go together"):
        await emulate(tmp_path, 0, doors=Doors(cert=tmp_path / "cert.pem"))
    with pytest.raises(ValueError, match="are no certificate and its key"):
        await emulate(tmp_path, 0, doors=Doors(cert=tmp_path / "cert.pem", key=tmp_path / "cert.pem"))


async def test_only_the_right_key_opens_a_guarded_namespace(tmp_path: Path) -> None:
    """A token signed with another key is refused as unauthorized; one signed with ours sends."""
    async with EventHubs.open(tmp_path / "hubs.db", trust=Trust(access_key=KEY)) as hubs:
        await hubs.serve()
        async with producer(hubs) as client:
            await client.send_event(EventData(b"x"), partition_id="0")
        wrong = hubs.connection_string("readings").replace(KEY, "d3Jvbmc=")
        async with asyncio.timeout(20), EventHubProducerClient.from_connection_string(wrong, retry_total=0) as client:
            with pytest.raises(AuthenticationError):
                await client.send_event(EventData(b"x"), partition_id="0")
        assert hubs.extent("readings", 0).next == 1


class ShortLived(EventHubSharedKeyCredential):
    """A key whose tokens last as long as it is told."""

    lasts_s = 2.0

    async def get_token(self, *scopes: Any, **options: Any) -> AccessToken:
        expires_s = int(time.time() + self.lasts_s)
        signature = hmac.new(self.key.encode(), f"{quote_plus(scopes[0])}\n{expires_s}".encode(), "sha256").digest()
        parts = {"sr": scopes[0], "sig": base64.b64encode(signature), "se": expires_s, "skn": self.policy}
        return AccessToken(f"SharedAccessSignature {urlencode(parts)}", expires_s)


async def test_a_link_ends_with_its_token_and_a_stale_token_opens_nothing(tmp_path: Path) -> None:
    """The link of a token of two seconds is detached; the next send shows a new token. A clock 5 days late fails."""
    async with EventHubs.open(tmp_path / "hubs.db", trust=Trust(access_key=KEY)) as hubs:
        port = await hubs.serve()
        credential = ShortLived("emulator", KEY)
        client = EventHubProducerClient(f"127.0.0.1:{port}", "readings", credential, use_tls=False, retry_total=1)
        async with asyncio.timeout(30), client:
            await client.send_event(EventData(b"0"), partition_id="0")
            await asyncio.sleep(3.0)
            await client.send_event(EventData(b"1"), partition_id="0")
        assert hubs.extent("readings", 0).next == 2
        credential.lasts_s = -5 * 86_400
        client = EventHubProducerClient(f"127.0.0.1:{port}", "readings", credential, use_tls=False, retry_total=0)
        async with asyncio.timeout(20), client:
            with pytest.raises(EventHubError):
                await client.send_event(EventData(b"2"), partition_id="0")
        assert hubs.extent("readings", 0).next == 2


async def test_more_than_a_throughput_unit_is_refused_as_busy(tmp_path: Path) -> None:
    """3 MB at once into one unit: the first are taken on credit, then the server is busy, and stores nothing."""
    async with EventHubs.open(tmp_path / "hubs.db", throughput_units=1) as hubs:
        await hubs.serve()
        async with producer(hubs) as client:
            with pytest.raises(EventHubError, match=r"server-busy|throttled"):
                for _ in range(30):
                    await client.send_event(EventData(bytes(900_000)), partition_id="0")
        assert 1 <= hubs.extent("readings", 0).next <= 4


class Clock:
    """A clock that is set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_throughput_over_time_is_what_the_units_allow() -> None:
    """One unit, asked for as much as it gives: 1,000 events or 1 MB in a second, whichever is less, and a burst."""
    for events, size_bytes, per_s in [(1, 200, 1_000), (1, 10_000, 100), (100, 20_000, 10)]:
        clock = Clock()
        throughput, admitted = Throughput(1, clock), 0
        for step in range(20_000):
            clock.now_s = step / 1_000
            admitted += throughput.admits(events, size_bytes)
        assert 20 * per_s <= admitted <= 21 * per_s + 1


def test_a_bucket_on_credit_says_when_it_holds_something_again() -> None:
    clock = Clock()
    bucket = Bucket(100, clock)
    assert bucket.take(50) == 0
    assert bucket.take(250) == 2
    assert not bucket.has_any()
    clock.now_s = 2.5
    assert bucket.has_any()


def test_faults_are_set_whole_or_not_at_all() -> None:
    faults = Faults(released=3)
    for bad in ([], {"rain": 1}, {"released": -1}, {"released": True}, {"black_hole": 1}, {"latency_s": "1"}):
        with pytest.raises(FaultsError):
            faults.replace({"detach": 1, **bad} if isinstance(bad, dict) else bad)
    assert faults == Faults(released=3)
    faults.replace({"latency_s": 1, "black_hole": True})
    assert faults == Faults(latency_s=1, black_hole=True)


async def test_faults_are_switched_over_http(tmp_path: Path) -> None:
    """A test in any language reads the switches, sets them, is told what is wrong, and cuts connections."""
    async with EventHubs.open(tmp_path / "hubs.db") as hubs, aiohttp.ClientSession() as http:
        await hubs.serve()
        board = f"http://127.0.0.1:{await hubs.serve_switchboard()}"
        async with http.put(f"{board}/faults", json={"server_busy": 1}) as answer:
            assert (await answer.json())["server_busy"] == 1
        async with producer(hubs) as client:
            with pytest.raises(EventHubError):
                await client.send_event(EventData(b"x"), partition_id="0")
            async with http.get(f"{board}/faults") as answer:
                assert (await answer.json())["server_busy"] == 0
            async with http.put(f"{board}/cut") as answer:
                assert (await answer.json())["cut"] >= 1
        async with http.put(f"{board}/faults", json={"server_bussy": 2}) as answer:
            assert (answer.status, "no fault 'server_bussy'" in await answer.text()) == (400, True)
        async with http.get(f"{board}/faults", headers={"Host": "rebound.example:80"}) as answer:
            assert answer.status == 403


@pytest.mark.parametrize("fault", ["drop_before_store", "expired_token", "refused_token"])
async def test_each_fault_costs_one_send_and_stores_nothing(tmp_path: Path, fault: str) -> None:
    async with EventHubs.open(tmp_path / "hubs.db", faults=Faults(**{fault: 1})) as hubs:
        await hubs.serve()
        async with producer(hubs) as client:
            with pytest.raises(EventHubError):
                async with asyncio.timeout(10):
                    await client.send_event(EventData(b"lost"), partition_id="0")
            assert hubs.extent("readings", 0).next == 0
        async with producer(hubs) as client:
            await client.send_event(EventData(b"kept"), partition_id="0")
        assert hubs.extent("readings", 0).next == 1


async def test_a_narrow_line_takes_its_time(tmp_path: Path) -> None:
    """200 kB over 200 kB a second."""
    async with EventHubs.open(tmp_path / "hubs.db", faults=Faults(bandwidth_bytes_s=200_000)) as hubs:
        await hubs.serve()
        async with producer(hubs) as client:
            started_s = time.monotonic()
            await client.send_event(EventData(bytes(200_000)), partition_id="0")
            assert time.monotonic() - started_s > 0.9


def test_every_option_and_every_switch_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text(encoding="utf-8")
    options = [option for parameter in get_command(app).commands["emulate"].params for option in parameter.opts]
    assert [option for option in options if f"`{option}`" not in text and option != "--help"] == []
    assert [name for name in Faults().document() if f"| `{name}` |" not in text] == []
