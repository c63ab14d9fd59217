"""Reading an ECS task definition from a file and having it judged."""

from edge.cli.session import read_json_object
from edge.model.task_definition import TaskDefinition, parse_task_definition


def read_task_definition(name: str) -> TaskDefinition:
    """Read and judge the file `name`, `-` for stdin.

    Raises:
        InvalidInputError: It is no task definition that this project can run; `problems` names every field.
        StoreError: It cannot be read.
    """
    return parse_task_definition(read_json_object(name))
