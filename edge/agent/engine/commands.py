"""Commands over MQTT: stored before they are answered, done once, answered again as often as they come.

A command that was under way when the agent died is taken up again: `stopTask`, `describe` and `pullImage` may be done
twice without harm; `updateAgent` went on by itself meanwhile, and is asked how it ended; a log that was followed has
lost its follower, and ends FAILED.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from edge.agent.engine.log_streams import LogRequest
from edge.agent.engine.reconciler import Reconciler
from edge.agent.store.state import Change, StateStore, StoredCommand
from edge.errors import InvalidInputError
from edge.model.assignment import STOPPED_BY_OPERATOR_REASON
from edge.model.describe import describe_task
from edge.model.documents import Command, CommandStatus, Operation
from edge.model.identifiers import TaskId
from edge.model.runtime_update import DEFAULT_WINDOW_SECONDS, BundleReference, UpdateRequest
from edge.model.task import StopCode

_log = logging.getLogger(__name__)

_ENDED: Final = frozenset(
    {CommandStatus.SUCCEEDED, CommandStatus.FAILED, CommandStatus.REJECTED, CommandStatus.EXPIRED}
)
_DESCRIBED_BYTES: Final = 128 * 1024
"""Half of what one document may have: an answer must fit beside its envelope, also with 256 tasks."""


class _Parameters(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)


class _StopTask(_Parameters):
    task_id: TaskId
    reason: Annotated[str, Field(max_length=255)] = ""


class _Describe(_Parameters):
    task_id: TaskId | None = None


class _PullImage(_Parameters):
    image: Annotated[str, Field(min_length=1, max_length=512)]


class _UpdateAgent(_Parameters):
    ref: BundleReference | None = None
    file: str | None = None
    window_seconds: int = DEFAULT_WINDOW_SECONDS


class _Logs(_Parameters):
    task_id: TaskId
    container: str | None = None
    tail: Annotated[int, Field(ge=0, le=100_000)] | None = None
    follow: bool = False


_MODELS: Final[Mapping[Operation, type[_Parameters]]] = {
    Operation.STOP_TASK: _StopTask,
    Operation.DESCRIBE: _Describe,
    Operation.PULL_IMAGE: _PullImage,
    Operation.LOGS: _Logs,
    Operation.UPDATE_AGENT: _UpdateAgent,
}


class Bench(Protocol):
    """What takes time, done elsewhere; the end comes back as `Commands.ended`."""

    def pull_image(self, command_id: str, reference: str) -> None:
        """Fetch an image whether or not it is there."""
        ...

    def update_agent(self, request: UpdateRequest) -> None:
        """Put another version of `edge` in this one's place; the request's id is the command's."""
        ...

    def read_log(self, command_id: str, request: LogRequest) -> None:
        """Read lines that were written."""
        ...

    def follow_log(self, command_id: str, request: LogRequest) -> bool:
        """Stream lines as they are written; False when there are too many followers already."""
        ...


class Commands:
    """Accepts commands, has them done and keeps their answers; only the engine's thread touches it."""

    def __init__(
        self,
        store: StateStore,
        reconciler: Reconciler,
        bench: Bench,
        names: tuple[str, str],
        answer: Callable[[StoredCommand], None],
    ) -> None:
        self._store = store
        self._reconciler = reconciler
        self._bench = bench
        self._cluster, self._device = names
        self._answer = answer
        self._open: dict[str, StoredCommand] = {}

    def known(self, command_id: str) -> StoredCommand | None:
        """Return the command of that key as it stands, if it came before."""
        return self._open.get(command_id) or self._store.command(command_id)

    def accept(self, command: Command, response_topic: str, correlation: bytes) -> StoredCommand:
        """Check a verified command, and return it as it must be stored before its PUBACK.

        Raises:
            InvalidInputError: The device does not know the operation, or its parameters are wrong.
        """
        parameters = _parameters(command.op, command.parameters)
        if isinstance(parameters, _UpdateAgent):
            _update_request(command.id, parameters)
        return StoredCommand(
            command.id,
            command.op,
            command.parameters,
            CommandStatus.ACCEPTED,
            response_topic=response_topic,
            correlation=correlation,
        )

    def begin(self, command: StoredCommand, change: Change) -> None:
        """Do a stored command, or have it done."""
        self._open[command.id] = command
        parameters = _parameters(command.op, command.parameters)
        match parameters:
            case _StopTask():
                self._stop_task(command.id, parameters, change)
            case _Describe():
                self._describe(command.id, parameters, change)
            case _PullImage():
                self._bench.pull_image(command.id, parameters.image)
            case _UpdateAgent():
                self._bench.update_agent(_update_request(command.id, parameters))
            case _Logs():
                self._logs(command, parameters, change)
            case _:
                raise InvalidInputError(f"{command.op} is not done here")

    def resume(self, change: Change) -> None:
        """Take up what an agent before us did not finish."""
        for command in self._store.unfinished_commands():
            if command.op == Operation.LOGS and command.parameters.get("follow"):
                self._open[command.id] = command
                self.ended(command.id, CommandStatus.FAILED, {}, "the agent was restarted", change)
            else:
                self.begin(command, change)

    def ended(
        self, command_id: str, status: CommandStatus, result: Mapping[str, Any], reason: str, change: Change
    ) -> None:
        """A command got on: keep its answer, and say it."""
        command = self._open.get(command_id)
        if command is None:
            return
        command = replace(command, status=status, result=result, reason=reason, delivered=False)
        change.commands[command_id] = command
        if status in _ENDED:
            del self._open[command_id]
        else:
            self._open[command_id] = command
        self._answer(command)

    def _stop_task(self, command_id: str, parameters: _StopTask, change: Change) -> None:
        reason = parameters.reason or STOPPED_BY_OPERATOR_REASON
        task = self._reconciler.stop(parameters.task_id, StopCode.USER_INITIATED, reason)
        if task is None:
            self._unknown_task(command_id, parameters.task_id, change)
            return
        result = {"task": describe_task(task, self._cluster, self._device)}
        self.ended(command_id, CommandStatus.SUCCEEDED, result, "", change)

    def _describe(self, command_id: str, parameters: _Describe, change: Change) -> None:
        tasks = self._reconciler.tasks
        if parameters.task_id is not None and parameters.task_id not in tasks:
            self._unknown_task(command_id, parameters.task_id, change)
            return
        chosen = list(tasks.values()) if parameters.task_id is None else [tasks[parameters.task_id]]
        result: dict[str, Any] = {"tasks": []}
        room = _DESCRIBED_BYTES
        for task in chosen:
            described = describe_task(task, self._cluster, self._device)
            room -= len(json.dumps(described))
            if room < 0:
                result["truncated"] = True
                break
            result["tasks"].append(described)
        self.ended(command_id, CommandStatus.SUCCEEDED, result, "", change)

    def _logs(self, command: StoredCommand, parameters: _Logs, change: Change) -> None:
        task = self._reconciler.tasks.get(parameters.task_id)
        if task is None:
            self._unknown_task(command.id, parameters.task_id, change)
            return
        sources = tuple(
            (c.name, c.runtime_id)
            for c in task.containers
            if parameters.container in (None, c.name) and c.runtime_id and not c.removed
        )
        if not sources:
            what = f"container {parameters.container}" if parameters.container else "container with a log"
            reason = f"task {parameters.task_id} has no {what} on this device now"
            self.ended(command.id, CommandStatus.FAILED, {}, reason, change)
            return
        request = LogRequest(sources, parameters.tail)
        if not parameters.follow:
            self._bench.read_log(command.id, request)
        elif self._bench.follow_log(command.id, request):
            self.ended(command.id, CommandStatus.RUNNING, {"streamId": command.id}, "", change)
        else:
            self.ended(command.id, CommandStatus.FAILED, {}, "too many logs are followed already", change)

    def _unknown_task(self, command_id: str, task_id: str, change: Change) -> None:
        self.ended(command_id, CommandStatus.FAILED, {}, f"this device has no task {task_id}", change)


def _update_request(command_id: str, parameters: _UpdateAgent) -> UpdateRequest:
    try:
        return UpdateRequest(
            id=command_id, ref=parameters.ref, file=parameters.file, window_seconds=parameters.window_seconds
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidInputError(f"the parameters of updateAgent are wrong: {first['msg']}") from error


def _parameters(op: str, parameters: Mapping[str, Any]) -> _Parameters:
    try:
        operation = Operation(op)
    except ValueError as error:
        known = ", ".join(sorted(Operation))
        raise InvalidInputError(f"this device does not know the command {op}; it knows {known}") from error
    try:
        return _MODELS[operation].model_validate(dict(parameters))
    except ValidationError as error:
        problems = tuple(
            ("parameters." + ".".join(str(part) for part in problem["loc"]), problem["msg"])
            for problem in error.errors(include_url=False, include_input=False)
        )
        first = f"{problems[0][0]}: {problems[0][1]}"
        raise InvalidInputError(f"the parameters of {op} are wrong: {first}", problems=problems) from error
