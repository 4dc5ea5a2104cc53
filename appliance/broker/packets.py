"""The packets of MQTT 3.1.1 and 5 as values."""

from dataclasses import dataclass, field
from typing import TypeAlias

from appliance.broker.properties import Kind, Properties, none
from appliance.broker.wire import Reason, Version


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for a client that goes without DISCONNECT."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=none)


@dataclass(frozen=True, slots=True)
class Connect:
    version: Version
    client_id: str
    clean_start: bool = True
    keepalive_s: int = 0
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    properties: Properties = field(default_factory=none)


@dataclass(frozen=True, slots=True)
class Connack:
    """`reason` is a v5 reason code also for 3.1.1, where it is sent as the nearest return code."""

    reason: int = Reason.SUCCESS
    session_present: bool = False
    properties: Properties = field(default_factory=none)


@dataclass(frozen=True, slots=True)
class Publish:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = field(default_factory=none)


@dataclass(frozen=True, slots=True)
class Ack:
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""

    kind: Kind
    packet_id: int
    reason: int = Reason.SUCCESS
    properties: Properties = field(default_factory=none)


@dataclass(frozen=True, slots=True)
class Filter:
    """One wish of a SUBSCRIBE; 3.1.1 knows only the topic filter and the QoS."""

    topic: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(frozen=True, slots=True)
class Subscribe:
    packet_id: int
    filters: tuple[Filter, ...]
    properties: Properties = field(default_factory=none)


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    packet_id: int
    topics: tuple[str, ...]
    properties: Properties = field(default_factory=none)


@dataclass(frozen=True, slots=True)
class Answers:
    """SUBACK or UNSUBACK: one reason for each topic filter."""

    kind: Kind
    packet_id: int
    reasons: tuple[int, ...]
    properties: Properties = field(default_factory=none)


@dataclass(frozen=True, slots=True)
class Ping:
    """PINGREQ or PINGRESP."""

    kind: Kind = Kind.PINGREQ


@dataclass(frozen=True, slots=True)
class Farewell:
    """DISCONNECT or AUTH: a reason and properties."""

    kind: Kind = Kind.DISCONNECT
    reason: int = Reason.SUCCESS
    properties: Properties = field(default_factory=none)


Packet: TypeAlias = Connect | Connack | Publish | Ack | Subscribe | Unsubscribe | Answers | Ping | Farewell
