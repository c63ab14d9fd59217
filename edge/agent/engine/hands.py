"""What the engine has done for it, on workers: every blocking call to the container engine is made here.

A worker never touches the engine's state: it is given values, and puts a past-tense event into the inbox.
"""

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from edge.agent.engine.adoption import container_of
from edge.agent.engine.events import (
    CommandEnded,
    ContainerExited,
    ContainerInspected,
    ContainersListed,
    Event,
    HealthChecked,
    ListingFailed,
    PullBegan,
    StepFailed,
    StepOutcome,
    StepSucceeded,
)
from edge.agent.engine.image_gate import ImageGate
from edge.agent.engine.log_streams import LogRequest, LogStreams, read_lines
from edge.agent.engine.ports import (
    ContainerEngine,
    FoundContainer,
    Host,
    Identities,
    Nobody,
    NoUpdates,
    Updates,
    Vault,
)
from edge.agent.engine.steps import Identity, StepRunner
from edge.agent.engine.workers import Workers
from edge.agent.telemetry.ports import RunningContainer, Unobserved, Workloads
from edge.errors import EdgeError, EngineError
from edge.model.container_spec import LABEL_DEVICE
from edge.model.documents import CommandStatus
from edge.model.host_ports import assign_ports
from edge.model.plan import FetchImage, Step
from edge.model.runtime_update import Outcome, UpdateRequest, told
from edge.model.secrets import DesiredSecret
from edge.model.task import HostPort, Task
from edge.model.task_definition import TaskDefinition, parse_task_definition
from edge.model.task_definition_life import HealthCheck
from edge.model.task_definition_rules import RESERVED_PORTS
from edge.model.topics import Topics

_log = logging.getLogger(__name__)

PULLS: Final = 2
"""Images fetched at once: on a slow link more would only make the first one late."""
STEPS: Final = 4
"""Other steps at once; a Pi has four cores."""
CHECKS: Final = 8
"""Health checks at once: one that hangs holds its thread for its timeout, a minute at most."""


class _NotHereError(Exception):
    """The local store does not have the image."""


class WorkerHands:
    """Fulfils `reconciler.Hands` and `commands.Bench` on threads."""

    def __init__(  # noqa: PLR0913 - wired in one place
        self,
        engine: ContainerEngine,
        host: Host,
        identity: Identity,
        streams: LogStreams,
        inbox: Callable[[Event], None],
        *,
        vault: Vault,
        telemetry: Workloads | None = None,
        identities: Identities | None = None,
        gate: ImageGate | None = None,
        updates: Updates | None = None,
    ) -> None:
        self._identities = identities or Nobody()
        self._engine = engine
        self._host = host
        self._identity = identity
        self._streams = streams
        self._put = inbox
        self._random = random.Random()  # noqa: S311 - a port is no secret
        self._telemetry = telemetry or Unobserved()
        self._runner = StepRunner(
            engine, host, identity, vault, telemetry=self._telemetry, identities=self._identities, gate=gate
        )
        self._pulls = Workers("pull", PULLS)
        self._steps = Workers("step", STEPS)
        self._checks = Workers("check", CHECKS)
        self._updates = updates or NoUpdates()
        self._upgrades = Workers("update", 1)

    # --- reconciler.Hands

    def perform(self, step: Step, task: Task) -> None:
        """Perform a step."""
        if isinstance(step, FetchImage):
            self._steps.submit(lambda: self._fetch(step, task))
        else:
            self._steps.submit(lambda: self._try(step, lambda: self._runner.perform(step, task, parsed(task))))

    def _fetch(self, step: FetchImage, task: Task) -> None:
        """What must come from a registry moves over to the pulls, where it is in nobody's way."""

        def look() -> StepOutcome:
            image = self._runner.local_image(step, task, parsed(task))
            if image is None:
                raise _NotHereError
            return image

        try:
            self._try(step, look)
        except _NotHereError:
            self._put(PullBegan(step.task_id, step.container))
            self._pulls.submit(lambda: self._try(step, lambda: self._runner.perform(step, task, parsed(task))))

    def _try(self, step: Step, work: Callable[[], StepOutcome]) -> None:
        try:
            outcome = work()
        except _NotHereError:
            raise
        except EdgeError as error:
            self._put(StepFailed(step, error))
        except Exception as error:  # noqa: BLE001 - a defect of ours must not leave the step under way for ever
            _log.exception("step %s failed for a reason nobody thought of", step)
            self._put(StepFailed(step, EngineError(f"{type(error).__name__}: {error}", reason="AgentError")))
        else:
            self._put(StepSucceeded(step, outcome))

    def list_containers(self) -> None:
        """List everything of ours."""
        device = f"{self._identity.cluster}/{self._identity.device}"

        def job() -> None:
            try:
                found = self._engine.list_labelled(LABEL_DEVICE, device)
                version = self._engine.version()
            except EdgeError as error:
                self._put(ListingFailed(error))
            else:
                self._put(ContainersListed(found, version))

        self._steps.submit(job)

    def watch(self, container: FoundContainer) -> None:
        """Tell when the container's process is gone, and how the container is then."""
        self._telemetry.runs(RunningContainer(container.runtime_id, container.pid, *container_of(container)))
        self._identities.runs(container)
        self._engine.watch_exit(container, self._exited)

    def remove_orphan(self, container: FoundContainer) -> None:
        """Remove a container of no task."""

        def job() -> None:
            try:
                self._engine.remove(container.runtime_id)
            except EdgeError as error:
                _log.warning("cannot remove container %s, which belongs to no task: %s", container.name, error)

        self._steps.submit(job)

    def choose_ports(self, task: Task, name: str, taken: frozenset[tuple[str, int]]) -> tuple[HostPort, ...]:
        """Decide a container's host ports."""
        definition = parsed(task)
        wanted = [(m.container_port, m.protocol, m.host_port) for m in definition.container(name).port_mappings]
        if not wanted:
            return ()
        if definition.network_mode == "host":
            return tuple(HostPort(inside, inside, protocol) for inside, protocol, _ in wanted)
        listening = {(p, port) for p in {p for _, p, _ in wanted} for port in self._host.ports_in_use(p)}
        return assign_ports(
            wanted,
            kept=task.container(name).ports,
            taken=taken | listening | {("tcp", port) for port in RESERVED_PORTS},
            ports=self._host.dynamic_port_range(),
            source=self._random,
        )

    def _exited(self, runtime_id: str) -> None:
        self._telemetry.ended(runtime_id)
        self._identities.ended(runtime_id)
        self._put(ContainerExited(runtime_id))

    def inspect(self, runtime_id: str) -> None:
        """Look at a container whose process went away."""

        def job() -> None:
            try:
                found = self._engine.inspect(runtime_id)
            except EdgeError:
                self._put(ContainerInspected(runtime_id, None, answered=False))
            else:
                self._put(ContainerInspected(runtime_id, found))

        self._steps.submit(job)

    def protect_images(self, image_ids: frozenset[str]) -> None:
        """Say which images are needed."""

        def job() -> None:
            try:
                self._engine.protect_images(image_ids)
            except EdgeError as error:
                _log.warning("cannot say which images are needed: %s", error)

        self._steps.submit(job)

    def images_started(self, image_ids: frozenset[str], after_seconds: float) -> None:
        """Say of which images a container is ready, or will be."""

        def job() -> None:
            try:
                self._engine.images_started(image_ids, after_seconds)
            except EdgeError as error:
                _log.warning("cannot say that images have started: %s", error)

        self._steps.submit(job)

    def check_health(self, task_id: str, container: str, runtime_id: str, check: HealthCheck) -> None:
        """Run a health check."""

        def job() -> None:
            passed: bool | None = None
            try:
                passed = self._engine.run_check(runtime_id, check.argv(), float(check.timeout))
            except EdgeError as error:
                _log.debug("the health check of %s could not be run: %s", container, error)
            self._put(HealthChecked(task_id, container, runtime_id, passed))

        self._checks.submit(job)

    def know_secrets(self, secrets: Iterable[DesiredSecret]) -> None:
        """These are the secrets in force."""
        self._runner.know_secrets(secrets)

    # --- commands.Bench

    def pull_image(self, command_id: str, reference: str) -> None:
        """Fetch an image whether or not it is there."""

        def job() -> Mapping[str, Any]:
            image = self._runner.pull(reference)
            described = {"imageId": image.image_id, "digest": image.digest, "architecture": image.architecture}
            return {"image": {"reference": reference, **described}}

        self._pulls.submit(lambda: self._finish(command_id, job))

    def update_agent(self, request: UpdateRequest) -> None:
        """Have another version of `edge` installed; the answer may come from the agent after this one."""

        def job() -> None:
            self._put(CommandEnded(request.id, CommandStatus.RUNNING, {}, ""))
            result = self._updates.carry_out(request)
            good = result.outcome is Outcome.INSTALLED
            status = CommandStatus.SUCCEEDED if good else CommandStatus.FAILED
            told_as = {"outcome": result.outcome.value, "version": result.version, "previous": result.previous}
            self._put(CommandEnded(request.id, status, told_as, "" if good else told(result)))

        self._upgrades.submit(job)

    def read_log(self, command_id: str, request: LogRequest) -> None:
        """Read lines that were written."""
        self._steps.submit(lambda: self._finish(command_id, lambda: read_lines(self._engine, request)))

    def follow_log(self, command_id: str, request: LogRequest) -> bool:
        """Stream lines as they are written."""
        topic = Topics(self._identity.cluster, self._identity.device).stream_out(command_id)

        def ended(status: CommandStatus, reason: str) -> None:
            self._put(CommandEnded(command_id, status, {}, reason))

        return self._streams.follow(command_id, topic, request, ended)

    def _finish(self, command_id: str, work: Callable[[], Mapping[str, Any]]) -> None:
        try:
            result = work()
        except EdgeError as error:
            self._put(CommandEnded(command_id, CommandStatus.FAILED, {}, str(error)))
        else:
            self._put(CommandEnded(command_id, CommandStatus.SUCCEEDED, result, ""))


def parsed(task: Task) -> TaskDefinition:
    """Return the task's definition, parsed; the last few are remembered."""
    definition = _PARSED.get(task.definition_digest)
    if definition is None:
        while len(_PARSED) >= _MAXIMUM_PARSED:
            _PARSED.pop(next(iter(_PARSED)), None)
        definition = parse_task_definition(task.definition)
        _PARSED[task.definition_digest] = definition
    return definition


_PARSED: dict[str, TaskDefinition] = {}
_MAXIMUM_PARSED: Final = 32
