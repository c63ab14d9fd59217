"""A device's agent as its fleet sees it: verifies what it is sent, and tells of a life that the test chose."""

import itertools
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.errors import TrustError
from edge.model.documents import (
    COMMAND_TYPE,
    DESIRED_STATE_TYPE,
    Command,
    CommandResult,
    CommandStatus,
    ConnectionState,
    DesiredState,
    DesiredStatus,
    DesiredTask,
    DeviceStatus,
    Problem,
    RevisionAck,
    RevisionOutcome,
)
from edge.model.identifiers import task_arn
from edge.model.topics import Topics, parse_command
from edge.model.trust import TrustedSet
from edge.mqtt.broker import Broker, BrokerEvent, BrokerSettings, Connected, MessageReceived, Publication, Will

Detail = dict[str, Any]
GOOD_LIFE: tuple[Detail, ...] = (
    {"lastStatus": "PROVISIONING"},
    {"lastStatus": "PENDING", "pendingReason": "pulling registry.example/app:1"},
    {"lastStatus": "RUNNING", "startedAt": "2026-01-01T00:00:02Z", "pendingReason": ""},
)


@dataclass
class FakeDevice:
    """Starts when made. `life` is what each new task goes through; `refuse` makes it reject revisions.

    `on_command` answers commands: it gets the command and a function that publishes, and returns results in order.
    """

    make: Callable[[BrokerSettings], Broker]
    settings: BrokerSettings
    cluster: str
    trust: bytes
    life: Sequence[Detail] = GOOD_LIFE
    refuse: str = ""
    on_command: Callable[[Command, "FakeDevice"], Sequence[CommandResult]] | None = None
    revision: int = 0
    revisions: list[DesiredState] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tasks: dict[str, Detail] = field(default_factory=dict)
    stream: str = ""
    ready: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.topics = Topics(self.cluster, self.settings.client_id)
        self.trusted = TrustedSet.from_bundle(self.trust)
        self.tokens = itertools.count(1)
        self.broker = self.make(self.settings)
        self.broker.start(
            self._on_event, Will(self.topics.status, self._status(ConnectionState.OFFLINE), delay_seconds=0)
        )

    def publish(self, topic: str, document: dict[str, Any], *, retain: bool = False, qos: int = 1) -> None:
        payload = json.dumps(document).encode()
        self.broker.publish(Publication(topic, payload, next(self.tokens), qos=qos, retain=retain))

    def report(self) -> None:
        """Publish what there is."""
        document = {
            "schemaVersion": 1,
            "revision": self.revision,
            "version": 1,
            "bootId": "boot",
            "time": "2026-01-01T00:00:00Z",
            "tasks": list(self.tasks.values()),
            "remainingResources": {"cpu": 1024, "memory": 900},
            "images": [{"reference": "registry.example/app:1", "imageId": "ab" * 32, "architecture": "arm64"}],
        }
        self.publish(self.topics.reported, document, retain=True)

    def hear(self, topic: str, document: dict[str, Any]) -> None:
        """Take what is said on a stream."""
        self.said.append((topic, document))

    def go(self, task_id: str, change: Detail) -> None:
        """Let a task get on: an event, then a report."""
        task = self.tasks[task_id]
        task.update(change, version=task["version"] + 1)
        event = {
            "version": "0",
            "id": f"{task_id}-{task['version']}",
            "detail-type": "ECS Task State Change",
            "source": "edge.ecs",
            "time": "2026-01-01T00:00:00Z",
            "resources": [task["taskArn"]],
            "detail": dict(task),
        }
        self.publish(self.topics.event("task"), event)
        self.report()

    def stop(self) -> None:
        """Go in order."""
        status = self._status(ConnectionState.OFFLINE)
        self.broker.stop(Publication(self.topics.status, status, next(self.tokens), retain=True))

    def _status(self, state: ConnectionState) -> bytes:
        status = DeviceStatus(state=state, session="s", boot_id="boot", agent_version="0.1.0")
        return status.model_dump_json(by_alias=True).encode()

    def _on_event(self, event: BrokerEvent) -> None:
        match event:
            case Connected():
                self.broker.subscribe(
                    ((self.topics.desired, 1), (self.topics.commands, 1), (self.topics.streams_in, 0))
                )
                self.broker.publish(
                    Publication(
                        self.topics.status, self._status(ConnectionState.ONLINE), next(self.tokens), retain=True
                    )
                )
                self.publish(
                    self.topics.birth,
                    {
                        "schemaVersion": 1,
                        "attributes": {"ecs.cpu-architecture": "arm64"},
                        "registeredResources": {"cpu": 4096, "memory": 3800},
                        "capabilities": ["logs"],
                    },
                    retain=True,
                )
                self.report()
                self.ready.set()
            case MessageReceived():
                self.broker.acknowledge(event)
                self._on_message(event)
            case _:
                pass

    def _on_message(self, message: MessageReceived) -> None:
        if message.topic == self.topics.desired:
            self._on_desired(message.payload)
        elif (named := parse_command(message.topic)) is not None:
            self._on_command(named[1], message.payload)
        else:
            self.hear(message.topic, json.loads(message.payload))

    def _on_desired(self, data: bytes) -> None:
        try:
            payload = self.trusted.verify(data, DESIRED_STATE_TYPE).payload
        except TrustError as error:
            self.refusals.append(str(error))
            return
        state = DesiredState.model_validate_json(payload)
        self.revisions.append(state)
        if state.revision <= self.revision:
            self._ack(state.revision, RevisionOutcome.SUPERSEDED)
        elif self.refuse and any(task.task_id not in self.tasks for task in state.tasks):
            self._ack(state.revision, RevisionOutcome.REJECTED, Problem(path="tasks[0]", message=self.refuse))
        else:
            self._apply(state)

    def _apply(self, state: DesiredState) -> None:
        self.revision = state.revision
        self._ack(state.revision, RevisionOutcome.ACCEPTED)
        wanted = {task.task_id for task in state.tasks}
        self.tasks = {key: task for key, task in self.tasks.items() if key in wanted}
        for task in state.tasks:
            if task.task_id not in self.tasks:
                self._begin(task)
            if task.desired_status is DesiredStatus.STOPPED and self.tasks[task.task_id]["lastStatus"] != "STOPPED":
                self.go(
                    task.task_id,
                    {"lastStatus": "STOPPED", "stopCode": "UserInitiated", "stoppedReason": task.stopped_reason},
                )
        self.report()
        self._ack(state.revision, RevisionOutcome.APPLIED)

    def _begin(self, task: DesiredTask) -> None:
        self.tasks[task.task_id] = {
            "taskId": task.task_id,
            "taskArn": task_arn(self.cluster, task.task_id),
            "desiredStatus": "RUNNING",
            "lastStatus": "PROVISIONING",
            "version": 0,
            "containers": [{"name": "app", "image": "registry.example/app:1", "lastStatus": "PENDING"}],
        }
        if task.desired_status is DesiredStatus.RUNNING:
            for change in self.life:
                self.go(task.task_id, change)

    def _ack(self, revision: int, outcome: RevisionOutcome, *problems: Problem) -> None:
        ack = RevisionAck(revision=revision, outcome=outcome, errors=list(problems))
        self.publish(self.topics.desired_ack, ack.to_wire(), retain=True)

    def _on_command(self, command_id: str, data: bytes) -> None:
        command = Command.model_validate_json(self.trusted.verify(data, COMMAND_TYPE).payload)
        assert command.id == command_id
        if self.on_command is None:
            return
        for result in self.on_command(command, self):
            self.publish(self.topics.result(command.op, command.id), result.to_wire())


def succeeded(command: Command, result: dict[str, Any]) -> CommandResult:
    return CommandResult(id=command.id, op=command.op, status=CommandStatus.SUCCEEDED, result=result)
