"""What a link may be attached to, and where a receiver begins: the addresses of Event Hubs."""

import re
from dataclasses import dataclass
from typing import Any, Final

from cloud_sync.emulator.amqp import Described
from cloud_sync.emulator.store import OFFSET_STEP, Store

CBS: Final = "$cbs"
MANAGEMENT: Final = "$management"
NUMBER_MAX: Final = 2**62
_SCHEME = re.compile(r"^(sb|amqps?)://[^/]+/")
_HUB = re.compile(r"(?P<hub>[^/]+?)(/ConsumerGroups/(?P<group>[^/]+))?(/Partitions/(?P<number>\d+))?/?")
_SELECTOR = re.compile(r"amqp\.annotation\.x-opt-(offset|sequence-number|enqueued-time) (>=?) '?(-?\d+|@latest|)'?")


@dataclass(frozen=True, slots=True)
class Node:
    """One place of a hub: a whole hub to send to, or one partition of it to send to or receive from."""

    hub: str
    group: str | None
    number: int | None


class AddressError(ValueError):
    """An address or a selector that leads nowhere; `condition` is its AMQP name."""

    def __init__(self, condition: str, text: str) -> None:
        super().__init__(text)
        self.condition = condition


def path_of(address: Any) -> str:
    """The path of a link's address, which may come with a scheme and host before it."""
    text = address.decode("utf-8", "replace") if isinstance(address, bytes) else str(address or "")
    return _SCHEME.sub("", text).lstrip("/")


def find(path: str, hubs: dict[str, int], receives: bool) -> Node:
    """The place a path names; raises `AddressError`."""
    match = _HUB.fullmatch(path)
    if match is None or match["hub"] not in hubs:
        raise AddressError("amqp:not-found", f"The messaging entity '{path}' could not be found.")
    number = None if match["number"] is None else int(match["number"])
    if number is not None and number >= hubs[match["hub"]]:
        text = f"The partition '{number}' is not one of the {hubs[match['hub']]} of '{match['hub']}'."
        raise AddressError("com.microsoft:argument-out-of-range", text)
    if receives and (number is None or match["group"] is None):
        raise AddressError("amqp:not-allowed", "A receiver names hub/ConsumerGroups/GROUP/Partitions/NUMBER.")
    return Node(match["hub"], match["group"], number)


def selector(source: list[Any]) -> str:
    """The selector among the filters of a link's source, empty when there is none."""
    filters = source[7] if len(source) > 7 and isinstance(source[7], dict) else {}
    for name, value in filters.items():
        described = isinstance(value, Described)
        kind = value.descriptor if described else name
        if "selector" in _text(kind) or "selector" in _text(name):
            return _text(value.value if described else value)
    return ""


def begin(store: Store, node: Node, expression: str) -> int:
    """The number of the first event a receiver with this selector gets; raises `AddressError`."""
    assert node.number is not None, "a receiver stands at a partition"
    match = _SELECTOR.fullmatch(expression or "amqp.annotation.x-opt-offset > '-1'")
    if match is None:
        raise AddressError("amqp:invalid-field", f"The selector {expression!r} is not understood.")
    what, comparison, value = match.groups()
    if value == "@latest":
        return store.extent(node.hub, node.number).next
    number, also_equal = min(int(value or -1), NUMBER_MAX), comparison == ">="
    if what == "enqueued-time":
        return store.enqueued_after(node.hub, node.number, number - also_equal)
    if what == "offset":
        number //= OFFSET_STEP
    return max(0, number + (not also_equal))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
