import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import InvalidInputError
from edge.model.task_definition import definition_digest, parse_task_definition
from edge.model.task_definition_fields import CONTAINER_REFUSED, LINUX_REFUSED, TASK_REFUSED, VOLUME_REFUSED

EXAMPLES = sorted(Path("tests/data/task-definitions").glob("*.json"))
GOOD: dict[str, Any] = {
    "family": "shop",
    "containerDefinitions": [
        {"name": "web", "image": "registry.example/web:1", "memory": 64, "portMappings": [{"containerPort": 8080}]},
        {"name": "side", "image": "registry.example/side:1", "memory": 32, "essential": False},
    ],
    "volumes": [{"name": "data"}],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    place: Any = document
    for part in parents:
        place = place[int(part)] if part.isdecimal() else place.setdefault(part, {})
    place[int(last) if last.isdecimal() else last] = value
    return document


def problems(document: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidInputError) as caught:
        parse_task_definition(document)
    return dict(caught.value.problems)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_real_definitions_are_read_and_their_normalized_form_means_the_same(path: Path) -> None:
    definition = parse_task_definition(json.loads(path.read_text()))
    again = parse_task_definition(definition.to_wire())
    assert again == definition
    assert definition_digest(again) == definition_digest(definition)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("name", sorted(TASK_REFUSED))
def test_a_task_field_that_is_not_supported_is_refused_by_name_unless_it_is_empty(name: str) -> None:
    assert name in problems(changed(name, "something"))[name]
    empties: tuple[Any, ...] = (None, [], {}, False, "")
    for empty in empties:
        parse_task_definition(changed(name, empty))


@pytest.mark.parametrize("name", sorted(CONTAINER_REFUSED))
def test_a_container_field_that_is_not_supported_is_refused_by_name_unless_it_is_empty(name: str) -> None:
    path = f"containerDefinitions.0.{name}"
    assert name in problems(changed(path, ["something"]))[f"containerDefinitions[0].{name}"]
    parse_task_definition(changed(path, []))


@pytest.mark.parametrize("name", sorted(LINUX_REFUSED))
def test_a_linux_parameter_that_is_not_supported_is_refused(name: str) -> None:
    found = problems(changed(f"containerDefinitions.0.linuxParameters.{name}", 5))
    assert f"containerDefinitions[0].linuxParameters.{name}" in found


@pytest.mark.parametrize("name", sorted(VOLUME_REFUSED))
def test_a_volume_that_only_aws_has_is_refused(name: str) -> None:
    assert f"volumes[0].{name}" in problems(changed(f"volumes.0.{name}", {"fileSystemId": "fs-1"}))


def test_awsvpc_is_refused_in_the_words_of_ecs() -> None:
    assert "awsvpc network mode is not supported" in problems(changed("networkMode", "awsvpc"))["networkMode"]


def test_an_unknown_field_is_refused_with_the_nearest_known_one() -> None:
    found = problems(changed("containerDefinitions.0.entrypoint", ["x"]))
    assert "did you mean entryPoint" in found["containerDefinitions[0].entrypoint"]


def test_everything_wrong_is_told_at_once() -> None:
    document = changed("containerDefinitions.0.memory", "lots")
    document["containerDefinitions"][1].update(cpu=-1, dnsSearchDomains=["lan"])
    document["family"] = "no spaces allowed"
    assert problems(document).keys() == {
        "family",
        "containerDefinitions[0].memory",
        "containerDefinitions[1].cpu",
        "containerDefinitions[1].dnsSearchDomains",
    }


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("containerDefinitions.0.essential", False, "containerDefinitions"),
        ("containerDefinitions.1.name", "web", "containerDefinitions"),
        ("containerDefinitions.0.memoryReservation", 65, "containerDefinitions[0].memoryReservation"),
        ("memory", "64", "containerDefinitions"),
        ("containerDefinitions.0.mountPoints", [{"sourceVolume": "no", "containerPath": "/x"}], "mountPoints"),
        ("containerDefinitions.0.volumesFrom", [{"sourceContainer": "no"}], "volumesFrom"),
        ("containerDefinitions.0.volumesFrom", [{"sourceContainer": "web"}], "volumesFrom"),
        ("containerDefinitions.1.portMappings", [{"containerPort": 1, "hostPort": 22}], "hostPort"),
        ("containerDefinitions.0.portMappings", [{"containerPort": 70000}], "containerPort"),
        ("containerDefinitions.0.portMappings", [{"containerPortRange": "1-5"}], "containerPortRange"),
        ("requiresCompatibilities", ["FARGATE"], "requiresCompatibilities"),
        ("runtimePlatform", {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}, "operatingSystemFamily"),
        ("containerDefinitions.0.ulimits", [{"name": "nofile", "softLimit": 5, "hardLimit": 4}], "softLimit"),
        ("containerDefinitions.0.linuxParameters", {"capabilities": {"add": ["CAP_CHOWN"]}}, "capabilities"),
        ("containerDefinitions.0.logConfiguration", {"logDriver": "splunk"}, "logDriver"),
        ("containerDefinitions.0.logConfiguration", {"logDriver": "awslogs"}, "awslogs-group"),
        (
            "containerDefinitions.0.logConfiguration",
            {"logDriver": "awslogs", "options": {"awslogs-group": "g", "mode": "blocking"}},
            "options.mode",
        ),
        (
            "containerDefinitions.0.logConfiguration",
            {"logDriver": "awslogs", "options": {"awslogs-group": "g", "max-buffer-size": "much"}},
            "options.max-buffer-size",
        ),
        ("containerDefinitions.0.logConfiguration", {"logDriver": "none", "options": {"a": "b"}}, "options"),
        ("containerDefinitions.0.stopTimeout", 1, "stopTimeout"),
        ("containerDefinitions.0.image", "two words", "image"),
        ("volumes.0", {"name": "d", "dockerVolumeConfiguration": {"autoprovision": True}}, "autoprovision"),
    ],
)
def test_a_contradiction_is_found_where_it_is(path: str, value: Any, where: str) -> None:
    document = changed(path, value)
    if path == "memory":
        where = "memory"
    assert any(where in found for found in problems(document)), problems(document)


def test_in_host_mode_a_port_is_what_it_is() -> None:
    document = changed("networkMode", "host")
    parse_task_definition(document)
    document["containerDefinitions"][0]["portMappings"][0]["hostPort"] = 9090
    assert "containerDefinitions[0].portMappings[0].hostPort" in problems(document)


def test_task_sizes_may_be_written_as_ecs_writes_them() -> None:
    definition = parse_task_definition({**GOOD, "cpu": ".5 vCPU", "memory": "1 GB"})
    assert (definition.cpu, definition.memory) == (512, 1024)
    definition = parse_task_definition({**GOOD, "cpu": "256", "memory": "512"})
    assert (definition.cpu, definition.memory) == (256, 512)


def test_two_definitions_have_one_digest_when_they_mean_the_same() -> None:
    same = {**GOOD, "networkMode": "bridge", "volumes": [{"name": "data", "host": None}], "status": "ACTIVE"}
    assert definition_digest(parse_task_definition(same)) == definition_digest(parse_task_definition(GOOD))
    other = changed("containerDefinitions.0.memory", 65)
    assert definition_digest(parse_task_definition(other)) != definition_digest(parse_task_definition(GOOD))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PATHS = st.sampled_from(
    [
        "family", "networkMode", "cpu", "memory", "containerDefinitions", "volumes", "runtimePlatform", "volumes.0",
        "requiresCompatibilities", "containerDefinitions.0", "containerDefinitions.0.name",
        "containerDefinitions.0.image", "containerDefinitions.0.command", "containerDefinitions.0.environment",
        "containerDefinitions.0.portMappings", "containerDefinitions.0.portMappings.0",
        "containerDefinitions.0.mountPoints", "containerDefinitions.0.volumesFrom",
        "containerDefinitions.0.linuxParameters", "containerDefinitions.0.logConfiguration",
        "containerDefinitions.0.logConfiguration.options", "containerDefinitions.0.ulimits",
        "volumes.0.host", "volumes.0.dockerVolumeConfiguration",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(PATHS, JSON)
def test_whatever_stands_in_a_field_it_is_accepted_or_refused_and_never_crashes(path: str, value: Any) -> None:
    try:
        definition = parse_task_definition(changed(path, value))
    except InvalidInputError as error:
        assert error.problems  # noqa: PT017 - either outcome is right
    else:
        assert parse_task_definition(definition.to_wire()) == definition


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=12), JSON, max_size=5))
def test_any_object_is_refused_or_read(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_task_definition(document)
    assert caught.value.problems
