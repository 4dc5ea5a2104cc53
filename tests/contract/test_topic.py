"""The Topic grammar: one table of good and bad topics, and the round trip."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.contract.topic import Topic, TopicError, equipment_of

GOOD = [
    "acme/northfield/utilities/boiler-house/feed/pmp-204/vibration_de",
    "acme/northfield/utilities/boiler-house/feed/pmp-204/drive/end/vibration/rms",
    "acme/nürnberg/kühlung/линия/c.1/EQ_1/t",
]
BAD = [
    ("", "enterprise"),
    ("acme", "site"),
    ("acme/northfield/utilities/boiler-house/feed/pmp-204", "tag"),
    ("acme//utilities/boiler-house/feed/pmp-204/t", "site"),
    ("/acme/n/a/l/c/e/t", "enterprise"),
    ("acme/n/a/l/c/e/t/", "tag"),
    ("acme/n/a/l/c/e/1/2/3/4/5", "tag"),
    ("acme/n/two words/l/c/e/t", "area"),
    ("acme/n/a/l/+/e/t", "cell"),
    ("acme/n/a/l/c/#/t", "equipment"),
    ("$SYS/n/a/l/c/e/t", "enterprise"),
    ("acme/n/a/l/c/e/t\n", "tag"),
    ("acme/n/a/l/c/e/\x00", "tag"),
    ("acme/n/a/l/c/" + "e" * 65 + "/t", "equipment"),
]

level = st.text(st.characters(categories=["L", "Nd"], include_characters="_.-"), min_size=1, max_size=64)


@pytest.mark.parametrize("text", GOOD)
def test_a_good_topic_reads_back_as_it_was_written(text: str) -> None:
    """What parses is formatted as the same text, and splits into equipment and tag."""
    topic = Topic.parse(text)
    assert str(topic) == text
    assert equipment_of(text) == (topic.equipment_path, topic.tag)


@pytest.mark.parametrize(("text", "offender"), BAD)
def test_a_bad_topic_names_the_level_that_offends(text: str, offender: str) -> None:
    """The first level that does not fit is named, with a hint."""
    with pytest.raises(TopicError) as caught:
        Topic.parse(text)
    assert caught.value.level == offender
    assert caught.value.hint


@given(st.lists(level, min_size=7, max_size=10))
def test_every_topic_of_the_grammar_goes_round(levels: list[str]) -> None:
    """Any 7 to 10 valid levels parse, and format to themselves."""
    text = "/".join(levels)
    assert str(Topic.parse(text)) == text


@given(st.text(max_size=80))
def test_any_text_parses_or_is_refused_clearly(text: str) -> None:
    """No text makes the parser fail in another way than by a TopicError."""
    try:
        assert str(Topic.parse(text)) == text
    except TopicError as error:
        assert repr(text) in str(error)


def test_the_hint_offers_the_nearest_level() -> None:
    """A technician can copy the level that would fit."""
    with pytest.raises(TopicError, match="'two_words'"):
        Topic.parse("acme/n/two words/l/c/e/t")
