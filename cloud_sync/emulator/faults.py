"""What goes wrong on purpose: the switches with which tests make the emulator a bad far side."""

from dataclasses import dataclass


@dataclass(slots=True)
class Faults:
    """Faults to come. A count goes down by one each time its fault strikes a delivery; all are off at first."""

    server_busy: int = 0
    """Deliveries to refuse with `com.microsoft:server-busy`, as a throttled namespace does."""
    released: int = 0
    """Deliveries to answer with the outcome `released`."""
    detach: int = 0
    """Deliveries to answer by detaching the link, as after a long idle time."""
    drop_after_store: int = 0
    """Deliveries to store and then cut the connection, so that the sender never learns of it."""
    black_hole: bool = False
    """While set, connections are accepted and stand, but nothing is read and nothing is said."""
    latency_s: float = 0.0
    """How much later each acknowledgement leaves."""
