"""What is asked at the device itself, through the agent's Unix socket: run, stop, list, describe.

A technician without a network can work here. Who asks is known by the kernel's word, what was done is told to the
fleet as an event that waits like any other, in the same transaction as the task it is about.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, assert_never

from edge.agent.engine.local_requests import Describe, LocalRequest, Ls, Peer, Run, Stop
from edge.agent.engine.ports import Clock
from edge.agent.engine.reconciler import Reconciler
from edge.agent.engine.steps import Identity
from edge.errors import InvalidInputError, NotFoundError
from edge.model.assignment import AcceptedDefinition, Assignment, device_task
from edge.model.describe import describe_task
from edge.model.identifiers import task_arn
from edge.model.task import Origin, StopCode, Task
from edge.model.task_definition import definition_digest, parse_task_definition

MAXIMUM_TASKS: Final = 32
"""Tasks begun at the device that have not stopped."""


def _unnoted(_what: str, **_fields: object) -> None:
    """For a desk without an audit trail."""


class Desk:
    """Answers; only the engine's thread touches it."""

    def __init__(
        self,
        reconciler: Reconciler,
        clock: Clock,
        identity: Identity,
        *,
        describe_event: Callable[[Mapping[str, Any]], tuple[str, bytes]],
        audit: Callable[..., None] = _unnoted,
    ) -> None:
        self._reconciler = reconciler
        self._clock = clock
        self._identity = identity
        self._describe_event = describe_event
        self._audit = audit
        self._definitions: Mapping[str, AcceptedDefinition] = {}

    def assign(self, assignment: Assignment) -> None:
        """Learn which task definitions there are."""
        self._definitions = assignment.definitions

    def answer(self, request: LocalRequest, peer: Peer) -> dict[str, Any]:
        """Do what is asked, and return the result.

        Raises:
            InvalidInputError: The definition is wrong, or the device's policy forbids it.
            NotFoundError: There is no such task or definition.
        """
        match request:
            case Run():
                return self._run(request, peer)
            case Stop():
                return self._stop(request, peer)
            case Ls():
                return {"tasks": [self._describe(task) for task in self._reconciler.tasks.values()]}
            case Describe():
                return {"tasks": [self._describe(self._find(request.task_id))]}
            case _:
                assert_never(request)

    def _run(self, request: Run, peer: Peer) -> dict[str, Any]:
        key, definition = self._given(request.definition) if request.definition else self._known(request)
        alive = [t for t in self._reconciler.tasks.values() if t.origin is Origin.LOCAL and not t.stopped_at]
        if len(alive) + request.count > MAXIMUM_TASKS:
            raise InvalidInputError(f"{len(alive)} tasks were begun at this device; {MAXIMUM_TASKS} are the most")
        tasks = [
            device_task(
                Origin.LOCAL,
                secrets.token_hex(16),
                key,
                definition,
                group=f"family:{key.rpartition(':')[0]}"[:255],
                started_by=peer.started_by,
                now=self._clock.now(),
            )
            for _ in range(request.count)
        ]
        for task in tasks:
            self._reconciler.begin(task)
        self._tell("runTask", peer, tasks, {"taskDefinition": key, "definitionDigest": definition.digest})
        return {"tasks": [self._describe(task) for task in tasks]}

    def _stop(self, request: Stop, peer: Peer) -> dict[str, Any]:
        task = self._find(request.task_id)
        reason = f"Stopped at the device by {peer.name}" + (f": {request.reason}" if request.reason else "")
        stopped = self._reconciler.stop(task.task_id, StopCode.USER_INITIATED, reason) or task
        self._tell("stopTask", peer, [task], {"reason": request.reason})
        return {"tasks": [self._describe(stopped)]}

    def _given(self, document: Mapping[str, Any]) -> tuple[str, AcceptedDefinition]:
        definition = parse_task_definition(dict(document))
        if any(container.secrets for container in definition.container_definitions):
            # Else whoever may start tasks here could read every secret of the device.
            raise InvalidInputError(
                "a task definition that is given at the device cannot name secrets",
                hint="Run one that the device has from the fleet, by its name.",
            )
        if definition.task_role_arn:
            raise InvalidInputError(
                "a task definition that is given at the device cannot have a role",
                hint="Who has which role is the fleet's to say: run one that the device has from it.",
            )
        problems = tuple(self._identity.policy.problems(definition))
        if problems:
            raise InvalidInputError("this device's policy forbids it", problems=problems)
        return f"{definition.family}:0", AcceptedDefinition(definition.to_wire(), definition_digest(definition))

    def _known(self, request: Run) -> tuple[str, AcceptedDefinition]:
        wanted = request.task_definition
        known = {
            task.definition_key: AcceptedDefinition(task.definition, task.definition_digest)
            for task in self._reconciler.tasks.values()
        } | dict(self._definitions)
        fitting = [key for key in known if wanted in (key, key.rpartition(":")[0])]
        if not fitting:
            raise NotFoundError(
                f"this device has no task definition {wanted}",
                hint=f"It has {', '.join(sorted(known)) or 'none'}; a file may be given instead.",
            )
        key = max(fitting, key=lambda one: int(one.rpartition(":")[2]))
        return key, known[key]

    def _find(self, prefix: str) -> Task:
        found = [task for task_id, task in self._reconciler.tasks.items() if task_id.startswith(prefix)]
        if not found:
            raise NotFoundError(f"this device has no task {prefix}", hint="`edge local ls` lists them.")
        if len(found) > 1:
            raise InvalidInputError(f"{prefix} is the beginning of {len(found)} tasks", hint="Write more digits.")
        return found[0]

    def _describe(self, task: Task) -> dict[str, Any]:
        return describe_task(task, self._identity.cluster, self._identity.device)

    def _tell(self, action: str, peer: Peer, tasks: list[Task], more: Mapping[str, Any]) -> None:
        detail = {
            "action": action,
            "uid": peer.uid,
            "pid": peer.pid,
            "user": peer.name,
            "taskArns": [task_arn(self._identity.cluster, task.task_id) for task in tasks],
            **more,
        }
        self._reconciler.change.events.append(self._describe_event(detail))
        who = {"user": peer.name, "uid": peer.uid}
        self._audit("local", action=action, outcome="DONE", tasks=[task.task_id for task in tasks], **who, **more)
