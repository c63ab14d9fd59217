"""A device without a network, at the speed of a test: real decisions and a real store, a played engine and clock."""

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edge.agent.engine.events import StepOutcome
from edge.agent.engine.health_checks import HealthChecks
from edge.agent.engine.ports import EngineStatus, FoundContainer, Image
from edge.agent.engine.reconciler import Reconciler
from edge.agent.engine.schedules import META as SCHEDULE_META
from edge.agent.engine.schedules import Schedules
from edge.agent.engine.services import META as SERVICE_META
from edge.agent.engine.services import Services
from edge.agent.store.state import Change, StateStore
from edge.model.assignment import AcceptedDefinition, Assignment
from edge.model.container_spec import LABEL_CONTAINER, LABEL_DEFINITION_DIGEST, LABEL_TASK_ID
from edge.model.documents import DesiredTask
from edge.model.plan import CreateContainer, FetchImage, RemoveContainer, StartContainer, Step, StopContainer
from edge.model.service_documents import DesiredSchedule, DesiredService
from edge.model.task import HostPort, Task, TaskStatus
from edge.model.task_definition_life import HealthCheck
from tests.support.tasks import container_definition

CLEANUP_SECONDS = 1000.0


@dataclass
class PlayedClock:
    """Both clocks; the wall clock may be set."""

    time: float = 1000.0
    wall: datetime = datetime(2026, 11, 24, tzinfo=UTC)
    good: bool = True

    def now(self) -> str:
        return self.wall.isoformat().replace("+00:00", "Z")

    def monotonic(self) -> float:
        return self.time

    def is_synchronized(self) -> bool:
        return self.good


@dataclass
class PlayedHands:
    """Does every step at once.

    Attributes:
        broken: Task definitions whose containers end as soon as they start.
        sick: Task definitions, or names of containers, whose checks fail.
    """

    containers: dict[tuple[str, str], FoundContainer] = field(default_factory=dict)
    answers: list[tuple[Step, StepOutcome]] = field(default_factory=list)
    exits: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    fetched: list[str] = field(default_factory=list)
    checks: list[tuple[str, str, str]] = field(default_factory=list)
    sick: set[str] = field(default_factory=set)
    finished: int = 0
    starts: int = 0
    looks: int = 0

    def perform(self, step: Step, task: Task) -> None:
        self.answers.append((step, self._do(step, task)))

    def _do(self, step: Step, task: Task) -> StepOutcome:
        name = getattr(step, "container", "")
        key = (task.task_id, name)
        match step:
            case FetchImage():
                reference = task.container(name).reference
                self.fetched.append(reference)
                digest = reference.partition("@")[2] or f"sha256:{task.definition_digest[:1] * 64}"
                return Image(task.definition_digest[:1] * 64, digest, "amd64")
            case CreateContainer():
                labels = {LABEL_TASK_ID: task.task_id, LABEL_CONTAINER: name}
                labels[LABEL_DEFINITION_DIGEST] = task.definition_digest
                made = FoundContainer(secrets.token_hex(32), f"edge-{name}", labels, EngineStatus.CREATED)
                self.containers[key] = made
            case StartContainer():
                self.starts += 1
                started_at = f"start {self.starts}"
                found = replace(self.containers[key], status=EngineStatus.RUNNING, pid=1, started_at=started_at)
                self.containers[key] = found
                if task.definition_key in self.broken:
                    self.end(task.task_id, name, 1)
                    return found
            case StopContainer():
                self.end(task.task_id, name, 143)
            case RemoveContainer():
                self.containers.pop(key, None)
            case _:
                return None
        return self.containers.get(key)

    def end(self, task_id: str, name: str, exit_code: int) -> None:
        found = self.containers.get((task_id, name))
        if found is not None and found.status is not EngineStatus.EXITED:
            self.finished += 1
            moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.finished)
            self.containers[task_id, name] = replace(
                found, status=EngineStatus.EXITED, pid=0, exit_code=exit_code, finished_at=moment.isoformat()
            )
            self.exits.append(found.runtime_id)

    def check_health(self, task_id: str, container: str, runtime_id: str, check: HealthCheck) -> None:
        assert check.retries
        self.checks.append((task_id, container, runtime_id))

    def list_containers(self) -> None:
        self.looks += 1

    def watch(self, container: FoundContainer) -> None:
        pass

    def remove_orphan(self, container: FoundContainer) -> None:
        self.containers = {k: c for k, c in self.containers.items() if c.runtime_id != container.runtime_id}

    def choose_ports(self, task: Task, name: str, taken: frozenset[tuple[str, int]]) -> tuple[HostPort, ...]:
        assert ("tcp", 1) not in taken
        return task.container(name).ports


class Island:
    """One device; `turn` is one turn of the agent's engine, with everything it asked for done."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.hands = PlayedClock(), PlayedHands()
        self.boot = "boot-1"
        self._path = folder / "state.db"
        self._assignment: Assignment | None = None
        self.events: list[str] = []
        self._open()

    def _open(self) -> None:
        self.store = StateStore(self._path)
        previous = (self.store.meta("boot_id") or b"").decode()
        self.reconciler = Reconciler(
            self.store.tasks(),
            boot_id=self.boot,
            previous_boot_id=previous,
            clock=self.clock,
            hands=self.hands,
            cleanup_seconds=CLEANUP_SECONDS,
            describe_event=lambda task: ("task", f"{task.group} {task.last_status}".encode()),
            has_assignment=self._assignment is not None,
            source=random.Random(1),
        )
        self.reconciler.change.meta["boot_id"] = self.boot.encode()
        self.services = Services(
            self.store.meta_of(SERVICE_META),
            self.reconciler,
            self.clock,
            describe_event=lambda name, _: ("service", name.encode()),
            cluster="default",
            source=random.Random(1),
        )
        self.health = HealthChecks(self.reconciler, self.clock, self.hands, random.Random(1))
        self.schedules = Schedules(self.store.meta_of(SCHEDULE_META), self.reconciler, self.clock)
        if self._assignment is not None:
            self._bring_in(self._assignment)

    # --- what the operator does

    def assign(
        self, *, services: Sequence[dict[str, Any]] = (), schedules: Sequence[dict[str, Any]] = (), **container: Any
    ) -> None:
        """Bring services and schedules into force; their task definitions are made from the key they name."""
        wanted = [DesiredService.model_validate({"taskDefinition": "web:1"} | one) for one in services]
        timed = [DesiredSchedule.model_validate({"taskDefinition": "web:1"} | one) for one in schedules]
        keys = {one.task_definition for some in (wanted, timed) for one in some}
        definitions = {key: definition(key, container_definition("app", **container)) for key in keys}
        self._assignment = Assignment(1, (), definitions, tuple(wanted), tuple(timed))
        self._bring_in(self._assignment)
        self.turn()

    def run(self, *containers: dict[str, Any], key: str = "job:1") -> str:
        """Assign one task of these containers, and return its id."""
        task_id = secrets.token_hex(16)
        task = DesiredTask(task_id=task_id, task_definition=key)
        self._assignment = Assignment(1, (task,), {key: definition(key, *containers)})
        self._bring_in(self._assignment)
        self.turn()
        return task_id

    def _bring_in(self, assignment: Assignment) -> None:
        self.reconciler.assign(assignment)
        self.services.assign(assignment)
        self.schedules.assign(assignment)

    # --- what happens

    def turn(self) -> None:
        """Let everything that is due be done, and written."""
        for _ in range(50):
            self.services.tend()
            self.schedules.tend()
            self.health.tend()
            self.reconciler.dispatch()
            self._commit()
            if not self._answer():
                return
        raise AssertionError("it does not come to rest")

    def wait(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass."""
        end = self.clock.time + seconds
        while self.clock.time < end:
            self.clock.time += step
            self.clock.wall += timedelta(seconds=step)
            self.turn()

    def crash(self, task_id: str, exit_code: int = 1, name: str = "app") -> None:
        """A task's container ends by itself."""
        self.hands.end(task_id, name, exit_code)
        self.turn()

    def restart_agent(self, *, boot: str = "") -> None:
        """kill -9 of the agent, or with a new boot id a reboot: what ran is not running."""
        self.store.close()
        if boot and boot != self.boot:
            self.boot = boot
            self.clock.time = 5.0
            for key, found in list(self.hands.containers.items()):
                if found.status is EngineStatus.RUNNING:
                    self.hands.containers[key] = replace(found, status=EngineStatus.EXITED, pid=0, exit_code=137)
        self.hands.answers, self.hands.exits = [], []
        self._open()
        self.turn()

    # --- what is there

    def tasks(self, key: str = "") -> list[Task]:
        """The tasks that have not stopped, of one definition or of all, oldest first."""
        alive = [t for t in self.reconciler.tasks.values() if t.last_status is not TaskStatus.STOPPED]
        return [task for task in alive if key in ("", task.definition_key)]

    def running(self) -> list[str]:
        """The definitions of what runs, sorted."""
        return sorted(task.definition_key for task in self.tasks() if task.last_status is TaskStatus.RUNNING)

    def statuses(self, task_id: str) -> dict[str, str]:
        """How far each container of a task is."""
        return {c.name: c.status.name for c in self.reconciler.tasks[task_id].containers}

    def _answer(self) -> bool:
        answers, self.hands.answers = self.hands.answers, []
        exits, self.hands.exits = self.hands.exits, []
        looks, self.hands.looks = self.hands.looks, 0
        checks, self.hands.checks = self.hands.checks, []
        for task_id, name, runtime_id in checks:
            task = self.reconciler.tasks[task_id]
            self.health.checked((task_id, name), runtime_id, passed=not {task.definition_key, name} & self.hands.sick)
        for step, outcome in answers:
            self.reconciler.step_succeeded(step, outcome)
        for runtime_id in exits:
            found = next((c for c in self.hands.containers.values() if c.runtime_id == runtime_id), None)
            self.reconciler.inspected(runtime_id, found)
        if looks:
            self.reconciler.listed(tuple(self.hands.containers.values()))
        return bool(answers or exits or looks or checks)

    def _commit(self) -> None:
        change = self.reconciler.change
        if change:
            self.events.extend(payload.decode() for _, payload in change.events)
            self.store.commit(change)
            self.reconciler.change = Change()


def definition(key: str, *containers: dict[str, Any]) -> AcceptedDefinition:
    """A task definition whose digest begins with its revision's digit."""
    wire = {"family": key.partition(":")[0], "containerDefinitions": list(containers)}
    return AcceptedDefinition(wire, key.partition(":")[2][0] * 64)
