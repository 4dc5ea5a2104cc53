"""Identity without secrets: which one is taken, what `check` says, and Arc's own protocol on loopback."""

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from appliance.bridge import identity
from appliance.bridge.eventhubs import EventHubsUplink
from appliance.bridge.identity import Identity, IdentityError, check, chosen, credential
from appliance.bridge.uplink import UplinkError
from appliance.config import ConfigError, UplinkConfig, parse
from appliance.contract.envelope import Lane, Sealed, envelopes
from appliance.contract.reading import Quality, Reading, Stream

WORKLOAD = {"AZURE_FEDERATED_TOKEN_FILE": "/nowhere", "AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c"}
ARC = {"IDENTITY_ENDPOINT": "http://localhost:40342/token", "IMDS_ENDPOINT": "http://localhost:40342"}
READING = Reading("acme/northfield/a/l/c/pmp-1/flow", 1.5, Quality.GOOD, 1, 1, 1, "test")
(SEALED,) = envelopes("northfield", 1, Stream.READINGS, 1, [READING] * 100)


def uplink(**keys: Any) -> UplinkConfig:
    return UplinkConfig(kind="eventhubs", namespace="plant.servicebus.windows.net", **keys)


def test_the_first_identity_that_is_there_is_taken(tmp_path: Path) -> None:
    """Workload, Arc, certificate, secret; one that is named is taken whatever else is there."""
    certificate = {"certificate": tmp_path / "c.pem", "tenant_id": "t", "client_id": "c"}
    secret = {"connection_string": "Endpoint=sb://x/", "allow_secrets": True}
    everything = uplink(**certificate, **secret)
    assert chosen(everything, WORKLOAD | ARC) is Identity.WORKLOAD
    assert chosen(everything, ARC) is Identity.ARC
    assert chosen(everything, {}) is Identity.CERTIFICATE
    assert chosen(uplink(**secret), {}) is Identity.SECRET
    assert chosen(uplink(identity="arc"), WORKLOAD) is Identity.ARC
    with pytest.raises(IdentityError, match="none found; connect this server to Azure Arc"):
        chosen(uplink(), {})


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("connection_string = 'SharedAccessKey=hush'", "allow_secrets = true"),
        ("", "needs namespace, such as"),
        ("namespace = 'n'\nidentity = 'secret'", "needs connection_string"),
        ("namespace = 'n'\nidentity = 'certificate'", "a certificate needs certificate"),
        ("connection_string = 'x'\nallow_secrets = true\nidentity = 'arc'", "needs namespace"),
    ],
)
def test_a_configuration_without_what_its_identity_needs_is_refused(keys: str, fault: str) -> None:
    with pytest.raises(ConfigError) as failure:
        parse(f"[plant]\nname = 'p'\ndata = '/tmp'\n[uplink]\nkind = 'eventhubs'\n{keys}\n")
    assert fault in str(failure.value)
    assert "hush" not in str(failure.value)


def test_check_names_what_arc_lacks_and_how_to_mend_it(tmp_path: Path) -> None:
    """The two variables, a third that misleads, and the folder of keys: a line each, with the fix."""
    with pytest.raises(IdentityError) as failure:
        check(uplink(identity="arc"), {"IDENTITY_HEADER": "h"}, tmp_path / "tokens")
    lines = str(failure.value).splitlines()
    assert [any(word in line for line in lines) for word in ("IDENTITY_ENDPOINT", "IMDS_ENDPOINT", "azcmagent")]
    assert len(lines) == 4
    assert "Environment=IMDS_ENDPOINT=http://localhost:40342" in lines[1]
    (tmp_path / "tokens").mkdir()
    assert check(uplink(identity="arc"), ARC, tmp_path / "tokens") is Identity.ARC


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_check_says_how_to_let_the_service_read_arcs_keys(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.mkdir(mode=0)
    with pytest.raises(IdentityError, match="usermod -aG himds"):
        check(uplink(identity="arc"), ARC, tokens)


def test_check_looks_at_the_files_of_the_other_identities(tmp_path: Path) -> None:
    """A token that is not mounted, a certificate that is not there, one without its key."""
    with pytest.raises(IdentityError, match="mount the service account token"):
        check(uplink(), WORKLOAD)
    config = uplink(certificate=tmp_path / "c.pem", tenant_id="t", client_id="c")
    with pytest.raises(IdentityError, match=r"c\.pem cannot be read"):
        check(config, {})
    (tmp_path / "c.pem").write_text("-----BEGIN CERTIFICATE-----")
    with pytest.raises(IdentityError, match="private key"):
        check(config, {})
    (tmp_path / "c.pem").write_text("-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----")
    assert check(config, {}) is Identity.CERTIFICATE


async def test_a_certificate_that_is_none_is_an_uplink_error(tmp_path: Path) -> None:
    """The plant goes on: the cloud's door stays shut, with a reason."""
    config = uplink(certificate=tmp_path / "c.pem", tenant_id="t", client_id="c")
    (tmp_path / "c.pem").write_text("no certificate")
    door = EventHubsUplink.from_credential("n", "h", partial(credential, config, Identity.CERTIFICATE))
    with pytest.raises(UplinkError) as failure:
        await door.send(SEALED, Lane.LIVE)
    assert failure.value.retryable
    await door.close()


class Arc:
    """Azure Arc's agent on loopback: it names a file of the folder of keys, and wants to see what is in it."""

    def __init__(self, tokens: Path) -> None:
        self.key, self.asked = tokens / "agent.key", list[str]()
        self.key.write_text("what only a reader of the file knows")

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.query["resource"])
        if request.headers.get("Authorization") != f"Basic {self.key.read_text()}":
            return web.Response(status=401, headers={"WWW-Authenticate": f"Basic realm={self.key}"})
        expires = int(time.time()) + 3600
        parts = [{"alg": "none"}, {"aud": self.asked[-1], "oid": "machine", "exp": expires}]
        token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        answer = {"access_token": f"{token}.sig", "expires_in": "3600", "expires_on": str(expires), "client_id": "c"}
        return web.json_response({**answer, "resource": self.asked[-1], "token_type": "Bearer", "not_before": "0"})


@pytest.fixture
async def arc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Arc]:
    """The agent, and the folder of keys where this test may write."""
    agent = Arc(tmp_path)
    monkeypatch.setattr("azure.identity._credentials.azure_arc._get_key_file_path", lambda: str(tmp_path))
    app = web.Application()
    app.router.add_get("/metadata/identity/oauth2/token", agent.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{port}/metadata/identity/oauth2/token")
    monkeypatch.setenv("IMDS_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("IDENTITY_HEADER", raising=False)
    yield agent
    await runner.cleanup()


async def test_envelopes_leave_with_the_identity_of_an_arc_server(arc: Arc, hub_side: Any) -> None:
    """By the environment alone: the agent is asked, its key file read, the hub signed in to; again after a close."""
    config = uplink()
    assert check(config, os.environ, arc.key.parent) is Identity.ARC
    namespace = f"127.0.0.1:{hub_side.hubs.port}"
    door = EventHubsUplink.from_credential(
        namespace, "readings", partial(credential, config, Identity.ARC), use_tls=False
    )
    sent: list[Sealed] = []
    async with asyncio.timeout(20):
        for _ in range(2):
            await door.send(SEALED, Lane.LIVE)
            sent.append(SEALED)
            await door.close()
    assert hub_side.arrived() == sent
    assert {resource.rstrip("/") for resource in arc.asked} == {"https://eventhubs.azure.net"}
    assert identity.arc_tokens({}) == Path("/var/opt/azcmagent/tokens") or os.name == "nt"
