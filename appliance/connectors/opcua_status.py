"""What the OPC UA connector says of itself, and the times it keeps."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """The connector's times, in seconds."""

    retry_s_min: float = 1.0
    retry_s_max: float = 60.0
    healthy_s: float = 10.0
    """A link that held this long starts over with the shortest pause."""
    request_s: float = 5.0
    refused_tag_s: float = 30.0
    keep_alive_s: float = 5.0
    silent_keep_alives: float = 3.0
    """After so many keep-alive intervals without a sign the server counts as hung."""


@dataclass(frozen=True, slots=True)
class OpcUaStatus:
    """What the connector says of itself; counts since the start of the process."""

    name: str
    endpoint: str
    connected: bool = False
    since_us: int = 0
    tags: int = 0
    bad_tags: int = 0
    bad_tag: str = ""
    """One of them, with the reason."""
    readings: int = 0
    repeated: int = 0
    """Values told again after a reconnect, not written a second time."""
    unreadable: int = 0
    missed: int = 0
    """Notifications that the server sent and no longer has."""
    overflows: int = 0
    """Values marked by the server as following others that it dropped."""
    acknowledged: int = 0
    attempts: int = 0
    last_data_us: int = 0
    last_error: str = ""
