"""Topics: built, taken apart, and all of them written down."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InvalidInputError
from edge.model.identifiers import NAME_PATTERN
from edge.model.topics import EVENT_KINDS, ROOT, Topics, parse_command, parse_device

TOPICS = Topics("shop", "pi-1")
COMMAND = "0123456789abcdef"
DOCUMENT = Path(__file__).parents[2] / "docs" / "mqtt.md"


def every_topic() -> dict[str, str]:
    """Each public name of `Topics` with the topic it gives."""
    given_arguments = {"command": ("<op>", "<id>"), "result": ("<op>", "<id>"), "event": ("<kind>",)}
    given_arguments |= {"stream_in": ("<id>",), "stream_out": ("<id>",), "telemetry": ("<stream>",)}
    made: dict[str, str] = {}
    for name in vars(Topics):
        if not name.startswith("_") and name not in ("cluster", "device"):
            value = getattr(TOPICS, name)
            made[name] = value if isinstance(value, str) else value(*given_arguments[name])
    return made


@pytest.mark.parametrize("name", every_topic())
def test_the_document_names_every_topic(name: str) -> None:
    topic = every_topic()[name].replace("/shop/pi-1/", "/<c>/<d>/")
    assert f"`{topic}`" in DOCUMENT.read_text()


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_the_document_names_every_kind_of_event(kind: str) -> None:
    assert f"`{kind}`" in DOCUMENT.read_text()


def test_the_document_names_no_topic_that_there_is_not() -> None:
    known = {topic.replace("/shop/pi-1/", "/<c>/<d>/") for topic in every_topic().values()}
    named = set(re.findall(r"`(edge/v1/<c>/<d>/[^` ]+)`", DOCUMENT.read_text()))
    assert named <= known


def test_every_topic_of_a_device_is_in_its_branch() -> None:
    assert all(topic.startswith(f"{ROOT}/shop/pi-1/") for topic in every_topic().values())


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a+", "A", "-a", "a-", "a" * 65, "a\n", "ä", "a\0"])
def test_a_name_that_would_change_the_topic_is_refused(name: str) -> None:
    for cluster, device in ((name, "pi-1"), ("shop", name)):
        with pytest.raises(InvalidInputError):
            Topics(cluster, device)


def test_a_command_is_taken_apart_as_it_was_built() -> None:
    assert parse_command(TOPICS.command("stopTask", COMMAND)) == ("stopTask", COMMAND)


@pytest.mark.parametrize(
    "topic",
    [
        TOPICS.desired,
        f"edge/v1/shop/pi-1/cmd/logs/{COMMAND}/more",
        "edge/v1/shop/pi-1/cmd/logs/short",
        f"edge/v1/shop/pi-1/cmd/lo gs/{COMMAND}",
        f"edge/v1/shop/pi-1/cmd//{COMMAND}",
        f"edge/v1/shop/pi-1/cmd/logs/{COMMAND}\n",
        f"edge/v2/shop/pi-1/cmd/logs/{COMMAND}",
        "",
    ],
)
def test_what_is_no_command_is_none(topic: str) -> None:
    assert parse_command(topic) is None


NAMES = st.from_regex(NAME_PATTERN, fullmatch=True)


@given(cluster=NAMES, device=NAMES)
def test_a_device_is_found_again_from_any_of_its_topics(cluster: str, device: str) -> None:
    topics = Topics(cluster, device)
    assert parse_device(topics.reported) == (topics, "reported")
    assert parse_device(topics.event("task")) == (topics, "evt/task")


@given(st.text())
def test_any_text_is_a_devices_topic_or_none_of_ours(text: str) -> None:
    parse_command(text)
    parse_device(f"{ROOT}/{text}")


@pytest.mark.parametrize("topic", ["edge/v1/-a/b/c", "edge/v1/a/b-/c", "edge/v1/_ctl/x/status"])
def test_a_topic_with_names_that_are_none_is_none_of_ours(topic: str) -> None:
    assert parse_device(topic) is None
