"""How each step of a plan is performed on the container engine: blocking, on a worker, tried again without harm."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from edge.agent.engine.adoption import container_of
from edge.agent.engine.events import StepOutcome
from edge.agent.engine.image_gate import ImageGate
from edge.agent.engine.ports import (
    ContainerEngine,
    EngineStatus,
    FoundContainer,
    Host,
    Identities,
    Image,
    Nobody,
    Vault,
)
from edge.agent.telemetry.ports import Unobserved, Workloads
from edge.errors import EngineError, NameInUseError, NoSuchContainerError, SecretUnavailableError
from edge.model.container_spec import LABEL_DEFINITION_DIGEST, ContainerSpec
from edge.model.container_spec_builder import (
    SpecContext,
    build_container_spec,
    container_name_for,
    task_volume_names,
    volume_specs,
)
from edge.model.device_policy import READ_ONLY, DevicePolicy
from edge.model.plan import (
    CreateContainer,
    FetchImage,
    ReleaseTask,
    RemoveContainer,
    StartContainer,
    Step,
    StopContainer,
)
from edge.model.secrets import DesiredSecret, secret_named
from edge.model.task import Task
from edge.model.task_definition import TaskDefinition


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this device is, and what its owner allows.

    Attributes:
        architecture: As OCI names it (`amd64`, `arm64`); which variant of an image is pulled.
    """

    cluster: str
    device: str
    architecture: str
    policy: DevicePolicy = field(default_factory=DevicePolicy)


class StepRunner:
    """Performs steps. Every method may be called again after it failed, or after nobody knows whether it did."""

    def __init__(  # noqa: PLR0913 - wired in one place
        self,
        engine: ContainerEngine,
        host: Host,
        identity: Identity,
        vault: Vault,
        *,
        telemetry: Workloads | None = None,
        identities: Identities | None = None,
        gate: ImageGate | None = None,
    ) -> None:
        self._identities = identities or Nobody()
        self._engine = engine
        self._gate = gate or ImageGate(engine, identity.policy.images)
        self._host = host
        self._identity = identity
        self._vault = vault
        self._secrets: Mapping[str, DesiredSecret] = {}
        self._telemetry = telemetry or Unobserved()

    def know_secrets(self, secrets: Iterable[DesiredSecret]) -> None:
        """These are the secrets in force; from any thread."""
        self._secrets = {one.name: one for one in secrets}

    def perform(self, step: Step, task: Task, definition: TaskDefinition) -> StepOutcome:
        """Perform one step of `task`.

        Args:
            step: What to do.
            task: As it was when the step was planned, with the ports that were chosen for it.
            definition: Its task definition, parsed.

        Raises:
            EngineError: It was refused, or (`EngineUnavailableError`) nobody knows.
        """
        match step:
            case FetchImage():
                image = self.local_image(step, task, definition)
                return image or self.pull(task.container(step.container).reference)
            case CreateContainer():
                return self._create(step.container, task, definition)
            case StartContainer():
                return self._start(step.container, task, definition)
            case StopContainer():
                return self._stop(step.container, task, definition)
            case RemoveContainer():
                found = self._find(task, definition, step.container)
                if found is not None:
                    self._engine.remove(found.runtime_id)
                return None
            case ReleaseTask():
                for name in task_volume_names(definition, task.task_id):
                    self._engine.remove_volume(name)
                for one in definition.container_definitions:
                    self._engine.forget_secrets([file for _, file in self._files(one.name, task, definition)])
                self._host.release_task(task.task_id)
                self._telemetry.release(task.task_id)
                return None
            case _:
                assert_never(step)

    def local_image(self, step: FetchImage, task: Task, definition: TaskDefinition) -> Image | None:
        """Return the image if the local store has it: a device on a slow link starts what it has.

        (`pullImage` renews a tag on request; a digest never needs it.)

        Raises:
            EngineError: The task definition is for another architecture, or the store could not be asked.
        """
        wanted = definition.oci_architecture
        if wanted and wanted != self._identity.architecture:
            raise EngineError(
                f"the task definition is for {wanted}, this device is {self._identity.architecture}",
                reason="CannotPullContainerError",
                hint="Change runtimePlatform.cpuArchitecture, or run the task on another device.",
            )
        return self._gate.local(task.container(step.container).reference, self._identity.architecture)

    def pull(self, reference: str) -> Image:
        """Fetch an image that the device's policy lets run, whether or not it is here; raises as `ImageGate.pull`."""
        return self._gate.pull(reference, self._identity.architecture)

    def _check_image(self, name: str, task: Task) -> None:
        container = task.container(name)
        self._gate.check(container.reference, container.image_id, self._identity.architecture)

    def _create(self, name: str, task: Task, definition: TaskDefinition) -> FoundContainer:
        spec = self._spec(name, task, definition)
        self._check_policy(definition, spec)
        self._check_image(name, task)
        for volume in volume_specs(definition, task.task_id):
            self._engine.create_volume(volume)
        try:
            runtime_id = self._engine.create(spec)
        except NameInUseError:
            return self._settle_name(spec, task)
        return FoundContainer(runtime_id, spec.name, dict(spec.labels), EngineStatus.CREATED, image_id=spec.image_id)

    def _start(self, name: str, task: Task, definition: TaskDefinition) -> FoundContainer:
        self._limit(task, definition)
        named = {one.name: secret_named(one.value_from) or "" for one in definition.container(name).secrets}
        secrets = self._secrets
        missing = sorted({secret for secret in named.values() if secret not in secrets})
        if missing:
            raise SecretUnavailableError(
                f"unable to pull secrets: this device was not given {', '.join(missing)}",
                hint="`edge secret ls` shows what the fleet has; `edge fleet publish` gives devices what they lack.",
            )
        self._check_image(name, task)
        placed = [(file, secrets[named[variable]]) for variable, file in self._files(name, task, definition)]
        with self._vault.opened(placed):
            return self._engine.start(task.container(name).runtime_id)

    def _files(self, name: str, task: Task, definition: TaskDefinition) -> Sequence[tuple[str, str]]:
        variables = [one.name for one in definition.container(name).secrets]
        return self._vault.files(task.task_id, name, variables) if variables else ()

    def _check_policy(self, definition: TaskDefinition, spec: ContainerSpec) -> None:
        """Once more, as things are now: the policy may have become stricter, and a path may be a link."""
        policy = self._identity.policy
        problems = [message for _, message in policy.problems(definition)]
        there = replace(policy, host_paths=tuple(map(self._real, policy.host_paths)))
        asked = {volume.host.source_path for volume in definition.volumes if volume.host is not None}
        for mount in spec.mounts:
            real = self._host.real_path(mount.source) if mount.kind == "bind" and mount.source in asked else ""
            if real and not there.allows_path(real, read_only=mount.read_only):
                problems.append(f"this device's policy does not allow {real}, where {mount.source} leads")
        if problems:
            raise EngineError(
                problems[0],
                reason="CannotCreateContainerError",
                hint="The owner of the device decides, in its agent.toml: docs/configuration.md.",
            )

    def _real(self, allowed: str) -> str:
        path = allowed.removesuffix(READ_ONLY)
        return self._host.real_path(path) + allowed[len(path) :]

    def _settle_name(self, spec: ContainerSpec, task: Task) -> FoundContainer:
        """Adopt what an earlier try left under the name, unless it is broken or of another definition."""
        found = self._engine.find(spec.name)
        if found is not None:
            ours = found.labels.get(LABEL_DEFINITION_DIGEST) == task.definition_digest
            if ours and found.status is not EngineStatus.GONE_WRONG:
                return found
            if container_of(found)[0] != task.task_id:
                raise EngineError(
                    f"a container named {spec.name} is there already, and it is not of this task",
                    hint=f"Look at it with `podman inspect {spec.name}` and remove it if nobody needs it.",
                )
            self._engine.remove(found.runtime_id)
        runtime_id = self._engine.create(spec)
        return FoundContainer(runtime_id, spec.name, dict(spec.labels), EngineStatus.CREATED, image_id=spec.image_id)

    def _stop(self, name: str, task: Task, definition: TaskDefinition) -> FoundContainer | None:
        found = self._find(task, definition, name)
        if found is None or found.status in (EngineStatus.EXITED, EngineStatus.CREATED):
            return found
        self._engine.stop(found.runtime_id, definition.container(name).stop_timeout)
        return self._engine.inspect(found.runtime_id)

    def _find(self, task: Task, definition: TaskDefinition, name: str) -> FoundContainer | None:
        runtime_id = task.container(name).runtime_id
        if runtime_id:
            return self._engine.inspect(runtime_id)
        found = self._engine.find(container_name_for(task.task_id, definition, name))
        return found if found and container_of(found)[0] == task.task_id else None

    def _limit(self, task: Task, definition: TaskDefinition) -> str:
        return self._host.limit_task(task.task_id, cpu_units=definition.cpu, memory_mib=definition.memory)

    def _spec(self, name: str, task: Task, definition: TaskDefinition) -> ContainerSpec:
        container = task.container(name)
        log = definition.container(name).log_configuration
        driver, options = (log.log_driver, log.options) if log else ("json-file", {})
        prepared = self._telemetry.prepare(task.task_id, name, driver, options)
        context = SpecContext(
            cluster=self._identity.cluster,
            device=self._identity.device,
            task_id=task.task_id,
            definition_digest=task.definition_digest,
            image_id=container.image_id,
            ports=tuple((p.container_port, p.protocol, p.host_port) for p in container.ports),
            runtime_ids={c.name: c.runtime_id for c in task.containers if c.runtime_id},
            cgroup_parent=self._limit(task, definition),
            telemetry_folder=prepared.readings_folder,
            log_path=prepared.log_path,
            pids_limit=self._identity.policy.pids_limit,
            secrets=tuple(self._files(name, task, definition)),
            definition_key=task.definition_key,
            identity=self._identities.environment(task.task_id, name) if definition.task_role_arn else {},
        )
        return build_container_spec(definition, name, context)


def explain(error: EngineError) -> str:
    """Return a failure as ECS words it, `Name: message`, with what to do about it behind."""
    name = "NoSuchContainerError" if isinstance(error, NoSuchContainerError) else error.reason
    return f"{name}: {error}" + (f" ({error.hint})" if error.hint else "")
