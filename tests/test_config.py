"""The configuration: a wrong file says where, what and what instead."""

import tomllib
from pathlib import Path

import pytest

from appliance.config import ConfigError, address, load, parse, schema
from appliance.config.lines import line_of

PLANT = '[plant]\nname = "northfield"\ndata = "/var/lib/plantward"\n'
DESIGN = (
    PLANT
    + """
[namespace]
root = "acme"
enforce = "refuse"
[broker]
kind = "embedded"
[[broker.listener]]
bind = "127.0.0.1:1883"
anonymous = true
[buffer]
size_max = "20 GB"
[uplink]
kind = "folder"
path = "/mnt/usb"
[http]
bind = "127.0.0.1:8080"
[[source]]
name = "boiler"
kind = "opcua"
endpoint = "opc.tcp://plc:4840"
browse = "ns=2;s=plant"
[[equipment]]
path = "acme/northfield/utilities/boiler-house/feed/pmp-204"
name = "Boiler feed pump B"
type = "pump"
units = { vibration_de = "mm/s" }
[[equipment.limit]]
tag = "vibration_de"
high = 6.3
message = "Drive-end vibration high"
"""
)


def test_the_designs_words_are_understood() -> None:
    """Every word that users rely on is read, with defaults for the rest."""
    config = parse(DESIGN)
    assert config.buffer.size_max == 20_000_000_000
    assert config.uplink.path == Path("/mnt/usb")
    assert config.equipment[0].limit[0].high == 6.3
    assert parse(PLANT).http.bind == "127.0.0.1:8080"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PLANT + "[htp]\nbind = '127.0.0.1:80'\n", "plant.toml:4: unknown key 'htp'; did you mean 'http'?"),
        (PLANT + "[http]\nbnd = '127.0.0.1:80'\n", "plant.toml:5: unknown key 'bnd'; did you mean 'bind'?"),
        (PLANT + "[http]\nbind = 'here'\n", "plant.toml:5: http.bind: 'here' is not HOST:PORT"),
        ("[plant]\nname = 'n'\n", "plant.toml:1: plant.data is missing"),
        ("[plant\n", "plant.toml: is not TOML"),
        (PLANT + "[[broker.listener]]\nbind = '0.0.0.0:1883'\n", "only loopback addresses are served yet"),
        (PLANT + "[uplink]\nkind = 'eventhubs'\n", "needs namespace"),
        (PLANT + "[[equipment]]\npath = 'acme/n'\nname = 'x'\ntype = 'pump'\n", "plant.toml:5: equipment.path: line"),
        (
            PLANT + "[[source]]\nname='a'\nkind='opcua'\nendpoint='x'\nbrowse='y'\n"
            "[[source]]\nname='b'\nkind='opcua'\nendpont='x'\nbrowse='y'\n",
            "plant.toml:12: unknown key 'endpont'; did you mean 'endpoint'?",
        ),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_line_and_hint(text: str, expected: str) -> None:
    """A technician at three in the morning sees the line and the right word."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert expected in str(caught.value)


def test_secrets_are_not_shown() -> None:
    """A configuration in a log line does not carry the connection string."""
    config = parse(
        PLANT + "[uplink]\nkind = 'eventhubs'\nconnection_string = 'SharedAccessKey=hush'\n" + "allow_secrets = true\n"
    )
    assert "hush" not in repr(config)


def test_a_missing_file_says_what_to_give() -> None:
    """No traceback for a wrong path."""
    with pytest.raises(ConfigError, match="give --config"):
        load(Path("/nowhere/plant.toml"))


def test_every_key_is_in_the_docs() -> None:
    """A key that the schema knows stands in docs/configuration.md."""
    text = (Path(__file__).parents[1] / "docs/configuration.md").read_text("utf-8")
    sections = [schema(), *schema()["$defs"].values()]
    keys = {key for section in sections for key in section.get("properties", {})}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


@pytest.mark.parametrize("bind", ["", "8080", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000", "plc:80"])
def test_an_address_is_host_and_port(bind: str) -> None:
    """What cannot be bound is refused when the file is read."""
    with pytest.raises(ValueError, match="write for example"):
        address(bind)


@pytest.mark.parametrize(("text", "age_s"), [('"14 d"', 1_209_600), ('"12h"', 43_200), ('"30 min"', 1_800)])
def test_an_age_is_written_with_its_unit(text: str, age_s: int) -> None:
    """The bound on the log's age reads like it is said."""
    config = parse(f'[plant]\nname = "p"\ndata = "."\n[buffer]\nage_max = {text}\npolicy = "thin"\n')
    assert config.buffer.age_max == age_s
    with pytest.raises(ConfigError, match="'14 moons' is not an age"):
        parse('[plant]\nname = "p"\ndata = "."\n[buffer]\nage_max = "14 moons"\n')


def test_branches_of_the_buffer_are_checked() -> None:
    """A branch begins like a topic and has one of two policies; anything else is named with its line."""
    plant = '[plant]\nname = "north"\ndata = "/var/lib/plantward"\n[[buffer.branch]]\n'
    config = parse(f'{plant}topic = "acme/north/utilities"\npolicy = "thin"\n')
    assert [(branch.topic, branch.policy) for branch in config.buffer.branch] == [("acme/north/utilities", "thin")]
    for faulty in ('topic = "acme/north/"\npolicy = "thin"', 'topic = "acme"\npolicy = "drop-oldest"'):
        with pytest.raises(ConfigError, match=r"plant.toml:[56]: buffer\.branch"):
            parse(f"{plant}{faulty}\n")


DOCUMENT = """
# A plant.
[plant]
name = "north"   # [buffer]
note = \'\'\'
[uplink]
kind = "x"
\'\'\'

[buffer]
size_max = "1GB"

[[buffer.branch]]
topic = "a"
[[ buffer . branch ]]
"topic" = "b"
policy.kind = 1
tags = [
  { node = "1" },
]

[[source]]
name = "one"
[[source.tag]]
node = "x"

[[source]]
name = "two"
[[source.tag]]
node = "y"
[[source.tag]]
node = "z"
[source.limits]
high = 2
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("plant", "name"), 4),
        (("plant", "nope"), 3),
        (("uplink", "kind"), None),
        (("buffer", "size_max"), 11),
        (("buffer", "branch", 0, "topic"), 14),
        (("buffer", "branch", 1, "topic"), 16),
        (("buffer", "branch", 1, "policy", "kind"), 17),
        (("buffer", "branch", 1, "tags", 0, "node"), 18),
        (("buffer", "branch", 1, "age"), 15),
        (("source", 0, "name"), 23),
        (("source", 0, "tag", 0, "node"), 25),
        (("source", 1, "name"), 28),
        (("source", 1, "tag", 0, "node"), 30),
        (("source", 1, "tag", 1, "node"), 32),
        (("source", 1, "limits", "high"), 34),
        (("source", 7, "name"), None),
    ],
)
def test_the_line_of_a_key_is_told_however_it_is_nested(path: tuple[str | int, ...], line: int | None) -> None:
    """Elements of arrays, arrays in them, quoted and dotted keys, comments, and texts that look like keys."""
    tomllib.loads(DOCUMENT)
    assert line_of(DOCUMENT, path) == line
