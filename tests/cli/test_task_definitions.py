import json
from pathlib import Path
from typing import Any

import pytest

from edge.model.task_definition import parse_task_definition
from tests.cli.bench import DEFINITION, Bench


def file_of(tmp_path: Path, document: Any) -> str:
    path = tmp_path / "app.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_registering_counts_revisions_up(bench: Bench, tmp_path: Path) -> None:
    ran = bench.edge("task-definition", "register", file_of(tmp_path, DEFINITION))
    assert (ran.code, ran.out) == (0, "app:2\n")
    listed = json.loads(bench.edge("task-definition", "ls", "--family", "app", "--output", "json").out)
    assert listed["taskDefinitionArns"] == [f"arn:edge:ecs:::task-definition/app:{number}" for number in (1, 2)]


def test_what_is_shown_can_be_registered_again(bench: Bench, tmp_path: Path) -> None:
    bench.edge("task-definition", "register", file_of(tmp_path, DEFINITION))
    shown = json.loads(bench.edge("task-definition", "show", "app").out)
    assert shown["taskDefinition"]["revision"] == 2
    assert bench.edge("task-definition", "register", file_of(tmp_path, shown)).out == "app:3\n"


def test_what_was_registered_is_what_a_device_reads(bench: Bench, tmp_path: Path) -> None:
    bench.edge("task-definition", "register", file_of(tmp_path, DEFINITION))
    device = bench.device()
    assert bench.edge("task", "run", "app").code == 0
    assert parse_task_definition(device.revisions[-1].task_definitions["app:2"]) == parse_task_definition(DEFINITION)


def test_every_field_that_cannot_be_honoured_is_named(bench: Bench, tmp_path: Path) -> None:
    document = DEFINITION | {"networkMode": "awsvpc", "family": "a b"}
    for command in ("check", "register"):
        words = ["task-definition", command, file_of(tmp_path, document)]
        ran = bench.edge(*words) if command == "register" else bench.edge_without_fleet(*words)
        assert ran.code == 2
        assert "networkMode: " in ran.err
        assert "family: " in ran.err
    assert "app:2" not in bench.edge("task-definition", "ls").out


def test_a_good_file_is_told_to_be_good(bench: Bench, tmp_path: Path) -> None:
    ran = bench.edge_without_fleet("task-definition", "check", file_of(tmp_path, DEFINITION))
    assert (ran.code, ran.out) == (0, "app: good, 1 container\n")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"x"', "[" * 100_000, " " * (1 << 20) + "{}"])
def test_what_is_no_task_definition_is_refused(bench: Bench, tmp_path: Path, text: str) -> None:
    path = tmp_path / "app.json"
    path.write_text(text)
    ran = bench.edge("task-definition", "register", str(path))
    assert ran.code == 2
    assert ran.err.startswith("edge: ")


def test_a_file_that_is_not_there_is_told(bench: Bench, tmp_path: Path) -> None:
    ran = bench.edge("task-definition", "register", str(tmp_path / "away.json"))
    assert (ran.code, "No such file" in ran.err) == (3, True)


def test_a_task_definition_of_another_name_is_not_found(bench: Bench) -> None:
    assert bench.edge("task-definition", "show", "other").code == 3
