"""Commands against a device that has too much to tell."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from edge.agent.engine.commands import Bench, Commands
from edge.agent.engine.reconciler import Reconciler
from edge.agent.store.state import Change, StateStore, StoredCommand
from edge.errors import InvalidInputError
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES, MAXIMUM_TASKS, Command, CommandStatus
from edge.model.runtime_update import UpdateRequest
from edge.model.task import Task
from tests.support.tasks import container_definition, make_task


class _Holder:
    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = {task.task_id: task for task in tasks}


def describe(folder: Path, tasks: list[Task]) -> StoredCommand:
    answers: list[StoredCommand] = []
    holder = cast("Reconciler", _Holder(tasks))
    with closing(StateStore(folder / "state.db")) as store:
        commands = Commands(store, holder, cast("Bench", None), ("default", "pi-1"), answers.append)
        commands.begin(StoredCommand("12345678", "describe", {}, CommandStatus.ACCEPTED), Change())
    return answers[-1]


def test_a_device_with_more_tasks_than_fit_tells_as_many_as_fit_and_says_so(tmp_path: Path) -> None:
    containers = [container_definition(f"container-{number}") for number in range(10)]
    tasks = [make_task(*containers, task_id=f"{number:032x}") for number in range(MAXIMUM_TASKS)]
    answer = describe(tmp_path, tasks)
    assert answer.result["truncated"]
    assert 10 < len(answer.result["tasks"]) < MAXIMUM_TASKS
    assert len(json.dumps(answer.result)) < MAXIMUM_DOCUMENT_BYTES


def test_a_device_whose_tasks_fit_tells_them_all(tmp_path: Path) -> None:
    answer = describe(tmp_path, [make_task(task_id=f"{number:032x}") for number in range(3)])
    assert len(answer.result["tasks"]) == 3
    assert "truncated" not in answer.result


class _Updating:
    """Takes updates up, and does nothing of them."""

    def __init__(self) -> None:
        self.asked: list[UpdateRequest] = []

    def update_agent(self, request: UpdateRequest) -> None:
        self.asked.append(request)


REF = {"url": "registry.example/edge", "digest": f"sha256:{'ab' * 32}", "size": 10}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"ref": REF, "file": "/x"},
        {"file": "relative"},
        {"file": "/x", "windowSeconds": 5},
        {"ref": {**REF, "digest": "latest"}},
        {"ref": {**REF, "size": 1 << 40}},
        {"file": "/x", "allowDowngrade": True},
    ],
)
def test_an_update_that_does_not_say_what_it_must_is_refused_before_it_is_stored(
    tmp_path: Path, parameters: dict[str, Any]
) -> None:
    with closing(StateStore(tmp_path / "state.db")) as store:
        holder = cast("Reconciler", _Holder([]))
        commands = Commands(store, holder, cast("Bench", None), ("default", "pi-1"), lambda _: None)
        with pytest.raises(InvalidInputError):
            commands.accept(_update(parameters), "", b"")


def test_an_update_is_asked_for_again_by_the_agent_that_comes_after(tmp_path: Path) -> None:
    bench, answers = _Updating(), list[StoredCommand]()
    holder = cast("Reconciler", _Holder([]))
    with closing(StateStore(tmp_path / "state.db")) as store:
        commands = Commands(store, holder, cast("Bench", bench), ("default", "pi-1"), answers.append)
        stored = commands.accept(_update({"ref": REF}), "", b"")
        store.commit(Change(commands={stored.id: stored}))
        commands.begin(stored, Change())
        next_one = Commands(store, holder, cast("Bench", bench), ("default", "pi-1"), answers.append)
        next_one.resume(Change())
    assert [one.id for one in bench.asked] == ["12345678", "12345678"]
    assert bench.asked[0] == bench.asked[1]


def _update(parameters: dict[str, Any]) -> Command:
    return Command(
        cluster="default",
        device="pi-1",
        op="updateAgent",
        id="12345678",
        issued_at="2026-01-01T00:00:00Z",
        expires_at="2026-01-01T00:01:00Z",
        lifetime_seconds=60,
        parameters=parameters,
    )
