"""What goes wrong on purpose: the switches that make the emulator a bad far side."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Final

COUNT_MAX: Final = 1_000_000_000
LATENCY_S_MAX: Final = 3_600.0


class FaultsError(ValueError):
    """A request for faults that do not exist or make no sense."""


@dataclass(slots=True)
class Faults:
    """Faults to come. A count goes down by one each time its fault strikes a delivery; all are off at first."""

    server_busy: int = 0
    """Deliveries to refuse with `com.microsoft:server-busy`, as a throttled namespace does."""
    released: int = 0
    """Deliveries to answer with the outcome `released`."""
    detach: int = 0
    """Deliveries to answer by detaching the link, as after a long idle time."""
    expired_token: int = 0
    """Deliveries to answer by detaching the link with `amqp:unauthorized-access`, as when its token has run out."""
    refused_token: int = 0
    """Tokens to refuse with status 401."""
    drop_before_store: int = 0
    """Deliveries to lose with their connection, before anything is stored."""
    drop_after_store: int = 0
    """Deliveries to store and then cut the connection, so that the sender never learns of it."""
    forget: int = 0
    """Deliveries to accept and not keep: only an account from end to end finds them."""
    black_hole: bool = False
    """While set, connections are accepted and stand, but nothing is read and nothing is said."""
    latency_s: float = 0.0
    """How much later each acknowledgement leaves."""
    bandwidth_bytes_s: int = 0
    """What one connection carries in a second each way; 0 is no bound."""

    def struck(self, name: str) -> bool:
        """Whether a counted fault strikes now; it is then used up by one."""
        left: int = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left > 0

    def document(self) -> dict[str, Any]:
        """All switches, for JSON."""
        return asdict(self)

    def replace(self, document: Any) -> None:
        """Set all switches, those not named to off; changes nothing and raises `FaultsError` for a bad document."""
        if not isinstance(document, dict):
            raise FaultsError("the faults are a JSON object")
        off = {field.name: field.default for field in fields(self)}
        for name, value in document.items():
            if name not in off:
                raise FaultsError(f"there is no fault '{name}'; there are {', '.join(off)}")
            _check(name, value, type(off[name]))
        for name, value in {**off, **document}.items():
            setattr(self, name, value)


def _check(name: str, value: Any, kind: type) -> None:
    if kind is bool:
        if type(value) is not bool:
            raise FaultsError(f"{name} is true or false")
    elif kind is int:
        if type(value) is not int or not 0 <= value <= COUNT_MAX:
            raise FaultsError(f"{name} is a whole number from 0 to {COUNT_MAX}")
    elif type(value) not in (int, float) or not 0 <= value <= LATENCY_S_MAX:
        raise FaultsError(f"{name} is a number from 0 to {LATENCY_S_MAX:.0f}")
