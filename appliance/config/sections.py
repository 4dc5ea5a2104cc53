"""The sections of plant.toml: a frozen value for each part, with what is wrong in itself."""

import ipaddress
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    ByteSize,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from appliance.config.values import Age, Name, address
from appliance.contract.topic import LEVELS, Topic, TopicError

_STRICT = ConfigDict(extra="forbid")
SIZE_MIN = 64_000_000


@dataclass(frozen=True, slots=True, config=_STRICT)
class PlantConfig:
    """Who this plant is, and where it keeps its data."""

    name: Name
    data: Path


@dataclass(frozen=True, slots=True, config=_STRICT)
class NamespaceConfig:
    """The root of the Unified Namespace, and what happens to topics that do not fit ISA-95."""

    root: str = "acme"
    enforce: Literal["off", "report", "refuse"] = "refuse"


@dataclass(frozen=True, slots=True, config=_STRICT)
class ListenerConfig:
    """One address on which the broker listens."""

    bind: str
    anonymous: bool = False

    @model_validator(mode="after")
    def _anonymous_only_on_loopback(self) -> "ListenerConfig":
        host, _ = address(self.bind)
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError("only loopback addresses are served yet; bind 127.0.0.1")
        return self


@dataclass(frozen=True, slots=True, config=_STRICT)
class BrokerConfig:
    """The UNS door for MQTT clients."""

    kind: Literal["embedded"] = "embedded"
    listener: tuple[ListenerConfig, ...] = (ListenerConfig("127.0.0.1:1883", anonymous=True),)


@dataclass(frozen=True, slots=True, config=_STRICT)
class BranchConfig:
    """A part of the namespace whose new readings give way first when the log is tight."""

    topic: str
    policy: Literal["reject", "thin"]

    @field_validator("topic")
    @classmethod
    def _is_branch(cls, topic: str) -> str:
        levels = topic.split("/")
        try:
            Topic.parse("/".join([*levels, *LEVELS[len(levels) :]]))
        except TopicError as error:
            raise ValueError(f"{error.level}: {error.reason}; {error.hint}") from error
        return topic


@dataclass(frozen=True, slots=True, config=_STRICT)
class BufferConfig:
    """What the durable log may take: bytes, age, and what the disk must keep free; and what happens at the bound."""

    size_max: Annotated[ByteSize, Field(ge=SIZE_MIN)] = ByteSize(20_000_000_000)
    age_max: Age = 14 * 86_400
    free_min: ByteSize = ByteSize(1_000_000_000)
    policy: Literal["drop-oldest", "reject", "thin"] = "drop-oldest"
    branch: tuple[BranchConfig, ...] = ()


@dataclass(frozen=True, slots=True, config=_STRICT)
class HistoryConfig:
    """The bound of the minutes and hours that long trends are drawn from."""

    size_max: Annotated[ByteSize, Field(ge=10_000_000)] = ByteSize(2_000_000_000)


@dataclass(frozen=True, slots=True, config=_STRICT)
class UplinkConfig:
    """Where the Bridge sends envelopes, as whom, and at what pace."""

    kind: Literal["eventhubs", "folder", "none"] = "none"
    namespace: str = ""
    hub: str = "readings"
    receipts: str = "receipts"
    identity: Literal["auto", "workload", "arc", "certificate", "secret"] = "auto"
    tenant_id: str = ""
    client_id: str = ""
    certificate: Path | None = None
    connection_string: str = field(default="", repr=False)
    allow_secrets: bool = False
    transport: Literal["amqp", "websocket"] = "amqp"
    backlog_share: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    in_flight: Annotated[int, Field(ge=1, le=32)] = 4
    throughput_units: Annotated[float, Field(ge=0, le=1000)] = 0
    path: Path | None = None

    @model_validator(mode="after")
    def _complete(self) -> "UplinkConfig":
        if self.kind == "folder" and self.path is None:
            raise ValueError("kind 'folder' needs path")
        if self.connection_string and not self.allow_secrets:
            raise ValueError(
                "connection_string holds a secret; give namespace and an identity, or, for development, "
                "allow_secrets = true"
            )
        if self.kind == "eventhubs" and not (self.namespace or self.connection_string):
            raise ValueError("kind 'eventhubs' needs namespace, such as plant.servicebus.windows.net")
        if self.identity == "secret" and not self.connection_string:
            raise ValueError("identity 'secret' needs connection_string")
        if self.kind == "eventhubs" and self.identity not in ("auto", "secret") and not self.namespace:
            raise ValueError(f"identity {self.identity!r} needs namespace")
        if self.identity == "certificate" or self.certificate is not None:
            if not (self.certificate and self.tenant_id and self.client_id):
                raise ValueError("a certificate needs certificate (a path), tenant_id and client_id")
        return self


@dataclass(frozen=True, slots=True, config=_STRICT)
class HttpConfig:
    """Where the page is served."""

    bind: str = "127.0.0.1:8080"

    @field_validator("bind")
    @classmethod
    def _is_address(cls, bind: str) -> str:
        address(bind)
        return bind


@dataclass(frozen=True, slots=True, config=_STRICT)
class TagConfig:
    """One node of a server and the topic its values go to."""

    node: str
    topic: str


@dataclass(frozen=True, slots=True, config=_STRICT)
class SourceConfig:
    """One machine or server that a connector reads; tags are listed, or found by browsing below a node."""

    name: Name
    kind: Literal["opcua"]
    endpoint: str
    browse: str = ""
    topic: str = "{id}"
    tag: tuple[TagConfig, ...] = ()
    publishing_interval_ms: Annotated[int, Field(ge=10, le=3_600_000)] = 500
    sampling_interval_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 0
    queue_size: Annotated[int, Field(ge=1, le=10_000)] = 100

    @model_validator(mode="after")
    def _has_tags(self) -> "SourceConfig":
        if not self.browse and not self.tag:
            raise ValueError("needs browse (a node to look below) or at least one [[source.tag]]")
        return self


@dataclass(frozen=True, slots=True, config=_STRICT)
class LimitConfig:
    """A limit on one tag that raises an alarm by itself."""

    tag: str
    message: str
    high: float | None = None
    low: float | None = None
    priority: Annotated[int, Field(ge=1, le=3)] = 2

    @model_validator(mode="after")
    def _has_a_bound(self) -> "LimitConfig":
        if self.high is None and self.low is None:
            raise ValueError("needs high or low")
        return self


@dataclass(frozen=True, slots=True, config=_STRICT)
class EquipmentConfig:
    """One machine as people call it; its type chooses the features the model sees."""

    path: str
    name: str
    type: str
    units: Mapping[str, str] = field(default_factory=dict)
    limit: tuple[LimitConfig, ...] = ()

    @field_validator("path")
    @classmethod
    def _has_six_levels(cls, path: str) -> str:
        try:
            topic = Topic.parse(f"{path}/tag")
        except TopicError as error:
            raise ValueError(f"{error.level}: {error.reason}; {error.hint}") from error
        if topic.tag != "tag":
            raise ValueError(f"has more than six levels; write {'/'.join(LEVELS[:6])}")
        return path


@dataclass(frozen=True, slots=True, config=_STRICT)
class InferenceConfig:
    """Which model scores the plant; without a path, the one that comes with Plantward."""

    model: Path | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None


@dataclass(frozen=True, slots=True, config=_STRICT)
class LogConfig:
    """How much the appliance says."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


@dataclass(frozen=True, slots=True, config=_STRICT)
class Config:
    """All of plant.toml. Each part gets its own section, never the whole."""

    plant: PlantConfig
    namespace: NamespaceConfig = field(default_factory=NamespaceConfig)
    broker: BrokerConfig = field(default_factory=BrokerConfig)
    buffer: BufferConfig = field(default_factory=BufferConfig)
    history: HistoryConfig = field(default_factory=HistoryConfig)
    uplink: UplinkConfig = field(default_factory=UplinkConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    source: tuple[SourceConfig, ...] = ()
    equipment: tuple[EquipmentConfig, ...] = ()
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    log: LogConfig = field(default_factory=LogConfig)
