"""Commands against a device that has too much to tell."""

import json
from contextlib import closing
from pathlib import Path
from typing import cast

from edge.agent.engine.commands import Bench, Commands
from edge.agent.engine.reconciler import Reconciler
from edge.agent.store.state import Change, StateStore, StoredCommand
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES, MAXIMUM_TASKS, CommandStatus
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
