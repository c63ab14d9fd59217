"""What goes over the wire in signed envelopes: the desired state, and commands.

Field names are camelCase on the wire, ECS's own where ECS has one. Unknown fields are kept and echoed by the reader
that does not know them (a newer fleet may say more than an older device understands), except inside a task
definition, where an unknown field is refused: it may be one that security depends on.
"""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from edge.model.document import Document, TaskDefinitionKey
from edge.model.identifiers import ClusterName, CommandId, DeviceId, TaskId
from edge.model.secrets import MAXIMUM_SECRETS, DesiredSecret
from edge.model.service_documents import MAXIMUM_SCHEDULES, MAXIMUM_SERVICES, DesiredSchedule, DesiredService

DESIRED_STATE_TYPE: Final = "application/vnd.edge.desired-state.v1+json"
"""DSSE payloadType of a `DesiredState`."""
COMMAND_TYPE: Final = "application/vnd.edge.command.v1+json"
"""DSSE payloadType of a `Command`."""
TRUST_TYPE: Final = "application/vnd.edge.trust-bundle.v1+json"
"""DSSE payloadType of a trust bundle."""
HEAD_TYPE: Final = "application/vnd.edge.head.v1+json"
"""DSSE payloadType of a `Head`."""

RUNTIME_BUNDLE_TYPE: Final = "application/vnd.edge.runtime-bundle.v1+json"
"""DSSE payloadType of a `RuntimeManifest` (`edge.model.runtime_bundle`)."""

MAXIMUM_DOCUMENT_BYTES: Final = 256 * 1024
"""Nothing larger is verified, let alone parsed; also the Maximum Packet Size a device announces."""
MAXIMUM_TASKS: Final = 256
"""Tasks in one desired state. (ECS allows 5,000 per cluster and a service quota per instance; a Pi runs dozens.)"""


class DesiredStatus(StrEnum):
    """What should become of a task."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class DesiredTask(Document):
    """One task the device should have.

    Attributes:
        task_definition: Key into `DesiredState.task_definitions`.
        started_by: As ECS's `startedBy`: who asked.
        stopped_reason: Why it should stop; shown in `stoppedReason`.
    """

    task_id: TaskId
    task_definition: TaskDefinitionKey
    desired_status: DesiredStatus = DesiredStatus.RUNNING
    group: Annotated[str, Field(max_length=255)] = ""
    started_by: Annotated[str, Field(max_length=128)] = ""
    created_at: str = ""
    stopped_reason: Annotated[str, Field(max_length=255)] = ""


class DesiredState(Document):
    """The whole of what a device should run; the newest valid one is in force until a newer valid one comes.

    Attributes:
        revision: Strictly increasing per device; at least 1, below 2**53 (exact in every JSON reader).
        issued_at: RFC 3339; for people. Order is decided by `revision` alone.
        task_definitions: `family:revision` -> ECS task definition JSON, judged by `edge.model.task_definition`.
        services: What the device keeps running by itself.
        schedules: What the device starts by itself at given times.
        secrets: The values that the task definitions name, sealed to this device.
        policies: Reserved by the protocol; a device that does not understand a non-empty one refuses the document
            rather than run half of it.
    """

    schema_version: Literal[1] = 1
    cluster: ClusterName
    device: DeviceId
    revision: Annotated[int, Field(ge=1, lt=2**53, strict=True)]
    issued_at: str
    task_definitions: dict[TaskDefinitionKey, dict[str, Any]] = Field(default_factory=dict)
    tasks: Annotated[list[DesiredTask], Field(max_length=MAXIMUM_TASKS)] = Field(default_factory=list)
    services: Annotated[list[DesiredService], Field(max_length=MAXIMUM_SERVICES)] = Field(default_factory=list)
    schedules: Annotated[list[DesiredSchedule], Field(max_length=MAXIMUM_SCHEDULES)] = Field(default_factory=list)
    policies: dict[str, Any] = Field(default_factory=dict)
    secrets: Annotated[list[DesiredSecret], Field(max_length=MAXIMUM_SECRETS)] = Field(default_factory=list)


class Operation(StrEnum):
    """The commands a device knows."""

    STOP_TASK = "stopTask"
    LOGS = "logs"
    DESCRIBE = "describe"
    PULL_IMAGE = "pullImage"
    UPDATE_AGENT = "updateAgent"


class Command(Document):
    """A signed one-off.

    Attributes:
        id: Idempotency key; equals the last topic level. A second arrival is answered with the stored result.
        op: An `Operation`; a name the device does not know is answered `REJECTED`.
        expires_at: RFC 3339. Judged by a wall clock only when that is known good; before, age is counted on the
            monotonic clock since receipt, against `lifetime_seconds`.
        lifetime_seconds: From issue to expiry; also the MQTT message expiry.
        parameters: By operation, see `docs/mqtt.md`.
    """

    schema_version: Literal[1] = 1
    cluster: ClusterName
    device: DeviceId
    op: Annotated[str, Field(max_length=32)]
    id: CommandId
    issued_at: str
    expires_at: str
    lifetime_seconds: Annotated[int, Field(ge=1, le=86400)]
    parameters: dict[str, Any] = Field(default_factory=dict)


class CertificateRequest(Document):
    """A device asks for a certificate for a new key, before the present one ends. `request` is PKCS #10 in PEM."""

    schema_version: Literal[1] = 1
    request: Annotated[str, Field(max_length=16 * 1024)]


class CertificateIssued(Document):
    """The answer; not signed: a certificate is, and the device knows its key, its name and its authority."""

    schema_version: Literal[1] = 1
    certificate: Annotated[str, Field(max_length=16 * 1024)]


class HeadQuestion(Document):
    """A device asks what the newest is; `nonce` is new for each question."""

    schema_version: Literal[1] = 1
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Head(Document):
    """The answer, signed.

    Attributes:
        nonce: The question's.
        revision: Of the newest desired state; 0 when there is none.
        trust_version: Of the newest trust bundle.
        time: RFC 3339, with a zone.
    """

    schema_version: Literal[1] = 1
    cluster: ClusterName
    device: DeviceId
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    revision: Annotated[int, Field(ge=0, lt=2**53, strict=True)]
    trust_version: Annotated[int, Field(ge=1, lt=2**53, strict=True)]
    time: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$")]


class CommandStatus(StrEnum):
    """What became of a command."""

    ACCEPTED = "ACCEPTED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"


class CommandResult(Document):
    """The answer to a command; `result` is the operation's own object, `reason` is for a person."""

    schema_version: Literal[1] = 1
    id: CommandId
    op: str
    status: CommandStatus
    result: dict[str, Any] = Field(default_factory=dict)
    reason: str = ""


class RevisionOutcome(StrEnum):
    """What became of a desired state."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    SUPERSEDED = "SUPERSEDED"
    APPLIED = "APPLIED"
    ROLLED_BACK = "ROLLED_BACK"


class Problem(Document):
    """One thing wrong with a document; `path` in the document's own words (`tasks[0].taskDefinition`)."""

    path: str
    message: str


class RevisionAck(Document):
    """On `desired/ack`: which revision was judged, and how. `revision` is None when it could not be read."""

    schema_version: Literal[1] = 1
    revision: int | None
    outcome: RevisionOutcome
    errors: list[Problem] = Field(default_factory=list)


class ConnectionState(StrEnum):
    """Is the agent connected?"""

    ONLINE = "ONLINE"
    OFFLINE = "OFFLINE"


class DeviceStatus(Document):
    """On `status`, and in the will.

    Attributes:
        session: New at each agent start and connection; the will carries the same one, so that a late will of an
            earlier session cannot mark a new one offline.
    """

    schema_version: Literal[1] = 1
    state: ConnectionState
    session: str
    boot_id: str
    agent_version: str
    reason: str = ""
