"""The appliance's configuration: one TOML file, one frozen section for each part."""

from appliance.config.reading import ConfigError, load, parse, schema
from appliance.config.sections import (
    BranchConfig,
    BrokerConfig,
    BufferConfig,
    Config,
    EquipmentConfig,
    HistoryConfig,
    HttpConfig,
    InferenceConfig,
    LimitConfig,
    ListenerConfig,
    LogConfig,
    NamespaceConfig,
    PlantConfig,
    SourceConfig,
    TagConfig,
    UplinkConfig,
)
from appliance.config.values import address

__all__ = [
    "BranchConfig",
    "BrokerConfig",
    "BufferConfig",
    "Config",
    "ConfigError",
    "EquipmentConfig",
    "HistoryConfig",
    "HttpConfig",
    "InferenceConfig",
    "LimitConfig",
    "ListenerConfig",
    "LogConfig",
    "NamespaceConfig",
    "PlantConfig",
    "SourceConfig",
    "TagConfig",
    "UplinkConfig",
    "address",
    "load",
    "parse",
    "schema",
]
