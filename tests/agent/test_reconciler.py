import random
from dataclasses import dataclass, field
from typing import Any

from edge.agent.engine.ports import EngineStatus, FoundContainer, Image
from edge.agent.engine.reconciler import Reconciler
from edge.errors import EngineError, EngineUnavailableError, NoSuchImageError, PortInUseError, RegistryUnavailableError
from edge.model.assignment import AcceptedDefinition, Assignment
from edge.model.container_spec import LABEL_CONTAINER, LABEL_DEFINITION_DIGEST, LABEL_TASK_ID
from edge.model.documents import DesiredStatus, DesiredTask
from edge.model.plan import (
    CreateContainer,
    FetchImage,
    RemoveContainer,
    StartContainer,
    Step,
    StopContainer,
)
from edge.model.task import ContainerStatus, HostPort, StopCode, Task, TaskStatus
from tests.support.tasks import NOW, TASK_ID, container_definition, make_task

DIGEST = "d" * 64
RUNTIME_ID = "f" * 64
IMAGE = Image("a" * 64, "sha256:" + "b" * 64, "amd64")


@dataclass
class Hands:
    """Notes what it is asked to do; the test answers."""

    steps: list[Step] = field(default_factory=list)
    lists: int = 0
    watched: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def perform(self, step: Step, task: Task) -> None:
        assert task.task_id == step.task_id
        self.steps.append(step)

    def list_containers(self) -> None:
        self.lists += 1

    def watch(self, container: FoundContainer) -> None:
        self.watched.append(container.runtime_id)

    def remove_orphan(self, container: FoundContainer) -> None:
        self.removed.append(container.runtime_id)

    def choose_ports(self, task: Task, name: str, taken: frozenset[tuple[str, int]]) -> tuple[HostPort, ...]:
        assert ("tcp", 1) not in taken
        return task.container(name).ports


@dataclass
class Clock:
    time: float = 1000.0

    def now(self) -> str:
        return NOW

    def monotonic(self) -> float:
        return self.time

    def is_synchronized(self) -> bool:
        return True


class World:
    """A reconciler whose surroundings are in the test's hands."""

    def __init__(self, *tasks: Task, boot: str = "boot-1", previous: str = "boot-1", assigned: bool = True) -> None:
        self.hands, self.clock = Hands(), Clock()
        self.reconciler = Reconciler(
            {task.task_id: task for task in tasks},
            boot_id=boot,
            previous_boot_id=previous,
            clock=self.clock,
            hands=self.hands,
            cleanup_seconds=100.0,
            describe_event=lambda task: ("topic", f"{task.last_status}/{task.version}".encode()),
            has_assignment=assigned,
            source=random.Random(1),
        )

    def adopt(self, *found: FoundContainer) -> None:
        self.reconciler.dispatch()
        self.reconciler.listed(found)
        self.reconciler.dispatch()

    def take(self) -> list[Step]:
        """The steps asked for since the last time."""
        steps, self.hands.steps = self.hands.steps, []
        return steps

    def done(self, step: Step, outcome: Any = None) -> list[Step]:
        """Answer a step, and return what is asked for next."""
        self.reconciler.step_succeeded(step, outcome)
        self.reconciler.dispatch()
        return self.take()

    def failed(self, step: Step, error: EngineError) -> list[Step]:
        self.reconciler.step_failed(step, error)
        self.reconciler.dispatch()
        return self.take()

    @property
    def task(self) -> Task:
        return self.reconciler.tasks[TASK_ID]

    def running(self, *names: str) -> None:
        """Bring containers up, step by step."""
        self.adopt()
        for _ in range(3):
            for step in self.take():
                assert not isinstance(step, StopContainer)
                outcome = (
                    IMAGE
                    if isinstance(step, FetchImage)
                    else found(
                        EngineStatus.RUNNING if isinstance(step, StartContainer) else EngineStatus.CREATED,
                        name=getattr(step, "container", "app"),
                    )
                )
                self.reconciler.step_succeeded(step, outcome)
            self.reconciler.dispatch()
        assert all(self.task.container(name).status is ContainerStatus.RUNNING for name in names or ("app",))


def found(
    status: EngineStatus,
    *,
    task_id: str = TASK_ID,
    name: str = "app",
    digest: str = DIGEST,
    exit_code: int | None = None,
) -> FoundContainer:
    labels = {LABEL_TASK_ID: task_id, LABEL_CONTAINER: name, LABEL_DEFINITION_DIGEST: digest}
    return FoundContainer(RUNTIME_ID, f"edge-{name}", labels, status, pid=7, exit_code=exit_code, started_at=NOW)


def assignment(*desired: DesiredTask) -> Assignment:
    wire = {"family": "shop", "containerDefinitions": [container_definition("app")]}
    return Assignment(2, desired, {"shop:1": AcceptedDefinition(wire, DIGEST)})


def test_nothing_is_done_before_the_engine_was_looked_at() -> None:
    world = World(make_task())
    world.reconciler.dispatch()
    assert (world.take(), world.hands.lists) == ([], 1)
    world.reconciler.listed(())
    world.reconciler.dispatch()
    assert world.take() == [FetchImage(TASK_ID, "app")]


def test_a_task_goes_through_its_life_step_by_step() -> None:
    world = World(make_task())
    world.adopt()
    (fetch,) = world.take()
    (create,) = world.done(fetch, IMAGE)
    assert create == CreateContainer(TASK_ID, "app")
    (start,) = world.done(create, found(EngineStatus.CREATED))
    assert world.done(start, found(EngineStatus.RUNNING)) == []
    assert world.task.last_status is TaskStatus.RUNNING
    assert world.hands.watched == [RUNTIME_ID]
    assert [payload for _, payload in world.reconciler.change.events] == [
        b"RUNNING/" + str(world.task.version).encode()
    ]


def test_a_running_container_is_adopted_and_left_alone() -> None:
    world = World(make_task())
    world.adopt(found(EngineStatus.RUNNING))
    assert (world.take(), world.task.last_status, world.hands.watched) == ([], TaskStatus.RUNNING, [RUNTIME_ID])


def test_a_container_of_another_definition_is_removed_and_made_again() -> None:
    world = World(make_task())
    world.adopt(found(EngineStatus.RUNNING, digest="e" * 64))
    (remove,) = world.take()
    assert remove == RemoveContainer(TASK_ID, "app")
    assert world.done(remove) == [FetchImage(TASK_ID, "app")]


def test_a_container_that_exited_while_nobody_looked_ends_its_task() -> None:
    world = World(make_task())
    world.running()
    world.reconciler.inspected(RUNTIME_ID, found(EngineStatus.EXITED, exit_code=3))
    assert (world.task.stop_code, world.task.container("app").exit_code) == (StopCode.ESSENTIAL_CONTAINER_EXITED, 3)


def test_a_container_that_a_power_cut_ended_is_started_again() -> None:
    before = World(make_task())
    before.running()
    world = World(before.task, boot="boot-2", previous="boot-1")
    world.adopt(found(EngineStatus.EXITED, exit_code=137))
    assert world.take() == [StartContainer(TASK_ID, "app")]


def test_a_container_that_a_power_cut_took_away_is_made_again() -> None:
    before = World(make_task())
    before.running()
    world = World(before.task, boot="boot-2", previous="boot-1")
    world.adopt()
    assert world.take() == [FetchImage(TASK_ID, "app")]


def test_a_container_made_just_before_a_power_cut_and_never_recorded_is_started() -> None:
    world = World(make_task(), boot="boot-2", previous="boot-1")
    world.adopt(found(EngineStatus.EXITED))
    assert world.take() == [StartContainer(TASK_ID, "app")]


def test_a_list_that_is_older_than_a_step_does_not_undo_it() -> None:
    world = World(make_task())
    world.adopt()
    (fetch,) = world.take()
    (create,) = world.done(fetch, IMAGE)
    world.clock.time += 700
    world.reconciler.dispatch()
    assert world.hands.lists == 2
    (start,) = world.done(create, found(EngineStatus.CREATED))
    world.done(start, found(EngineStatus.RUNNING))
    world.reconciler.listed(())
    assert world.task.last_status is TaskStatus.RUNNING, "the list was made before the container was"


def test_a_transient_failure_waits_and_says_why() -> None:
    world = World(make_task())
    world.adopt()
    (fetch,) = world.take()
    assert world.failed(fetch, RegistryUnavailableError("away", reason="CannotPullContainerError")) == []
    assert world.task.pending_reason == "CannotPullContainerError: away"
    due = world.reconciler.next_due()
    assert due is not None
    world.clock.time = due
    world.reconciler.dispatch()
    assert world.take() == [fetch]


def test_what_became_due_after_the_last_look_is_not_slept_over() -> None:
    world = World(make_task())
    world.reconciler.dispatch()
    world.reconciler.listing_failed(EngineUnavailableError("away"))
    world.reconciler.dispatch()
    world.clock.time += 0.9
    due = world.reconciler.next_due()
    assert due is not None
    assert due < world.clock.time


def test_a_permanent_failure_ends_the_task() -> None:
    world = World(make_task())
    world.adopt()
    (fetch,) = world.take()
    assert world.failed(fetch, EngineError("manifest unknown", reason="CannotPullContainerError")) == []
    assert world.task.stop_code is StopCode.TASK_FAILED_TO_START
    assert world.task.stopped_reason == "CannotPullContainerError: manifest unknown"


def test_a_newer_intent_cancels_a_retry() -> None:
    world = World(make_task())
    world.adopt()
    (fetch,) = world.take()
    world.failed(fetch, RegistryUnavailableError("away"))
    world.reconciler.stop(TASK_ID, StopCode.USER_INITIATED, "enough")
    assert world.task.last_status is TaskStatus.STOPPED
    world.clock.time += 10
    world.reconciler.dispatch()
    assert world.take() == []


def test_an_image_that_was_removed_meanwhile_is_fetched_again() -> None:
    world = World(make_task())
    world.adopt()
    (fetch,) = world.take()
    (create,) = world.done(fetch, IMAGE)
    world.failed(create, NoSuchImageError("gone"))
    world.clock.time += 2
    world.reconciler.dispatch()
    assert world.take() == [fetch]


def test_a_dynamic_port_that_somebody_took_is_chosen_anew_with_a_new_container() -> None:
    world = World(make_task(container_definition("app", portMappings=[{"containerPort": 80}])))
    world.adopt()
    (fetch,) = world.take()
    (create,) = world.done(fetch, IMAGE)
    (start,) = world.done(create, found(EngineStatus.CREATED))
    world.failed(start, PortInUseError("taken"))
    world.clock.time += 2
    world.reconciler.dispatch()
    assert world.take() == [RemoveContainer(TASK_ID, "app")]


def test_a_fixed_port_that_somebody_took_is_waited_for() -> None:
    world = World(make_task(container_definition("app", portMappings=[{"containerPort": 80, "hostPort": 8080}])))
    world.adopt()
    (fetch,) = world.take()
    (create,) = world.done(fetch, IMAGE)
    (start,) = world.done(create, found(EngineStatus.CREATED))
    world.failed(start, PortInUseError("taken"))
    world.clock.time += 2
    world.reconciler.dispatch()
    assert world.take() == [start]


def test_a_start_that_comes_true_after_the_task_was_stopped_is_stopped() -> None:
    world = World(make_task())
    world.adopt()
    (fetch,) = world.take()
    (create,) = world.done(fetch, IMAGE)
    (start,) = world.done(create, found(EngineStatus.CREATED))
    world.reconciler.stop(TASK_ID, StopCode.USER_INITIATED, "enough")
    assert world.done(start, found(EngineStatus.RUNNING)) == [StopContainer(TASK_ID, "app")]


def test_a_task_that_is_absent_from_a_newer_revision_is_stopped() -> None:
    world = World(make_task())
    world.running()
    world.reconciler.assign(assignment())
    world.reconciler.dispatch()
    assert world.take() == [StopContainer(TASK_ID, "app")]
    assert world.task.stopped_reason == "Task is no longer in the desired state"


def test_a_task_that_is_still_wanted_is_not_touched_by_a_newer_revision() -> None:
    world = World(make_task())
    world.running()
    before = world.task
    world.reconciler.assign(assignment(DesiredTask(task_id=TASK_ID, task_definition="shop:1")))
    world.reconciler.dispatch()
    assert (world.take(), world.task) == ([], before)


def test_a_container_of_no_task_is_left_alone_until_a_desired_state_is_there() -> None:
    other = "1" * 32
    world = World(assigned=False)
    world.adopt(found(EngineStatus.RUNNING, task_id=other))
    assert world.hands.removed == []
    world.reconciler.assign(assignment())
    assert world.hands.removed == [RUNTIME_ID]


def test_a_task_whose_record_was_lost_adopts_its_container() -> None:
    world = World(assigned=False)
    world.adopt(found(EngineStatus.RUNNING))
    world.reconciler.assign(assignment(DesiredTask(task_id=TASK_ID, task_definition="shop:1")))
    world.reconciler.dispatch()
    assert (world.take(), world.hands.removed, world.task.last_status) == ([], [], TaskStatus.RUNNING)


def test_a_task_that_should_stop_and_whose_record_was_lost_is_stopped_all_the_same() -> None:
    world = World(assigned=False)
    world.adopt(found(EngineStatus.RUNNING))
    desired = DesiredTask(task_id=TASK_ID, task_definition="shop:1", desired_status=DesiredStatus.STOPPED)
    world.reconciler.assign(assignment(desired))
    world.reconciler.dispatch()
    assert world.take() == [StopContainer(TASK_ID, "app")]


def test_a_stopped_task_is_cleaned_away_after_its_time_and_forgotten_when_nobody_wants_it() -> None:
    world = World(make_task())
    world.running()
    world.reconciler.assign(assignment())
    world.reconciler.dispatch()
    (stop,) = world.take()
    assert world.done(stop, found(EngineStatus.EXITED, exit_code=0)) == []
    world.clock.time += 101
    world.reconciler.dispatch()
    (remove,) = world.take()
    (release,) = world.done(remove)
    world.done(release)
    assert world.reconciler.tasks == {}
    assert world.reconciler.change.tasks == {TASK_ID: None}


def test_an_engine_that_is_away_is_said_at_every_task_that_waits_for_it() -> None:
    world = World(make_task())
    world.reconciler.dispatch()
    world.reconciler.listing_failed(EngineUnavailableError("no such socket"))
    assert "no such socket" in world.task.pending_reason
    later = "2" * 32
    world.reconciler.assign(assignment(DesiredTask(task_id=later, task_definition="shop:1")))
    assert "no such socket" in world.reconciler.tasks[later].pending_reason


def test_the_version_never_goes_back() -> None:
    world = World(make_task())
    versions = [world.task.version]
    world.adopt()
    steps = world.take()
    while steps:
        step = steps.pop()
        outcome: Any = IMAGE if isinstance(step, FetchImage) else found(EngineStatus.RUNNING)
        steps += world.done(step, outcome)
        versions.append(world.task.version)
    assert versions == sorted(versions)
