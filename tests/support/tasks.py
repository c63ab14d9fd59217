"""Tasks for tests, as short as a test wants them."""

from typing import Any

from edge.model.assignment import AcceptedDefinition, new_task
from edge.model.documents import DesiredTask
from edge.model.task import Task

NOW = "2026-11-23T12:00:00.000Z"
LATER = "2026-11-23T12:00:05.000Z"
TASK_ID = "0123456789abcdef0123456789abcdef"


def container_definition(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": f"registry.example/{name}:1", "memory": 64, "essential": True, **fields}


def make_task(*containers: dict[str, Any], task_id: str = TASK_ID, **fields: Any) -> Task:
    definitions = list(containers) or [container_definition("app")]
    wire = {"family": "shop", "containerDefinitions": definitions, **fields}
    desired = DesiredTask(task_id=task_id, task_definition="shop:1")
    return new_task(desired, AcceptedDefinition(wire, "d" * 64), NOW)
