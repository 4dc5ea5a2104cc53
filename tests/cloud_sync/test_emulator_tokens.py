"""Tokens: whom the emulator believes, and what becomes of a link whose token ends."""

import asyncio
import base64
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubConsumerClient, EventHubProducerClient, EventHubSharedKeyCredential
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.emulator.amqp import Described, UInt, ULong, described
from cloud_sync.emulator.eventhubs import EventHubs
from cloud_sync.emulator.performatives import (
    Attach,
    Begin,
    Detach,
    Disposition,
    Flow,
    Open,
    Performative,
    Transfer,
    frame,
    parse_performative,
    performative_bytes,
)
from cloud_sync.emulator.tokens import SAS, UNAUTHORIZED, TokenError, Trust

KEY, ISSUER, NOW_S = "c2VjcmV0", "https://sts.example/tenant", 1_790_000_000.0
PLACE = "readings/ConsumerGroups/$Default/Partitions/0"


def jwt(**claims: Any) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2ln"


GOOD = {"iss": ISSUER, "aud": "https://eventhubs.azure.net/", "exp": NOW_S + 60}


@pytest.mark.parametrize(
    ("trust", "kind", "token", "said"),
    [
        (Trust(), "jwt", jwt(**{**GOOD, "exp": NOW_S - 5 * 86_400}), "ended 432000 s ago"),
        (Trust(issuer=ISSUER), "jwt", jwt(**{**GOOD, "iss": "https://elsewhere.example"}), "InvalidIssuer"),
        (Trust(issuer=ISSUER), "jwt", jwt(**{**GOOD, "aud": "https://graph.example"}), "InvalidAudience"),
        (Trust(issuer=ISSUER), "jwt", "no token", "malformed"),
        (Trust(issuer=ISSUER), SAS, "SharedAccessSignature sr=a&sig=b&se=9999999999", "InvalidSignature"),
        (Trust(access_key=KEY), "jwt", jwt(**GOOD), "InvalidIssuer"),
        (Trust(access_key=KEY), SAS, "SharedAccessSignature sr=a&sig=b&se=9999999999", "InvalidSignature"),
        (Trust(access_key=KEY), SAS, "Bearer x", "no SharedAccessSignature"),
    ],
)
def test_a_token_that_opens_nothing_says_why(trust: Trust, kind: str, token: str, said: str) -> None:
    with pytest.raises(TokenError, match=said):
        trust.expiry_s(kind, token, NOW_S)


async def test_good_tokens_open_until_they_end() -> None:
    """A JWT of the issuer; the SDK's own SAS token; and where everybody is let in, even what is no token."""
    assert Trust(issuer=ISSUER).expiry_s("jwt", jwt(**GOOD), NOW_S) == NOW_S + 60
    sas = await EventHubSharedKeyCredential("policy", KEY).get_token("sb://127.0.0.1:5672/readings")
    token = sas.token.decode() if isinstance(sas.token, bytes) else sas.token
    assert Trust(access_key=KEY).expiry_s(SAS, token, time.time()) == sas.expires_on
    assert Trust().expiry_s("jwt", "anything", NOW_S) == math.inf


@given(st.text(max_size=80), st.sampled_from([SAS, "jwt"]))
def test_any_text_is_a_token_or_a_token_error(text: str, kind: str) -> None:
    for token in (text, f"SharedAccessSignature {text}", f"x.{text}.y"):
        with pytest.raises(TokenError):
            Trust(access_key=KEY, issuer=ISSUER).expiry_s(kind, token, NOW_S)


async def test_a_link_is_detached_when_its_token_ends_and_another_one_stays(tmp_path: Path) -> None:
    """One token of a second for the partition's hub; the hub beside it was opened for longer."""
    async with EventHubs.open(tmp_path / "hubs.db", ("readings", "other"), trust=Trust(issuer=ISSUER)) as hubs:
        reader, writer = await asyncio.open_connection("127.0.0.1", await hubs.serve())

        def say(performative: Performative, payload: bytes = b"") -> None:
            writer.write(frame(0, performative_bytes(performative) + payload))

        def show(number: int, hub: str, lasts_s: float) -> None:
            token = jwt(**{**GOOD, "exp": time.time() + lasts_s})
            head = {"operation": "put-token", "type": "jwt", "name": f"sb://plant.example/{hub}"}
            message = described(0x73, [f"m{number}", *[None] * 12]) + described(0x74, head) + described(0x77, token)
            say(Transfer(UInt(0), UInt(number), b"t", UInt(0), False, False), message)

        def receive(handle: int, address: str) -> None:
            source = Described(ULong(0x28), [address, *[None] * 9])
            say(Attach(f"in {handle}", UInt(handle), True, None, None, source))

        async def heard(kind: type[Performative]) -> Any:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                performative, _ = parse_performative((await reader.readexactly(size - 4))[4:], 0)
                if isinstance(performative, kind):
                    return performative

        writer.write(b"AMQP\x00\x01\x00\x00")
        say(Open("me"))
        say(Begin(None, UInt(0), UInt(100), UInt(100)))
        say(Attach("cbs", UInt(0), False, None, None, None, Described(ULong(0x29), ["$cbs"])))
        receive(1, PLACE)  # Too early: no token opens it.
        show(0, "readings", 1.0)
        show(1, "other", 3_600.0)
        await reader.readexactly(8)
        async with asyncio.timeout(10):
            early = await heard(Detach)
            assert (early.handle, early.error.value[0]) == (1, UNAUTHORIZED)
            for _ in range(2):
                await heard(Disposition)
            receive(2, PLACE)
            receive(3, PLACE.replace("readings", "other"))
            ended = await heard(Detach)
            assert (ended.handle, ended.error.value[0]) == (2, UNAUTHORIZED)
            say(Flow(UInt(0), UInt(100), UInt(0), UInt(100), UInt(3), UInt(0), UInt(1), echo=True))
            assert (await heard(Flow)).handle == 3
        writer.close()


async def test_the_sdk_receives_with_tokens_of_an_access_key(tmp_path: Path) -> None:
    """Its token is for `consumergroups`, its link goes to `ConsumerGroups`: one place."""
    async with EventHubs.open(tmp_path / "hubs.db", trust=Trust(access_key=KEY)) as hubs:
        text = f"Endpoint=sb://127.0.0.1:{await hubs.serve()};SharedAccessKeyName=any;SharedAccessKey={KEY}"
        text += ";UseDevelopmentEmulator=true"
        received: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def take(_: Any, event: Any) -> None:
            if not received.done():
                received.set_result(event.body_as_str())

        sender = EventHubProducerClient.from_connection_string(text, eventhub_name="readings")
        receiver = EventHubConsumerClient.from_connection_string(text, "$Default", eventhub_name="readings")
        async with asyncio.timeout(30), sender, receiver:
            await sender.send_batch([EventData("hello")], partition_id="0")
            receiving = asyncio.create_task(receiver.receive(take, partition_id="0", starting_position="-1"))
            assert await received == "hello"
            receiving.cancel()
