"""`docs/task-definitions.md` says what the code says, in both directions."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import pytest
from pydantic import BaseModel

from edge.model import task_definition as definition
from edge.model import task_definition_fields as fields
from edge.model.container_spec_builder import DEFAULT_LOG_BYTES, DEFAULT_NOFILE
from edge.model.task_definition_rules import LOG_OPTIONS, RESERVED_PORTS

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "task-definitions.md"
NONE: Final[Mapping[str, str]] = {}

SECTIONS: Final[Mapping[str, tuple[type[BaseModel], frozenset[str], frozenset[str], Mapping[str, str]]]] = {
    "Task": (definition.TaskDefinition, fields.TASK_READ, fields.TASK_TOLERATED, fields.TASK_REFUSED),
    "containerDefinitions": (
        definition.ContainerDefinition,
        fields.CONTAINER_READ,
        frozenset(),
        fields.CONTAINER_REFUSED,
    ),
    "linuxParameters": (definition.LinuxParameters, fields.LINUX_READ, frozenset(), fields.LINUX_REFUSED),
    "portMappings": (
        definition.PortMappingDefinition,
        fields.PORT_READ,
        fields.PORT_TOLERATED,
        fields.PORT_REFUSED,
    ),
    "volumes": (definition.Volume, fields.VOLUME_READ, frozenset(), fields.VOLUME_REFUSED),
    "logConfiguration": (definition.LogConfiguration, fields.LOG_READ, frozenset(), fields.LOG_REFUSED),
    "runtimePlatform": (definition.RuntimePlatform, fields.RUNTIME_READ, frozenset(), NONE),
}
OBJECTS: Final[Mapping[str, type[BaseModel]]] = {
    "environment": definition.KeyValue,
    "secrets": definition.SecretDefinition,
    "mountPoints": definition.MountPoint,
    "volumesFrom": definition.VolumeFrom,
    "extraHosts": definition.ExtraHost,
    "ulimits": definition.UlimitDefinition,
    "capabilities": definition.Capabilities,
    "devices": definition.DeviceDefinition,
    "tmpfs": definition.Tmpfs,
    "host": definition.HostVolume,
    "dockerVolumeConfiguration": definition.DockerVolume,
}


def tables(section: str) -> list[list[list[str]]]:
    """Return the tables of a section: rows of cells, heads left out."""
    page = PAGE.read_text()
    text = re.split(r"^## ", page.split(f"\n## {section}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    found: list[list[list[str]]] = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        found.append(rows[2:])
    return found


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def aliases(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def of_kind(rows: Iterable[list[str]], kind: str) -> dict[str, str]:
    return {cells[0].strip("`"): cells[2] for cells in rows if cells[1] == kind}


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_lists_exactly_the_fields_that_are_read_and_tolerated(section: str) -> None:
    _, read, tolerated, _ = SECTIONS[section]
    rows = tables(section)[0]
    assert set(of_kind(rows, "read")) == read
    assert set(of_kind(rows, "tolerated")) == tolerated


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_gives_each_refusal_in_the_words_of_the_code(section: str) -> None:
    rows = tables(section)[0]
    assert of_kind(rows, "refused") == dict(SECTIONS[section][3])


@pytest.mark.parametrize("section", SECTIONS)
def test_each_row_of_the_page_is_of_one_kind_and_no_field_stands_twice(section: str) -> None:
    rows = tables(section)[0]
    assert {cells[1] for cells in rows} <= {"read", "tolerated", "refused"}
    assert len({cells[0] for cells in rows}) == len(rows)


@pytest.mark.parametrize("section", SECTIONS)
def test_what_is_read_has_a_place_in_the_model(section: str) -> None:
    model, read, _, _ = SECTIONS[section]
    assert aliases(model) == read


def test_the_page_lists_the_fields_of_each_object_in_a_list() -> None:
    page = {cells[0].strip("`"): names(cells[1]) for cells in tables("Objects in lists")[0]}
    assert page == {name: aliases(model) for name, model in OBJECTS.items()}


def test_the_page_lists_the_options_of_each_log_driver() -> None:
    page = {cells[0].strip("`"): names(cells[1]) - {"10m"} for cells in tables("logConfiguration")[1]}
    assert page == {driver: set(options) for driver, options in LOG_OPTIONS.items()}


def test_the_page_has_the_figures_of_the_code() -> None:
    differences = {cells[0]: cells[1] for cells in tables("Differences from ECS")[0]}
    ports = differences["Reserved host ports (TCP)"].partition(" are refused")[0]
    assert {int(port) for port in ports.split(", ")} == RESERVED_PORTS
    assert f"{DEFAULT_LOG_BYTES // definition.MEGABYTE} MiB" in differences["Log without `logConfiguration`"]
    assert f"soft {DEFAULT_NOFILE.soft}, hard {DEFAULT_NOFILE.hard}" in differences["`nofile` without `ulimits`"]
    container = of_kind(tables("containerDefinitions")[0], "read")
    assert f"{definition.DEFAULT_STOP_TIMEOUT} when left out" in container["stopTimeout"]
    task = of_kind(tables("Task")[0], "read")
    assert f"1 to {definition.MAXIMUM_CONTAINERS} containers" in task["containerDefinitions"]
