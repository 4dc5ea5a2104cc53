"""Tokens: what a client shows at `$cbs`, what it opens, and until when."""

import base64
import hashlib
import hmac
import json
import math
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, quote_plus

from cloud_sync.emulator.messages import Request
from cloud_sync.emulator.nodes import MANAGEMENT, path_of

SAS: Final = "servicebus.windows.net:sastoken"
UNAUTHORIZED: Final = "amqp:unauthorized-access"
TOKENS_MAX: Final = 256
AUDIENCES: Final = ("https://eventhubs.azure.net", "https://servicebus.azure.net")


class TokenError(ValueError):
    """A token that opens nothing."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom the server believes: with neither key nor issuer everybody, whose tokens' ends still count."""

    access_key: str = ""
    """The shared access key; tokens and passwords must be made with it."""
    issuer: str = ""
    """The issuer a JWT must name. Its signature is not looked at: the issuer's keys are not here."""

    @property
    def is_open(self) -> bool:
        return not (self.access_key or self.issuer)

    def expiry_s(self, kind: str, token: str, now_s: float) -> float:
        """Until when the token opens, in seconds since 1970; raises `TokenError`."""
        try:
            expires_s = self._of_sas(token) if kind == SAS else self._of_jwt(token)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            if self.is_open:
                return math.inf
            raise (
                error if isinstance(error, TokenError) else TokenError(f"The token is malformed: {error!r}")
            ) from error
        if not expires_s > now_s:
            raise TokenError(f"ExpiredToken: the token ended {now_s - expires_s:.0f} s ago.")
        return expires_s

    def welcomes(self, password: str) -> bool:
        """Whether a plain sign-in with this password opens everything."""
        return self.is_open or (
            bool(self.access_key) and hmac.compare_digest(password.encode(), self.access_key.encode())
        )

    def _of_sas(self, token: str) -> float:
        scheme, _, text = token.partition(" ")
        if scheme != "SharedAccessSignature":
            raise TokenError("The token is no SharedAccessSignature.")
        parts = {name: values[0] for name, values in parse_qs(text, strict_parsing=True).items()}
        signed = f"{quote_plus(parts['sr'])}\n{parts['se']}".encode()
        digest = hmac.new(self.access_key.encode(), signed, hashlib.sha256).digest()
        if not self.is_open and not (
            self.access_key and hmac.compare_digest(base64.b64encode(digest).decode(), parts["sig"])
        ):
            raise TokenError("InvalidSignature: the token has an invalid signature.")
        return float(parts["se"])

    def _of_jwt(self, token: str) -> float:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        if not self.is_open and not (self.issuer and claims["iss"] == self.issuer):
            raise TokenError("InvalidIssuer: tokens of this issuer are not taken.")
        if not self.is_open and str(claims["aud"]).rstrip("/") not in AUDIENCES:
            raise TokenError(f"InvalidAudience: the token is for {claims['aud']}.")
        return float(claims["exp"])


class Tokens:
    """The tokens of one connection, each for an address and all below it."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._ends_s: dict[str, float] = {}
        self.has_signed_in = trust.is_open

    def sign_in(self, password: str) -> bool:
        """A user's password instead of tokens; True when it opens everything."""
        self.has_signed_in = self._trust.welcomes(password)
        return self.has_signed_in

    def put(self, request: Request) -> float:
        """Take a token, and give how many seconds it lasts; raises `TokenError`."""
        now_s = time.time()
        kind, value = request.text("type"), request.value
        token = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        ends_s = self._trust.expiry_s(kind, token, now_s)
        path = path_of(request.text("name")).rstrip("/")
        if path not in self._ends_s and len(self._ends_s) >= TOKENS_MAX:
            raise TokenError(f"A connection may have tokens for {TOKENS_MAX} addresses.")
        self._ends_s[path] = ends_s
        return ends_s - now_s

    def opens(self, path: str) -> bool:
        """Whether a link to the path may attach."""
        return self._covers(path, time.time()) or (self.has_signed_in and not self.has_ended(path))

    def has_ended(self, path: str) -> bool:
        """Whether the path was opened by a token that has ended, and by none that lasts."""
        now_s = time.time()
        return any(_is_below(path, own) for own in self._ends_s) and not self._covers(path, now_s)

    def _covers(self, path: str, now_s: float) -> bool:
        return any(ends_s > now_s and _is_below(path, own) for own, ends_s in self._ends_s.items())


def _is_below(path: str, own: str) -> bool:
    """Whether a token for `own` counts for the path, in whatever case; `$management` opens with a token for anything.

    The SDK asks for a token for `consumergroups` and then attaches to `ConsumerGroups`.
    """
    path, own = path.lower(), own.lower()
    return path == MANAGEMENT or own == "" or path == own or path.startswith(own + "/")


def expired(link_path: str) -> str:
    """What a client is told whose token has ended."""
    return f"ExpiredToken: The token is expired. Resource: '{link_path}'."


def password_of(value: Any) -> str:
    """The password of a SASL PLAIN response, empty when there is none."""
    parts = value.split(b"\0") if isinstance(value, bytes) else []
    return parts[2].decode("utf-8", "replace") if len(parts) == 3 else ""
