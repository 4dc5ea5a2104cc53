"""What the broker allows each client and all together, and what it counts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of the broker; the defaults fit a plant server with a few hundred clients."""

    connections_max: int = 2_000
    packet_bytes_max: int = 1 << 20
    connect_timeout_s: float = 10.0
    closing_timeout_s: float = 5.0
    """So long a closed connection may take to deliver its last bytes."""
    client_id_chars_max: int = 256
    subscriptions_max: int = 1_000
    """Topic filters of one client."""
    retained_max: int = 100_000
    topic_aliases_max: int = 100
    """Topic aliases that one MQTT 5 client may define."""
    receive_max: int = 10_000
    """Unanswered QoS 1 publishes of one MQTT 5 client; others are slowed down by not reading from them."""
    window_max: int = 1_000
    """Unacknowledged QoS 1 messages on the way to one client, when the client does not say less."""
    unsent_bytes_max: int = 4 << 20
    """Bytes that wait in the socket for one client; beyond it QoS 0 is dropped and QoS 1 queued."""
    queue_messages_max: int = 100_000
    queue_bytes_max: int = 32 << 20
    """QoS 1 messages that wait for one client; beyond it they are dropped and counted."""
    ingest_messages_max: int = 20_000
    ingest_bytes_max: int = 32 << 20
    """Publishes that wait for their commit; beyond it nothing more is read from their publishers."""


@dataclass(frozen=True, slots=True)
class BrokerStatistics:
    """What the broker has done since it started, and what is there now."""

    connections: int
    connections_refused: int
    connections_failed: int
    """Closed by the broker: malformed bytes, timeouts, limits."""
    subscriptions: int
    retained: int
    waiting: int
    """Publishes that wait for their commit."""
    received: int
    recorded: int
    passed: int
    """Accepted without being recorded: enforcement is off or only reports, or a retained topic was cleared."""
    reported: int
    """Accepted although topic or payload do not fit; enforcement only reports."""
    refused: int
    delivered: int
    dropped: int
    """Deliveries that a slow subscriber missed."""
    republished: int


@dataclass(slots=True)
class Counters:
    """The broker's running totals."""

    connections_refused: int = 0
    connections_failed: int = 0
    received: int = 0
    recorded: int = 0
    passed: int = 0
    reported: int = 0
    refused: int = 0
    delivered: int = 0
    dropped: int = 0
    republished: int = 0
