"""The tasks of this device, and who moves them: what is known, what is under way, what is tried again when.

Only the engine's thread touches a `Reconciler`. Facts come in as method calls, steps go out to workers, and what
changed is collected in a `Change` until the engine commits it.
"""

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, Protocol, assert_never

from edge.agent.engine import adoption
from edge.agent.engine.backoff import Backoff
from edge.agent.engine.events import StepOutcome
from edge.agent.engine.pace import Pace
from edge.agent.engine.ports import Clock, EngineStatus, FoundContainer, Image, ImageArrival
from edge.agent.engine.steps import explain
from edge.agent.store.state import Change
from edge.errors import (
    EdgeError,
    EngineError,
    EngineUnavailableError,
    NoSuchContainerError,
    NoSuchImageError,
    PortInUseError,
    TransientError,
)
from edge.model import lifecycle
from edge.model.assignment import Assignment, assign
from edge.model.dependencies import never_comes
from edge.model.describe import statuses
from edge.model.documents import DesiredStatus
from edge.model.plan import (
    CreateContainer,
    FetchImage,
    ReleaseTask,
    RemoveContainer,
    StartContainer,
    Step,
    StepKey,
    StopContainer,
    key_of,
    plan,
)
from edge.model.secrets import secrets_of
from edge.model.task import ContainerStatus, Health, HostPort, StopCode, Task, TaskStatus

_log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 600.0
"""How often everything the engine has is looked at, in case an exit was missed; the ECS agent polls every 300 s."""


class Hands(Protocol):
    """What the reconciler has done for it; every answer comes back as a call of the method named."""

    def perform(self, step: Step, task: Task) -> None:
        """Perform a step; answered by `step_succeeded` or `step_failed`."""
        ...

    def list_containers(self) -> None:
        """Look at everything of ours; answered by `listed` or `listing_failed`."""
        ...

    def watch(self, container: FoundContainer) -> None:
        """Say when the container's process is gone, once."""
        ...

    def remove_orphan(self, container: FoundContainer) -> None:
        """Remove a container that belongs to no task; no answer, the next sweep looks again."""
        ...

    def choose_ports(self, task: Task, name: str, taken: frozenset[tuple[str, int]]) -> tuple[HostPort, ...]:
        """Decide the host ports of a container, keeping those it has; `taken` are `(protocol, port)` of others."""
        ...


class Reconciler:
    """Moves tasks towards what is desired.

    Attributes:
        tasks: Everything known, by task id.
        change: What changed since the engine last took it, for the store.
        adopted: The engine's containers were seen once; before that no step is taken.
        arrivals: How much has arrived of the images that start before they have, by image id.
    """

    def __init__(  # noqa: PLR0913 - wired in one place
        self,
        tasks: Mapping[str, Task],
        *,
        boot_id: str,
        previous_boot_id: str,
        clock: Clock,
        hands: Hands,
        cleanup_seconds: float,
        describe_event: Callable[[Task], tuple[str, bytes]],
        has_assignment: bool,
        source: random.Random | None = None,
    ) -> None:
        self.tasks = {task_id: _remember_boot(task, previous_boot_id) for task_id, task in tasks.items()}
        self.change = Change()
        self.adopted = False
        self._boot_id = boot_id
        self._clock = clock
        self._hands = hands
        self._cleanup_seconds = cleanup_seconds
        self._describe_event = describe_event
        self._has_assignment = has_assignment
        self._dispatched_at = clock.monotonic()
        self._in_flight: dict[StepKey, Step] = {}
        self._retries: Backoff[StepKey] = Backoff(1.0, 300.0, source)
        self._pace = Pace(self.tasks.values(), clock.monotonic(), source)
        self._sweeps: Backoff[str] = Backoff(0.5, 60.0, source)
        self._sweep_due: float | None = clock.monotonic()
        self._sweep_under_way = False
        self._away_reason = ""
        self.arrivals: dict[str, ImageArrival] = {}
        self._sweep_touched: set[StepKey] = set()
        self._watched: set[str] = set()
        self._orphans: dict[str, FoundContainer] = {}
        self._stopped_since = {
            task.task_id: clock.monotonic() for task in self.tasks.values() if task.last_status is TaskStatus.STOPPED
        }

    # --- facts ------------------------------------------------------------------------------------------------

    def assign(self, assignment: Assignment) -> None:
        """Bring a judged desired state into force."""
        self._has_assignment = True
        known = set(self.tasks)
        for task_id, task in assign(self.tasks, assignment, self._clock.now()).items():
            if task_id in known:
                self._put(task)
            else:
                self._put_new(task)
            self._wait_for_engine(self.tasks[task_id])
        # What a container waited for may have come with it.
        self._retries.forget(
            (task.task_id, c.name)
            for task in self.tasks.values()
            for c in task.containers
            if secrets_of(task.definition, c.name) and not c.restarting
        )
        self._remove_orphans()

    def stop(self, task_id: str, code: StopCode, reason: str) -> Task | None:
        """Stop a task whatever the desired state says, for good; None when it is not known."""
        task = self.tasks.get(task_id)
        if task is None:
            return None
        self._put(lifecycle.stop(task, self._clock.now(), code, reason))
        return self.tasks[task_id]

    def begin(self, task: Task) -> None:
        """Take up a task that the device itself made."""
        self._put_new(task)
        self._wait_for_engine(self.tasks[task.task_id])

    def note(self, task: Task) -> None:
        """Keep what others do not see of a task."""
        self._keep(task)

    def pull_began(self, task_id: str, name: str) -> None:
        """An image is being fetched for the container."""
        task = self.tasks.get(task_id)
        if task is not None and not task.pull_started_at and task.container(name).status is ContainerStatus.NONE:
            self._put(replace(task, pull_started_at=self._clock.now()))

    def health_changed(self, task_id: str, name: str, health: Health) -> None:
        """A container's checks say something else than before."""
        task = self.tasks.get(task_id)
        if task is not None:
            self._put(lifecycle.checked(task, name, health))

    def images_seen(self, arrivals: tuple[ImageArrival, ...]) -> None:
        """Note how far images have come, and when those that containers were started from became complete."""
        self.arrivals = {arrival.image_id: arrival for arrival in arrivals}
        complete = {arrival.image_id for arrival in arrivals if arrival.here >= arrival.size}
        for task in list(self.tasks.values()):
            self._put(lifecycle.images_complete(task, complete, self._clock.now()))

    def images_started(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the ids of images of which a container is healthy, and of those of which one runs without a check."""
        healthy, running = set[str](), set[str]()
        for task in self.tasks.values():
            for container in task.containers:
                if container.image_id and container.status is ContainerStatus.RUNNING:
                    if container.health is Health.HEALTHY:
                        healthy.add(container.image_id)
                    elif container.health is Health.NONE:
                        running.add(container.image_id)
        return frozenset(healthy), frozenset(running - healthy)

    def images_needed(self) -> frozenset[str]:
        """Return the ids of images that must not be removed: a container of a task is, or may be, made from them."""
        return frozenset(
            c.image_id for task in self.tasks.values() for c in task.containers if c.image_id and not c.removed
        )

    def step_succeeded(self, step: Step, outcome: StepOutcome) -> None:
        """A step was performed."""
        self._land(step)
        self._retries.succeeded(key_of(step))
        task = self.tasks.get(step.task_id)
        if task is None:
            return
        now = self._clock.now()
        match step:
            case FetchImage():
                assert isinstance(outcome, Image)  # noqa: S101 - said by StepOutcome's contract
                self._fetched(task, step.container, outcome)
            case CreateContainer() | StartContainer():
                assert isinstance(outcome, FoundContainer)  # noqa: S101 - said by StepOutcome's contract
                started = isinstance(step, StartContainer)
                self._made_or_started(task, step.container, outcome, started=started)
            case StopContainer():
                exit_code = outcome.exit_code if isinstance(outcome, FoundContainer) else None
                finished_at = outcome.finished_at if isinstance(outcome, FoundContainer) else ""
                self._put(lifecycle.stopped(task, step.container, now, exit_code=exit_code, finished_at=finished_at))
            case RemoveContainer():
                self._put(lifecycle.removed(task, step.container))
            case ReleaseTask():
                self._forget(task)
            case _:
                assert_never(step)

    def step_failed(self, step: Step, error: EdgeError) -> None:
        """A step did not come about, or nobody knows whether it did."""
        self._land(step)
        task = self.tasks.get(step.task_id)
        if task is None:
            return
        key = key_of(step)
        reason = explain(error) if isinstance(error, EngineError) else str(error)
        if isinstance(error, EngineUnavailableError):
            self._sweep_soon()
        if isinstance(step, ReleaseTask):
            self._retries.failed(key, self._clock.monotonic(), reason)
            _log.warning("task %s: clean-up: %s", step.task_id, reason)
            return
        name = step.container
        self._retries.failed(key, self._clock.monotonic(), reason)
        if isinstance(error, NoSuchContainerError | NoSuchImageError) and task.desired_status is DesiredStatus.RUNNING:
            self._put(lifecycle.waiting(lifecycle.again(task, name), name, reason))
        elif isinstance(error, PortInUseError) and self._has_dynamic_port(task, name):
            again = lifecycle.again(task, name, discard=True, forget_ports=True)
            self._put(lifecycle.waiting(again, name, reason))
        elif isinstance(error, TransientError) or isinstance(step, StopContainer | RemoveContainer):
            self._put(lifecycle.waiting(task, name, reason))
        else:
            self._retries.succeeded(key)
            self._put(lifecycle.failed(task, name, reason, self._clock.now()))

    def inspected(self, runtime_id: str, found: FoundContainer | None) -> None:
        """A container's process went away, and this is how the container is now."""
        self._watched.discard(runtime_id)
        for task in self.tasks.values():
            for container in task.containers:
                if container.runtime_id == runtime_id:
                    if found is not None and found.status is EngineStatus.RUNNING:
                        self._sweep_soon()
                    else:
                        self._observe(task, container.name, found)
                    return

    def exit_unclear(self, runtime_id: str) -> None:
        """A container's process went away, and the engine could not say more: look again soon."""
        self._watched.discard(runtime_id)
        self._sweep_soon()

    def listed(self, found: Iterable[FoundContainer]) -> None:
        """This is everything of ours that the engine has."""
        self._sweep_under_way = False
        self._sweeps.succeeded("")
        if self._sweep_due is None:
            jitter = random.uniform(0.9, 1.1)  # noqa: S311 - jitter is not a secret
            self._sweep_due = self._clock.monotonic() + SWEEP_SECONDS * jitter
        seen = {adoption.container_of(container): container for container in found}
        for task in list(self.tasks.values()):
            for container in task.containers:
                key = (task.task_id, container.name)
                container_seen = seen.pop(key, None)
                if key not in self._sweep_touched:
                    self._observe(self.tasks[task.task_id], container.name, container_seen)
        self._orphans = {container.runtime_id: container for container in seen.values()}
        if self._away_reason:
            self._away_reason = ""
            self._retries.forget(self._retries.keys())
        self.adopted = True
        if self._has_assignment:
            self._remove_orphans()

    def listing_failed(self, error: EdgeError) -> None:
        """The engine could not be asked."""
        self._sweep_under_way = False
        self._sweep_due = self._sweeps.failed("", self._clock.monotonic())
        self._away_reason = explain(error) if isinstance(error, EngineError) else str(error)
        for task in list(self.tasks.values()):
            self._wait_for_engine(task)

    # --- doing ------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Send off every step that is due."""
        now = self._dispatched_at = self._clock.monotonic()
        if self._sweep_due is not None and self._sweep_due <= now and not self._sweep_under_way:
            self._sweep_under_way = True
            self._sweep_due = None
            self._sweep_touched = set(self._in_flight)
            self._hands.list_containers()
        if not self.adopted:
            return
        for task in list(self.tasks.values()):
            self._give_up_waiting(task, now)
        busy = self._retries.waiting(now) | self._pace.waiting(now) | self._in_flight.keys()
        for step in plan(self.tasks.values(), busy=busy, expired=self._expired(now)):
            self._send(step)

    def next_due(self) -> float | None:
        """Return the monotonic time at which `dispatch` has something to do without any new fact.

        Seen from the last `dispatch`: what became due since is due, and not forgotten.
        """
        now = self._dispatched_at
        times = [self._sweep_due, self._retries.next_due(now), self._pace.next_due(self.tasks.values(), now)]
        times.extend(since + self._cleanup_seconds for since in self._stopped_since.values())
        return min((t for t in times if t is not None and t > now), default=None)

    def _give_up_waiting(self, task: Task, now: float) -> None:
        """End a task one of whose containers waits for what never comes, or has not come in its time."""
        if task.desired_status is not DesiredStatus.RUNNING:
            return
        for container in task.containers:
            reason = never_comes(task, container.name) if container.status < ContainerStatus.RUNNING else ""
            if reason and not container.restarting:
                self._put(lifecycle.failed(task, container.name, reason, self._clock.now()))
                return
        late = self._pace.overdue(task, now)
        if late is not None:
            self._put(lifecycle.failed(task, *late, self._clock.now()))

    def _send(self, step: Step) -> None:
        task = self.tasks[step.task_id]
        if isinstance(step, CreateContainer):
            try:
                task = self._with_ports(task, step.container)
            except EdgeError as error:
                self.step_failed(step, error)
                return
        key = key_of(step)
        self._in_flight[key] = step
        self._sweep_touched.add(key)
        self._hands.perform(step, task)

    def _with_ports(self, task: Task, name: str) -> Task:
        taken = frozenset(
            (port.protocol, port.host_port)
            for other in self.tasks.values()
            if other.last_status is not TaskStatus.STOPPED
            for container in other.containers
            if (other.task_id, container.name) != (task.task_id, name)
            for port in container.ports
        )
        ports = self._hands.choose_ports(task, name, taken)
        container = task.container(name)
        if ports != container.ports:
            self._put(task.with_container(replace(container, ports=ports)))
        return self.tasks[task.task_id]

    # --- inside -----------------------------------------------------------------------------------------------

    def _land(self, step: Step) -> None:
        key = key_of(step)
        self._in_flight.pop(key, None)
        self._sweep_touched.add(key)

    def _fetched(self, task: Task, name: str, image: Image) -> None:
        task = lifecycle.pulled(task, name, image.image_id, image.digest, image.note)
        now = self._clock.now()
        if not task.pull_started_at:
            task = replace(task, pull_started_at=now)
        if not task.pull_stopped_at and all(c.status is not ContainerStatus.NONE for c in task.containers):
            task = replace(task, pull_stopped_at=now)
        self._put(task)

    def _made_or_started(self, task: Task, name: str, found: FoundContainer, *, started: bool) -> None:
        now = self._clock.now()
        if started:
            task = lifecycle.running(task, name, found.runtime_id, self._boot_id, found.started_at or now)
        elif found.status is EngineStatus.CREATED:
            task = lifecycle.created(task, name, found.runtime_id, self._boot_id)
        self._put(task)
        self._observe(self.tasks[task.task_id], name, found)

    def _observe(self, task: Task, name: str, found: FoundContainer | None) -> None:
        ran = self._pace.ran((task.task_id, name), self._clock.monotonic())
        self._put(adoption.observe(task, name, found, boot_id=self._boot_id, now=self._clock.now(), ran=ran))
        if found is not None and found.status is EngineStatus.RUNNING and found.runtime_id not in self._watched:
            self._watched.add(found.runtime_id)
            self._hands.watch(found)

    def _put(self, task: Task) -> None:
        """Keep the task as it is now, note what that means for the store, and let a newer intent cancel retries."""
        before = self.tasks[task.task_id]
        visible = _shown(task) != _shown(before)
        task = replace(task, version=before.version + visible)
        if task == before:
            return
        self._pace.changed(before, task, self._clock.monotonic())
        if task.desired_status is not before.desired_status:
            self._retries.forget((task.task_id, c.name) for c in task.containers)
        if task.last_status is TaskStatus.STOPPED:
            self._stopped_since.setdefault(task.task_id, self._clock.monotonic())
        else:
            self._stopped_since.pop(task.task_id, None)
        self._keep(task)
        if statuses(task) != statuses(before):
            self.change.events.append(self._describe_event(task))

    def _put_new(self, task: Task) -> None:
        self._keep(task)
        self._pace.changed(None, task, self._clock.monotonic())
        self.change.events.append(self._describe_event(task))
        if task.last_status is TaskStatus.STOPPED:
            self._stopped_since[task.task_id] = self._clock.monotonic()
        for orphan in list(self._orphans.values()):
            task_id, name = adoption.container_of(orphan)
            if task_id == task.task_id and any(c.name == name for c in task.containers):
                del self._orphans[orphan.runtime_id]
                current = self.tasks[task_id]
                history = replace(current.container(name), boot_id="unknown")
                self._keep(current.with_container(history))
                self._observe(self.tasks[task_id], name, orphan)

    def _keep(self, task: Task) -> None:
        self.tasks[task.task_id] = task
        self.change.tasks[task.task_id] = task

    def _forget(self, task: Task) -> None:
        if task.wanted:
            return
        del self.tasks[task.task_id]
        self._pace.forget(task)
        self._stopped_since.pop(task.task_id, None)
        self._retries.forget([(task.task_id, "")])
        self.change.tasks[task.task_id] = None

    def _remove_orphans(self) -> None:
        for orphan in self._orphans.values():
            _log.info("container %s belongs to no task of the desired state: removing it", orphan.name)
            self._hands.remove_orphan(orphan)
        self._orphans = {}

    def _expired(self, now: float) -> set[str]:
        return {task_id for task_id, since in self._stopped_since.items() if since + self._cleanup_seconds <= now}

    def _has_dynamic_port(self, task: Task, name: str) -> bool:
        definitions = task.definition["containerDefinitions"]
        mappings = next(d.get("portMappings") or [] for d in definitions if d["name"] == name)
        return any(not mapping.get("hostPort") for mapping in mappings) and task.definition.get("networkMode") != "host"

    def _wait_for_engine(self, task: Task) -> None:
        """Say at the task why nothing happens: nobody can be asked to do it."""
        if self._away_reason and not task.settled:
            name = next(c.name for c in task.containers if c.status is not ContainerStatus.STOPPED)
            self._put(lifecycle.waiting(task, name, self._away_reason))

    def _sweep_soon(self) -> None:
        """Look again within seconds; many who ask together get one look, and one that is near already will do."""
        now = self._clock.monotonic()
        if self._sweep_due is None or self._sweep_due > now + 60.0:
            self._sweep_due = self._sweeps.failed("", now)


def _remember_boot(task: Task, previous_boot_id: str) -> Task:
    """A container the last agent did not come to record was made in that agent's boot, if at all."""
    containers = tuple(replace(c, boot_id=c.boot_id or previous_boot_id) for c in task.containers)
    return replace(task, containers=containers)


def _shown(task: Task) -> tuple[object, ...]:
    return (
        statuses(task),
        task.pending_reason,
        task.pull_started_at,
        task.pull_stopped_at,
        tuple(
            (c.ports, c.runtime_id, c.reason, c.image_digest, c.image_complete_at, c.health, c.restarts)
            for c in task.containers
        ),
    )
