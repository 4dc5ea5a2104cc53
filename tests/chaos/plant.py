"""`plantward` with less patience and less room, as the variable CHAOS asks for: minutes of an outage in seconds.

Everything else is the program itself. Without the variable it is exactly `plantward`.
"""

import base64
import json
import os
import time
from dataclasses import replace
from typing import Any

from azure.core.credentials import AccessToken

from appliance import assembly
from appliance.bridge.eventhubs import Deadlines, EventHubsUplink
from appliance.bridge.pacing import Pace
from appliance.buffer import keeper
from appliance.buffer.retention import Bounds
from appliance.cli import main
from appliance.config import BufferConfig, UplinkConfig

WISHES: dict[str, Any] = json.loads(os.environ.get("CHAOS", "{}"))
KEEPER = {"SEAL_AGE_S", "LOOK_S", "LOOK_BUSY_S"}
as_configured, bounded = assembly.pace_of, assembly.bounds_of


class Impatient(EventHubsUplink):
    """Gives up on a send after `send_s` seconds."""

    def __init__(self, connect: Any, deadlines: Any = None, lifetime: Any = None) -> None:
        super().__init__(connect, deadlines or Deadlines(WISHES["send_s"], 1.0), lifetime)


class Signer:
    """An identity whose tokens are JWTs that last an hour by the plant's clock."""

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        ends_s = int(time.time()) + 3_600
        parts = {"alg": "none"}, {"iss": WISHES["jwt"][1], "aud": "https://eventhubs.azure.net", "exp": ends_s}
        token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        return AccessToken(f"{token}.unsigned", ends_s)

    async def close(self) -> None:
        """Nothing is held open."""


def signed_in(config: UplinkConfig) -> EventHubsUplink:
    return Impatient.from_credential(WISHES["jwt"][0], config.hub, Signer, use_tls=False)


def pace_of(config: UplinkConfig) -> Pace:
    return replace(as_configured(config), **WISHES.get("pace", {}))


def bounds_of(config: BufferConfig) -> Bounds:
    return replace(bounded(config), **WISHES.get("bounds", {}))


if __name__ == "__main__":
    assembly.pace_of, assembly.bounds_of = pace_of, bounds_of
    if "send_s" in WISHES:
        assembly.EventHubsUplink = Impatient  # type: ignore[misc,assignment]
    if "jwt" in WISHES:
        assembly.uplink_for = signed_in
    for name in KEEPER & WISHES.keys():
        setattr(keeper, name, WISHES[name])
    main()
