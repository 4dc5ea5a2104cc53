"""Subscriptions: a tree of topic filters that says who wants a topic, and a tree of what is retained."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeVar

LEVELS_MAX: Final = 100
"""More levels than any sensible topic has; it bounds what one packet can make us build."""
SHARED: Final = "$share/"

Client = TypeVar("Client")
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Grant:
    """How a client receives what matches one of its filters."""

    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    identifiers: tuple[int, ...] = ()


@dataclass(slots=True)
class _Node(Generic[Client]):
    children: dict[str, "_Node[Client]"] = field(default_factory=dict)
    grants: dict[Client, Grant] = field(default_factory=dict)


def is_valid_filter(text: str) -> bool:
    """Whether `+` and `#` stand alone in their levels, and `#` at the end."""
    levels = text.split("/")
    if not text or len(levels) > LEVELS_MAX or "#" in levels[:-1]:
        return False
    return all(level in ("+", "#") or not ("+" in level or "#" in level) for level in levels)


class Subscriptions(Generic[Client]):
    """Who wants which topics. Filters are cut into levels, so that a look-up walks only what can match."""

    def __init__(self) -> None:
        self._root: _Node[Client] = _Node()
        self._filters: dict[Client, set[str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._filters.values()))

    def count(self, client: Client) -> int:
        """How many filters the client has."""
        return len(self._filters.get(client, ()))

    def add(self, topic_filter: str, client: Client, grant: Grant) -> bool:
        """Add or replace a subscription; says whether it is new."""
        node = self._root
        for level in topic_filter.split("/"):
            node = node.children.setdefault(level, _Node())
        is_new = client not in node.grants
        node.grants[client] = grant
        self._filters.setdefault(client, set()).add(topic_filter)
        return is_new

    def remove(self, topic_filter: str, client: Client) -> bool:
        """Remove a subscription; says whether there was one."""
        filters = self._filters.get(client, set())
        if topic_filter not in filters:
            return False
        filters.discard(topic_filter)
        if not filters:
            del self._filters[client]
        levels = topic_filter.split("/")
        path = [self._root]
        for level in levels:
            path.append(path[-1].children[level])
        del path[-1].grants[client]
        for parent, level, node in reversed(list(zip(path, levels, path[1:], strict=False))):
            if node.grants or node.children:
                break
            del parent.children[level]
        return True

    def remove_client(self, client: Client) -> None:
        """Remove all subscriptions of a client."""
        for topic_filter in tuple(self._filters.get(client, ())):
            self.remove(topic_filter, client)

    def match(self, topic: str) -> tuple[tuple[Client, Grant], ...]:
        """Who wants this topic, each client once: where its filters overlap, the highest QoS counts."""
        found: dict[Client, Grant] = {}
        for node in self._matching(topic):
            for client, grant in node.grants.items():
                found[client] = _joined(found[client], grant) if client in found else grant
        return tuple(found.items())

    def _matching(self, topic: str) -> Iterator[_Node[Client]]:
        nodes = [self._root]
        for position, level in enumerate(topic.split("/")):
            # A wildcard in the first level does not match topics that begin with $ (4.7.2).
            wild = position > 0 or not level.startswith("$")
            following: list[_Node[Client]] = []
            for node in nodes:
                children = node.children
                if (exact := children.get(level)) is not None:
                    following.append(exact)
                if wild:
                    if (one := children.get("+")) is not None:
                        following.append(one)
                    if (rest := children.get("#")) is not None:
                        yield rest
            nodes = following
            if not nodes:
                return
        for node in nodes:
            yield node
            if (rest := node.children.get("#")) is not None:
                yield rest


def _joined(one: Grant, other: Grant) -> Grant:
    better = one if one.qos >= other.qos else other
    return replace(
        better,
        no_local=one.no_local and other.no_local,
        retain_as_published=one.retain_as_published or other.retain_as_published,
        identifiers=one.identifiers + other.identifiers,
    )


@dataclass(slots=True)
class _Place(Generic[Kept]):
    children: dict[str, "_Place[Kept]"] = field(default_factory=dict)
    kept: Kept | None = None


class Retained(Generic[Kept]):
    """The newest retained message of each topic, found by topic filter."""

    def __init__(self, topics_max: int) -> None:
        self._root: _Place[Kept] = _Place()
        self._topics_max = topics_max
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def keep(self, topic: str, message: Kept) -> bool:
        """Keep this message for the topic; False when there are too many topics already."""
        place = self._root
        if self._count >= self._topics_max and self._find(topic) is None:
            return False
        for level in topic.split("/"):
            place = place.children.setdefault(level, _Place())
        self._count += place.kept is None
        place.kept = message
        return True

    def forget(self, topic: str) -> None:
        """Keep nothing for the topic any more."""
        levels = topic.split("/")
        path = [self._root]
        for level in levels:
            child = path[-1].children.get(level)
            if child is None:
                return
            path.append(child)
        self._count -= path[-1].kept is not None
        path[-1].kept = None
        for parent, level, place in reversed(list(zip(path, levels, path[1:], strict=False))):
            if place.kept is not None or place.children:
                break
            del parent.children[level]

    def match(self, topic_filter: str) -> Iterator[Kept]:
        """What is kept for the topics that the filter matches."""
        places = [self._root]
        for position, level in enumerate(topic_filter.split("/")):
            if level == "#":
                yield from _below(places, skip_dollar=position == 0)
                return
            places = [child for place in places for child in _children(place, level, position == 0)]
        yield from (place.kept for place in places if place.kept is not None)

    def _find(self, topic: str) -> Kept | None:
        return next(iter(self.match(topic)), None)


def _children(place: _Place[Kept], level: str, skip_dollar: bool) -> list[_Place[Kept]]:
    if level == "+":
        return [child for name, child in place.children.items() if not (skip_dollar and name.startswith("$"))]
    child = place.children.get(level)
    return [] if child is None else [child]


def _below(places: list[_Place[Kept]], skip_dollar: bool) -> Iterator[Kept]:
    """Everything at and below these places; `a/#` matches `a` itself too."""
    yield from (place.kept for place in places if place.kept is not None)
    rest = [child for place in places for child in _children(place, "+", skip_dollar)]
    while rest:
        place = rest.pop()
        if place.kept is not None:
            yield place.kept
        rest.extend(place.children.values())
