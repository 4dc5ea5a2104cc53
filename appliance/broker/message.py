"""A Message: what one client published, on its way to those who want it."""

from dataclasses import dataclass, field

from appliance.broker.codec import publish_parts
from appliance.broker.properties import Properties, Property, encode_properties, none
from appliance.broker.wire import Version, uint16

_QOS_0, _QOS_1, _RETAIN = 0, 2, 1


@dataclass(slots=True, eq=False)
class Message:
    """Topic, payload and properties as published; encoded once for all who get the same bytes."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=none)
    client_id: str = ""
    """Who published it; empty for the appliance itself."""
    _encoded: dict[tuple[int, int, tuple[int, ...]], tuple[bytes, bytes]] = field(default_factory=dict, init=False)

    @property
    def size_bytes(self) -> int:
        """About what it takes while it waits."""
        return len(self.topic) + len(self.payload)

    def encoded(self, version: Version, packet_id: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bytes:
        """The PUBLISH packet for one subscriber: QoS 1 with a packet id, QoS 0 when that is 0."""
        flags = (_QOS_1 if packet_id else _QOS_0) | (_RETAIN if retain else 0)
        key = (version, flags, identifiers)
        parts = self._encoded.get(key)
        if parts is None:
            properties = self.properties
            if identifiers:
                properties = {**properties, Property.SUBSCRIPTION_IDENTIFIER: identifiers}
            written = encode_properties(properties) if version is Version.V5 else b""
            parts = self._encoded[key] = publish_parts(flags, self.topic, self.payload, written, version)
        before, after = parts
        return before + uint16(packet_id) + after if packet_id else before + after
