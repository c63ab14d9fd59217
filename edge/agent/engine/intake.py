"""Judging what comes in: bytes are bounded, then verified, then parsed, in that order; nothing is done here.

Everything raised is a refusal with its reason. The last good state is untouched by it.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from edge.errors import InvalidInputError, RefusedError, SupersededError, TrustError
from edge.model.assignment import AcceptedDefinition, Assignment
from edge.model.device_policy import DevicePolicy
from edge.model.documents import (
    COMMAND_TYPE,
    DESIRED_STATE_TYPE,
    HEAD_TYPE,
    MAXIMUM_DOCUMENT_BYTES,
    Command,
    DesiredState,
    Head,
)
from edge.model.schedule import schedule_problems
from edge.model.service import service_problems
from edge.model.service_documents import DesiredSchedule, DesiredService
from edge.model.task import Task
from edge.model.task_definition import definition_digest, parse_task_definition
from edge.model.trust import TrustedSet, Verified

D = TypeVar("D", DesiredState, Command, Head)
_MAXIMUM_PROBLEMS: Final = 20
"""Problems told about one document; more would not be read."""


class ExpiredError(RefusedError):
    """A command came too late."""


@dataclass(frozen=True, slots=True)
class JudgedState:
    """A desired state that may come into force, the verified bytes it was read from, for the store, and who signed."""

    assignment: Assignment
    payload: bytes
    key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judge:
    """Who may say what to this device.

    Attributes:
        trust: Whose signatures count.
        policy: What the device's owner allows, whoever signed it.
    """

    trust: TrustedSet
    cluster: str
    device: str
    policy: DevicePolicy

    def desired_state(self, data: bytes, *, in_force: int, tasks: Mapping[str, Task]) -> JudgedState:
        """Return the desired state in an envelope.

        Args:
            data: The envelope's bytes.
            in_force: The highest revision that a trusted key has signed here; 0 for none.
            tasks: The tasks known, whose definitions cannot change under them.

        Raises:
            TrustError: Malformed, not signed by whom it must be, or meant for another device.
            SupersededError: Its revision is in force already, or older.
            InvalidInputError: Signed, and still wrong; `problems` says where.
        """
        found = self._open(data, DESIRED_STATE_TYPE)
        assignment = self.read(found.payload, in_force=in_force, tasks=tasks)
        return JudgedState(assignment, found.payload, found.key_ids)

    def read(self, payload: bytes, *, in_force: int, tasks: Mapping[str, Task]) -> Assignment:
        """Return the assignment in a desired state that was verified, now or before it was stored.

        Raises:
            SupersededError, InvalidInputError, TrustError: As `desired_state`, save for signatures.
        """
        state = _parse(DesiredState, payload)
        self._check_address(state.cluster, state.device)
        if state.revision <= in_force:
            raise SupersededError(f"revision {state.revision} is not newer than revision {in_force}, which is in force")
        problems = [
            (name, f"this version of edge does not know {name}; update the device first")
            for name in ("policies",)
            if getattr(state, name)
        ]
        definitions = self._definitions(state, problems)
        _check_tasks(state, definitions, tasks, problems)
        problems.extend(device_work_problems(state, definitions))
        problems.extend(_secrets_twice(state))
        if problems:
            raise InvalidInputError(
                f"revision {state.revision} has {len(problems)} problem{'s' * (len(problems) > 1)}",
                problems=tuple(problems[:_MAXIMUM_PROBLEMS]),
            )
        return Assignment(
            state.revision,
            tuple(state.tasks),
            definitions,
            tuple(state.services),
            tuple(state.schedules),
            tuple(state.secrets),
        )

    def command(
        self, data: bytes, *, op: str, command_id: str, now: str, clock_is_good: bool
    ) -> tuple[Command, tuple[str, ...]]:
        """Return the command in an envelope that came on the topic of `op` and `command_id`, and which keys signed it.

        Raises:
            TrustError: Malformed, not signed by whom it must be, or meant for another device or topic.
            ExpiredError: It came too late, by a clock that is known good.
            InvalidInputError: Signed, and still wrong.
        """
        found = self._open(data, COMMAND_TYPE)
        command = _parse(Command, found.payload)
        self._check_address(command.cluster, command.device)
        if (command.op, command.id) != (op, command_id):
            raise TrustError(f"the command is {command.op}/{command.id}, its topic says {op}/{command_id}")
        if clock_is_good and _instant(command.expires_at) < _instant(now):
            raise ExpiredError(f"the command expired at {command.expires_at}; it is {now}")
        return command, found.key_ids

    def head(self, data: bytes, *, nonce: str) -> Head:
        """Return the head in an envelope that answers the question of `nonce`.

        Raises:
            TrustError: Malformed, not signed by whom it must be, meant for another device, or an answer to another
                question.
            InvalidInputError: Signed, and still wrong.
        """
        head = _parse(Head, self._open(data, HEAD_TYPE).payload)
        self._check_address(head.cluster, head.device)
        if not nonce or head.nonce != nonce:
            raise TrustError("the head answers another question than the one that was asked")
        return head

    def _open(self, data: bytes, payload_type: str) -> Verified:
        if len(data) > MAXIMUM_DOCUMENT_BYTES:
            raise TrustError(f"the document has {len(data)} bytes; {MAXIMUM_DOCUMENT_BYTES} are the most")
        if not data:
            raise TrustError("the document is empty; to stop tasks, send a newer revision without them")
        return self.trust.verify(data, payload_type)

    def _check_address(self, cluster: str, device: str) -> None:
        if (cluster, device) != (self.cluster, self.device):
            raise TrustError(f"the document is for {cluster}/{device}, this is {self.cluster}/{self.device}")

    def _definitions(self, state: DesiredState, problems: list[tuple[str, str]]) -> dict[str, AcceptedDefinition]:
        accepted: dict[str, AcceptedDefinition] = {}
        for key, document in state.task_definitions.items():
            path = f"taskDefinitions[{key}]"
            try:
                definition = parse_task_definition(document)
            except InvalidInputError as error:
                inner = error.problems or (("", str(error)),)
                problems.extend((f"{path}.{where}".rstrip("."), message) for where, message in inner)
                continue
            if definition.family != key.rpartition(":")[0]:
                problems.append((path, f"its family is {definition.family}"))
            forbidden = self.policy.problems(definition)
            problems.extend((f"{path}.{where}", message) for where, message in forbidden)
            accepted[key] = AcceptedDefinition(definition.to_wire(), definition_digest(definition))
        return accepted


def _check_tasks(
    state: DesiredState,
    definitions: Mapping[str, AcceptedDefinition],
    tasks: Mapping[str, Task],
    problems: list[tuple[str, str]],
) -> None:
    seen: set[str] = set()
    for index, desired in enumerate(state.tasks):
        path = f"tasks[{index}]"
        if desired.task_id in seen:
            problems.append((f"{path}.taskId", f"{desired.task_id} is there twice"))
        seen.add(desired.task_id)
        if desired.task_definition not in state.task_definitions:
            problems.append((f"{path}.taskDefinition", f"{desired.task_definition} is not in taskDefinitions"))
            continue
        definition = definitions.get(desired.task_definition)
        known = tasks.get(desired.task_id)
        if definition and known and known.definition_digest != definition.digest:
            problems.append(
                (f"{path}.taskDefinition", "a task keeps its definition for life; give the new one a new task id")
            )


def _secrets_twice(state: DesiredState) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for index, secret in enumerate(state.secrets):
        if secret.name in seen:
            yield f"secrets[{index}].name", f"{secret.name} is there twice"
        seen.add(secret.name)


def device_work_problems(
    state: DesiredState, definitions: Mapping[str, AcceptedDefinition]
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the services and schedules of a desired state, as `(path, message)`."""
    named: list[tuple[str, int, str, DesiredService | DesiredSchedule]] = [
        *(("services", index, one.service_name, one) for index, one in enumerate(state.services)),
        *(("schedules", index, one.name, one) for index, one in enumerate(state.schedules)),
    ]
    seen: set[tuple[str, str]] = set()
    for kind, index, name, one in named:
        path = f"{kind}[{index}]"
        if (kind, name) in seen:
            yield path, f"{name} is there twice"
        seen.add((kind, name))
        if one.task_definition not in state.task_definitions:
            yield f"{path}.taskDefinition", f"{one.task_definition} is not in taskDefinitions"
        definition = definitions.get(one.task_definition)
        if isinstance(one, DesiredSchedule):
            inner = schedule_problems(one)
        else:
            inner = service_problems(one, definition.wire) if definition else []
        for where, message in inner:
            yield f"{path}.{where}", message


def _parse(kind: type[D], payload: bytes) -> D:
    try:
        return kind.model_validate_json(payload)
    except ValidationError as error:
        problems = tuple(
            (_path(problem["loc"]), problem["msg"]) for problem in error.errors(include_url=False, include_input=False)
        )
        raise InvalidInputError(
            f"the {kind.__name__} has {len(problems)} problems", problems=problems[:_MAXIMUM_PROBLEMS]
        ) from error


def _path(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).lstrip(".")


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is not a time", problems=(("expiresAt", "not RFC 3339"),)) from error
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def revision_of(data: bytes) -> int | None:
    """Return the revision an envelope claims, for an answer to one that was refused; never trusted for anything."""
    if len(data) > MAXIMUM_DOCUMENT_BYTES:
        return None
    try:
        payload: Any = json.loads(base64.b64decode(json.loads(data)["payload"]))
        revision = payload["revision"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return revision if isinstance(revision, int) and 0 < revision < 2**53 else None
