"""Which tags an OPC UA source is to deliver: listed one by one, or found by browsing."""

import logging
from collections.abc import Sequence
from typing import Protocol

from asyncua import ua
from asyncua.ua.uaerrors import UaError

from appliance.connectors.opcua_browse import variables_under
from appliance.connectors.opcua_link import Link
from appliance.connectors.reconciler import Tag
from appliance.contract.topic import Topic, TopicError

log = logging.getLogger(__name__)

TAGS_MAX = 50_000
_NAMED_MAX = 5


class TagSource(Protocol):
    """One tag of the configuration: a node id such as `ns=2;s=Boiler.T1`, and the topic of its readings."""

    @property
    def node(self) -> str: ...
    @property
    def topic(self) -> str: ...


class Source(Protocol):
    """What the configuration says of one OPC UA server."""

    @property
    def name(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def browse(self) -> str:
        """The node id to look below; empty when all tags are listed."""

    @property
    def topic(self) -> str:
        """The topic of a tag found by browsing: text with `{id}`, `{path}` and `{name}`."""

    @property
    def tag(self) -> Sequence[TagSource]: ...
    @property
    def publishing_interval_ms(self) -> int: ...
    @property
    def sampling_interval_ms(self) -> int:
        """0 is as fast as the server can."""

    @property
    def queue_size(self) -> int:
        """How many values of one tag the server keeps for us between two notifications."""


async def wanted_tags(link: Link, source: Source) -> tuple[list[Tag], int]:
    """The tags with a valid topic, and how many were left out; asks the server only when browsing is wanted."""
    candidates = [(tag.node, tag.topic) for tag in source.tag]
    tags, reasons = _checked([(_node(text), text, topic) for text, topic in candidates])
    if source.browse:
        found = await variables_under(link, ua.NodeId.from_string(source.browse))
        listed = {tag.node for tag in tags}
        more = [(each.node, each.path, each.topic(source.topic)) for each in found if each.node not in listed]
        browsed, refused = _checked(more, taken={tag.topic for tag in tags})
        tags, reasons = tags + browsed, reasons + refused
    if len(tags) > TAGS_MAX:
        reasons.append(f"{len(tags) - TAGS_MAX} tags are more than the {TAGS_MAX} that one source may have")
        tags = tags[:TAGS_MAX]
    for reason in reasons[:_NAMED_MAX]:
        log.warning("opcua %s: a tag is left out: %s", source.name, reason)
    if len(reasons) > _NAMED_MAX:
        log.warning("opcua %s: and %d more tags are left out", source.name, len(reasons) - _NAMED_MAX)
    return tags, len(reasons)


def _checked(
    candidates: Sequence[tuple[ua.NodeId | None, str, str]], taken: set[str] | None = None
) -> tuple[list[Tag], list[str]]:
    topics = set(taken or ())
    tags: list[Tag] = []
    reasons: list[str] = []
    for node, text, topic in candidates:
        if node is None:
            reasons.append(f"{text!r} is not a node id; write it like ns=2;s=Boiler.T1")
            continue
        try:
            Topic.parse(topic)
        except TopicError as error:
            reasons.append(str(error))
            continue
        if topic in topics:
            reasons.append(f"topic {topic!r} has another node already; {text!r} needs a topic of its own")
            continue
        topics.add(topic)
        tags.append(Tag(node, topic))
    return tags, reasons


def _node(text: str) -> ua.NodeId | None:
    try:
        return ua.NodeId.from_string(text)
    except (UaError, ValueError):
        return None
