"""What the engine's hands tell collecting, and when."""

import queue
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge.agent.adapters.clock import SystemClock
from edge.agent.adapters.host import LinuxHost
from edge.agent.engine.events import ContainerExited, Event, StepSucceeded
from edge.agent.engine.hands import WorkerHands
from edge.agent.engine.log_streams import LogStreams
from edge.agent.engine.ports import FoundContainer, Image
from edge.agent.engine.steps import Identity
from edge.agent.telemetry.ports import Prepared, RunningContainer
from edge.model.plan import CreateContainer, ReleaseTask, StartContainer, Step
from edge.model.task import Task
from edge.mqtt.broker import BrokerSettings
from tests.fakes.broker import FakeHub
from tests.fakes.container_engine import FakeEngine
from tests.fakes.vault import FakeVault
from tests.support.tasks import TASK_ID, container_definition, make_task

AWSLOGS: Final = {"logDriver": "awslogs", "options": {"awslogs-group": "shop"}}
IMAGE: Final = Image("a" * 64, "", "amd64")


class Observer:
    """Fulfils `Workloads` by noting what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def prepare(self, task_id: str, container: str, log_driver: str, log_options: Mapping[str, str]) -> Prepared:
        self.told.append(("prepare", task_id, container, log_driver, dict(log_options)))
        return Prepared("/state/readings", "/state/log")

    def runs(self, container: RunningContainer) -> None:
        self.told.append(("runs", container))

    def ended(self, runtime_id: str) -> None:
        self.told.append(("ended", runtime_id))

    def release(self, task_id: str) -> None:
        self.told.append(("release", task_id))


def test_collecting_is_told_of_a_container_s_whole_life(tmp_path: Path) -> None:
    engine, observer = FakeEngine(), Observer()
    engine.images["registry.example/app:1"] = IMAGE
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    streams = LogStreams(engine, FakeHub().broker(BrokerSettings("broker", 1, "pi-1")), SystemClock())
    identity = Identity("shop", "pi-1", "amd64")
    hands = WorkerHands(
        engine, LinuxHost(), identity, streams, events.put, vault=FakeVault(tmp_path), telemetry=observer
    )
    task = make_task(container_definition("app", logConfiguration=AWSLOGS))
    task = task.with_container(replace(task.container("app"), image_id=IMAGE.image_id))

    created = perform(hands, events, CreateContainer(TASK_ID, "app"), task)
    spec = engine._specs[created.runtime_id]
    assert spec.log.path == "/state/log"
    assert [mount.source for mount in spec.mounts] == ["/state/readings"]
    task = task.with_container(replace(task.container("app"), runtime_id=created.runtime_id))
    started = perform(hands, events, StartContainer(TASK_ID, "app"), task)
    hands.watch(started)
    engine.end(started.runtime_id, 0)
    assert isinstance(events.get(timeout=20), ContainerExited)
    hands.perform(ReleaseTask(TASK_ID), task)
    assert isinstance(events.get(timeout=20), StepSucceeded)

    assert observer.told == [
        ("prepare", TASK_ID, "app", "awslogs", {"awslogs-group": "shop"}),
        ("runs", RunningContainer(started.runtime_id, started.pid, TASK_ID, "app")),
        ("ended", started.runtime_id),
        ("release", TASK_ID),
    ]
    engine.close()


def perform(hands: WorkerHands, events: "queue.SimpleQueue[Event]", step: Step, task: Task) -> FoundContainer:
    hands.perform(step, task)
    event = events.get(timeout=20)
    assert isinstance(event, StepSucceeded), event
    assert isinstance(event.outcome, FoundContainer)
    return event.outcome
