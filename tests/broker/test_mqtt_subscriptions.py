"""Topic filters: the tree finds exactly what the standard's rules say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.broker.subscriptions import Grant, Retained, Subscriptions, is_valid_filter

level = st.sampled_from(["a", "b", "", "$x"])
topics = st.lists(level, min_size=1, max_size=4).map("/".join).filter(bool)
wild = st.lists(level | st.just("+"), min_size=1, max_size=4)
filters = (wild.map("/".join) | wild.map(lambda levels: "/".join([*levels, "#"])) | st.just("#")).filter(bool)


def matches(topic_filter: str, topic: str) -> bool:
    """The rules of section 4.7, as slowly and plainly as possible."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for position, one in enumerate(wanted):
        if one == "#":
            return True
        if position >= len(levels) or one not in ("+", levels[position]):
            return False
    return len(levels) == len(wanted)


def matches_parent(topic_filter: str, topic: str) -> bool:
    """`a/#` matches `a` too."""
    return matches(topic_filter, topic) or (topic_filter.endswith("/#") and matches(topic_filter[:-2], topic))


@given(st.sets(filters, max_size=8), topics)
def test_the_tree_finds_what_matches(wanted: set[str], topic: str) -> None:
    """Each filter belongs to a client of its own name; the tree finds exactly those that match."""
    tree: Subscriptions[str] = Subscriptions()
    for one in wanted:
        assert tree.add(one, one, Grant(1))
    assert {client for client, _ in tree.match(topic)} == {one for one in wanted if matches_parent(one, topic)}


@given(st.lists(filters, max_size=8), topics)
def test_removing_leaves_nothing_behind(wanted: list[str], topic: str) -> None:
    """After all subscriptions are gone the tree is as empty as it was."""
    tree: Subscriptions[str] = Subscriptions()
    for number, one in enumerate(wanted):
        tree.add(one, f"client {number % 3}", Grant(0))
    for number in range(3):
        tree.remove_client(f"client {number}")
    assert (len(tree), tree.match(topic), tree._root.children) == (0, (), {})


@given(st.sets(topics, max_size=8), filters)
def test_retained_topics_are_found_by_filter(kept: set[str], topic_filter: str) -> None:
    """What is retained is found by the same rules, once each, and can be forgotten."""
    retained: Retained[str] = Retained(100)
    for topic in kept:
        assert retained.keep(topic, topic)
    assert sorted(retained.match(topic_filter)) == sorted(one for one in kept if matches_parent(topic_filter, one))
    for topic in kept:
        retained.forget(topic)
    assert (len(retained), list(retained.match("#")), retained._root.children) == (0, [], {})


def test_overlapping_filters_deliver_once() -> None:
    """A client with overlapping filters gets a message once, at the highest QoS, with all identifiers."""
    tree: Subscriptions[str] = Subscriptions()
    tree.add("a/#", "scada", Grant(0, identifiers=(1,)))
    tree.add("a/+", "scada", Grant(1, identifiers=(2,)))
    ((client, grant),) = tree.match("a/b")
    assert (client, grant.qos, sorted(grant.identifiers)) == ("scada", 1, [1, 2])
    assert not tree.add("a/+", "scada", Grant(0))


def test_retained_topics_are_bounded() -> None:
    """Beyond the bound new topics are not kept; known ones still change."""
    retained: Retained[int] = Retained(2)
    assert [retained.keep(topic, 1) for topic in ("a", "b", "c")] == [True, True, False]
    assert retained.keep("b", 2)
    assert sorted(retained.match("#")) == [1, 2]


@pytest.mark.parametrize("bad", ["", "a/#/b", "a#", "#a", "a+/b", "+a", "/".join("a" * 101)])
def test_filters_that_are_none(bad: str) -> None:
    """Wildcards stand alone in their level, and `#` at the end."""
    assert not is_valid_filter(bad)
