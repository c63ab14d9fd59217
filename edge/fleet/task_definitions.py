"""Registered task definitions: `family:revision`, counted up and never reused."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from edge.errors import InvalidInputError, NotFoundError
from edge.fleet.clock import timestamp
from edge.fleet.database import Database
from edge.model.identifiers import task_definition_arn

_REFERENCE: Final = re.compile(
    r"(?:arn:[^/]*:task-definition/)?(?P<family>[A-Za-z0-9_-]{1,255})(?::(?P<revision>[1-9][0-9]{0,8}))?"
)


@dataclass(frozen=True, slots=True)
class RegisteredTaskDefinition:
    """A task definition with its revision; `document` is ECS's JSON, normalized when it was registered."""

    family: str
    revision: int
    document: dict[str, Any]
    registered_at: str

    @property
    def key(self) -> str:
        """`family:revision`."""
        return f"{self.family}:{self.revision}"

    def to_wire(self) -> dict[str, Any]:
        """Return it as `aws ecs describe-task-definition` prints it."""
        arn = task_definition_arn(self.family, self.revision)
        return {
            "taskDefinition": {
                "taskDefinitionArn": arn,
                **self.document,
                "family": self.family,
                "revision": self.revision,
                "status": "ACTIVE",
                "registeredAt": self.registered_at,
            }
        }


def register(database: Database, family: str, document: dict[str, Any], moment: datetime) -> RegisteredTaskDefinition:
    """Store a task definition that was judged good, under the next revision of its family."""
    with database.transaction():
        database.change(
            "INSERT INTO families (family, last_revision) VALUES (?, 1)"
            " ON CONFLICT DO UPDATE SET last_revision = last_revision + 1",
            (family,),
        )
        [row] = database.rows("SELECT last_revision FROM families WHERE family = ?", (family,))
        made = RegisteredTaskDefinition(family, row["last_revision"], document, timestamp(moment))
        database.change(
            "INSERT INTO task_definitions (family, revision, document, registered_at) VALUES (?, ?, ?, ?)",
            (family, made.revision, json.dumps(document), made.registered_at),
        )
    return made


def find(database: Database, reference: str) -> RegisteredTaskDefinition:
    """Return `family:revision`, or the newest of `family`; the ARN of either is taken too.

    Raises:
        InvalidInputError: `reference` is none of these.
        NotFoundError: It is not registered.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidInputError(f"{reference!r} is not a task definition", hint="Write FAMILY or FAMILY:REVISION.")
    row = database.row(
        "SELECT * FROM task_definitions WHERE family = ? AND (revision = ? OR ? IS NULL)"
        " ORDER BY revision DESC LIMIT 1",
        (match["family"], match["revision"], match["revision"]),
    )
    if row is None:
        raise NotFoundError(
            f"task definition {reference} is not registered",
            hint="`edge task-definition ls` lists them; `edge task-definition register FILE` adds one.",
        )
    return RegisteredTaskDefinition(row["family"], row["revision"], json.loads(row["document"]), row["registered_at"])


def ls(database: Database, family: str | None = None) -> list[RegisteredTaskDefinition]:
    """Return all of them, or all of a family, by name and revision."""
    rows = database.rows(
        "SELECT * FROM task_definitions WHERE family = ? OR ? IS NULL ORDER BY family, revision", (family, family)
    )
    return [
        RegisteredTaskDefinition(row["family"], row["revision"], json.loads(row["document"]), row["registered_at"])
        for row in rows
    ]
