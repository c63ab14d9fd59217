"""The documents a device publishes, made from what the engine knows."""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from edge.agent.engine.ports import Clock, HostFacts, ImageArrival
from edge.agent.engine.steps import Identity
from edge.model.describe import deployment_event, describe_task, local_event, remaining_resources, task_event
from edge.model.documents import ConnectionState, DeviceStatus, Operation
from edge.model.task import Task, TaskStatus
from edge.model.topics import Topics

CAPABILITIES: Final = (
    "ecs.capability.external",
    "ecs.capability.execution-role-none",
    "com.amazonaws.ecs.capability.logging-driver.json-file",
    "com.amazonaws.ecs.capability.logging-driver.journald",
    "com.amazonaws.ecs.capability.logging-driver.none",
)
"""In the ECS agent's words where it has one: `RegisterContainerInstance` attributes of an external instance."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Makes documents; has no state of its own."""

    identity: Identity
    facts: HostFacts
    clock: Clock
    agent_version: str
    new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    secrets_key: Callable[[], Mapping[str, Any]] = dict
    """Returns the device's word on its key for secrets; empty while there is none."""

    @property
    def topics(self) -> Topics:
        """The device's branch."""
        return Topics(self.identity.cluster, self.identity.device)

    def status(self, state: ConnectionState, session: str, reason: str = "") -> bytes:
        """Return a `status` document; `session` ties a will to its connection."""
        status = DeviceStatus(
            state=state, session=session, boot_id=self.facts.boot_id, agent_version=self.agent_version, reason=reason
        )
        return encode(status.to_wire())

    def birth(self, engine_version: str) -> bytes:
        """Return what this device is and can do; `engine_version` is empty until the engine answered once."""
        attributes = {
            "ecs.os-type": "linux",
            "ecs.cpu-architecture": self.facts.architecture.lower(),
            "edge.kernel": self.facts.kernel,
            "edge.os-name": self.facts.os_name,
            "edge.podman-version": engine_version,
            "edge.memory-limits": "enforced" if self.facts.memory_limits else "not enforced by this kernel",
            "edge.clock": "synchronized" if self.clock.is_synchronized() else "not synchronized",
        }
        secrets_key = dict(self.secrets_key())
        return encode(
            {
                "schemaVersion": 1,
                "cluster": self.identity.cluster,
                "device": self.identity.device,
                "agentVersion": self.agent_version,
                "bootId": self.facts.boot_id,
                "registeredResources": {"cpu": self.facts.cpu_units, "memory": self.facts.memory_mib},
                "attributes": attributes,
                "capabilities": [*CAPABILITIES, *(f"edge.command.{operation}" for operation in Operation)],
            }
            | ({"secretsKey": secrets_key} if secrets_key else {})
        )

    def reported(  # noqa: PLR0913 - the parts of one document
        self,
        tasks: Iterable[Task],
        *,
        revision: int,
        version: int,
        dropped_events: int,
        problem: str,
        maximum_bytes: int,
        arrivals: Mapping[str, ImageArrival] = MappingProxyType({}),
        own: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
    ) -> bytes:
        """Return the whole state in at most `maximum_bytes`; the longest stopped tasks are left out when it is more.

        Args:
            tasks: Everything known.
            revision: Of the desired state in force; 0 for none.
            version: Grows with every change of a task.
            problem: What is wrong with the agent itself; empty for nothing.
            dropped_events: How many events were never sent because too many were waiting.
            maximum_bytes: What the broker takes.
            arrivals: How much has arrived of images that start before they have, by image id.
            own: What the device does by itself: `services`, `schedules`, and how its `telemetry` stands.
        """
        tasks = list(tasks)
        document: dict[str, Any] = {
            "schemaVersion": 1,
            "revision": revision,
            "version": version,
            "bootId": self.facts.boot_id,
            "time": self.clock.now(),
            "droppedEvents": dropped_events,
            "clock": "synchronized" if self.clock.is_synchronized() else "not synchronized",
            "remainingResources": remaining_resources(tasks, self.facts.cpu_units, self.facts.memory_mib),
            "images": _images(tasks, self.identity.architecture, arrivals),
        }
        told = {"agentProblem": problem, **own}
        document |= {name: value for name, value in told.items() if value}
        newest_first = sorted(tasks, key=lambda task: task.stopped_at or "~", reverse=True)
        running_first = sorted(newest_first, key=lambda task: task.last_status is TaskStatus.STOPPED)
        described = self.describe(running_first, maximum_bytes - len(encode(document)) - 64)
        omitted = len(tasks) - len(described)
        return encode({**document, "tasks": described, **({"tasksOmitted": omitted} if omitted else {})})

    def describe(self, tasks: Iterable[Task], maximum_bytes: int) -> list[dict[str, Any]]:
        """Return the task objects, in order, as many as fit."""
        described: list[dict[str, Any]] = []
        left = maximum_bytes
        for task in tasks:
            one = describe_task(task, self.identity.cluster, self.identity.device)
            left -= len(encode(one)) + 1
            if left < 0:
                break
            described.append(one)
        return described

    def event(self, task: Task) -> tuple[str, bytes]:
        """Return `(topic, payload)` of an `ECS Task State Change` about the task as it is now."""
        description = describe_task(task, self.identity.cluster, self.identity.device)
        return self.topics.event("task"), encode(task_event(self.new_id(), self.clock.now(), description))

    def local_event(self, detail: Mapping[str, Any]) -> tuple[str, bytes]:
        """Return `(topic, payload)` of what somebody did at the device itself."""
        return self.topics.event("local"), encode(local_event(self.new_id(), self.clock.now(), detail))

    def service_event(self, name: str, service: Mapping[str, Any]) -> tuple[str, bytes]:
        """Return `(topic, payload)` of an `ECS Deployment State Change`."""
        return self.topics.event("service"), encode(deployment_event(self.new_id(), self.clock.now(), name, service))


def _images(tasks: Iterable[Task], architecture: str, arrivals: Mapping[str, ImageArrival]) -> list[dict[str, Any]]:
    images = {
        (c.image, c.image_id): c.image_digest for task in tasks for c in task.containers if c.image_id and not c.removed
    }
    return [
        {"reference": reference, "imageId": image_id, "digest": digest, "architecture": architecture}
        | _arrival(arrivals.get(image_id))
        for (reference, image_id), digest in sorted(images.items())
    ]


def _arrival(arrival: ImageArrival | None) -> dict[str, Any]:
    if arrival is None:
        return {}
    told = {"state": arrival.state, "size": arrival.size, "here": arrival.here}
    return told | ({"problem": arrival.problem} if arrival.problem else {})


def encode(document: Mapping[str, Any]) -> bytes:
    """Return the JSON bytes of a document, as short as they are."""
    return json.dumps(document, separators=(",", ":")).encode()
