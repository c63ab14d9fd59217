"""What the engine needs from the world, as contracts; `edge.agent.adapters` and the tests' fakes fulfil them.

Only what this project does not control is behind a port: the container engine, the host and its clocks.
(The broker's port is `edge.mqtt.broker`; SQLite is ours and is used directly.)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from edge.model.container_spec import ContainerSpec, VolumeSpec
from edge.model.runtime_update import Outcome, UpdateRequest, UpdateResult
from edge.model.secrets import DesiredSecret


class EngineStatus(StrEnum):
    """A container as the engine sees it, reduced to what decides anything."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    GONE_WRONG = "gone-wrong"
    """Half made or half removed (Podman's `unknown`, `removing`, `improper`): remove and make it again."""


@dataclass(frozen=True, slots=True)
class FoundContainer:
    """One container that carries our labels, found again in the engine.

    Attributes:
        runtime_id: The engine's id, 64 hexadecimal digits.
        labels: All its labels, ours among them.
        status: What it does now.
        pid: The process id of its first process while it runs, else 0.
        exit_code: Of the last run; None before the first exit.
        oom_killed: The last run ended for want of memory.
        started_at: RFC 3339 with zone, of the last start; empty before.
        finished_at: RFC 3339 with zone, of the last exit; empty before.
        image_id: The image's config digest in hexadecimal, without `sha256:`.
    """

    runtime_id: str
    name: str
    labels: dict[str, str]
    status: EngineStatus
    pid: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    started_at: str = ""
    finished_at: str = ""
    image_id: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the local store.

    Attributes:
        image_id: The config digest in hexadecimal, without `sha256:`; containers are created from it, so that a
            later pull of the same tag cannot change them.
        digest: The manifest digest the image was pulled by, `sha256:…`; empty when the store knows none.
        architecture: As OCI names it (`amd64`, `arm64`).
        note: Why it did not start before it had arrived, when that was tried; empty otherwise.
    """

    image_id: str
    digest: str
    architecture: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ImageArrival:
    """How much of an image that starts before it has arrived is here.

    Attributes:
        state: `STARTABLE`, `COMPLETE` or `MATERIALIZED` (docs/lazy-images.md).
        size: Bytes of its layers in the registry.
        here: How many of them have arrived.
        problem: Why it is not further; empty while it moves.
    """

    image_id: str
    state: str
    size: int
    here: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line a container wrote.

    Attributes:
        time: RFC 3339 with zone, as the engine recorded it; Podman 4.3.1 tells whole seconds only.
        stream: `stdout` or `stderr`.
        text: Without the newline; bytes that are not UTF-8 are replaced.
    """

    time: str
    stream: str
    text: str


class ContainerEngine(Protocol):
    """Podman, or something that behaves like it.

    Every call may be made from any thread, and made again after it failed: what is already so is success.
    Every call may raise `EngineUnavailableError` (nobody answered; nothing is known about what was done) and
    `EngineError` (it was refused).
    """

    def version(self) -> str:
        """Return the engine's version, `4.3.1`."""
        ...

    def pull(self, reference: str, architecture: str, *, proven: bool = False) -> Image:
        """Fetch an image and return it; an image that is there already by that very digest is not fetched again.

        Args:
            reference: The image.
            architecture: As OCI names it.
            proven: Its manifest is proven to be the right one, and everything a container reads of it must be what
                that manifest says, from the first byte on.

        Raises:
            ImagePullError: The registry answered and there is no such image, or not for us.
            RegistryUnavailableError: The registry did not answer.
        """
        ...

    def image(self, reference: str) -> Image | None:
        """Return the image the local store has under `reference`, or None. Asks no registry."""
        ...

    def protect_images(self, image_ids: frozenset[str]) -> None:
        """Say which images (by id) tasks need, all of them: whoever makes space by itself leaves those alone."""
        ...

    def images_started(self, image_ids: frozenset[str], after_seconds: float) -> None:
        """Say that containers of images (by id) are ready, or will be in so many seconds if nothing else is heard."""
        ...

    def create(self, spec: ContainerSpec) -> str:
        """Make a container and return its runtime id; it does not run yet. Missing bind sources are created.

        Of its secrets only the names and places are needed now, and told to nobody; their values at each start.

        Raises:
            NameInUseError: A container of `spec.name` is there already.
            NoSuchImageError: `spec.image_id` is not in the local store.
        """
        ...

    def start(self, runtime_id: str) -> FoundContainer:
        """Start a created or exited container and return it as it is right after; a running one is left alone.

        The values of its secrets stand in their files while this lasts. When it returns, nothing that the engine keeps
        on a disk or tells has them.

        Raises:
            PortInUseError: A host port is taken.
            NoSuchContainerError: It is not there.
        """
        ...

    def stop(self, runtime_id: str, timeout_seconds: int) -> None:
        """Send the stop signal, wait, then kill. A container that does not run, or is gone, is success."""
        ...

    def remove(self, runtime_id: str) -> None:
        """Remove a container, running or not, with its anonymous volumes. One that is gone is success."""
        ...

    def inspect(self, runtime_id: str) -> FoundContainer | None:
        """Return the container, or None when it is gone."""
        ...

    def find(self, name: str) -> FoundContainer | None:
        """Return the container of that name, or None."""
        ...

    def list_labelled(self, label: str, value: str) -> tuple[FoundContainer, ...]:
        """Return all containers, running or not, that carry `label=value`."""
        ...

    def forget_secrets(self, files: Sequence[str]) -> None:
        """The container whose secrets stood in these files is gone: forget their places."""
        ...

    def create_volume(self, spec: VolumeSpec) -> None:
        """Make a named volume; one of that name is left as it is."""
        ...

    def remove_volume(self, name: str) -> None:
        """Remove a named volume. One that is gone is success."""
        ...

    def logs(self, runtime_id: str, *, tail: int | None, follow: bool) -> Iterator[LogLine]:
        """Yield what the container wrote, oldest first; with `follow`, go on until it stops.

        Closing the iterator frees the connection, from any thread, also while it waits.

        Args:
            runtime_id: Whose log.
            tail: Only the last so many lines; None for all.
            follow: Wait for more.

        Raises:
            EngineError: The log cannot be read back (`none` was its driver).
        """
        ...

    def run_check(self, runtime_id: str, command: Sequence[str], timeout_seconds: float) -> bool:
        """Run a command in a running container and say whether it ended with 0 in time; else it is killed.

        Raises:
            NoSuchContainerError: It is not there, or does not run.
        """
        ...

    def watch_exit(self, container: FoundContainer, exited: Callable[[str], None]) -> None:
        """Call `exited(runtime_id)` once, from another thread, when the container's process is gone.

        Works without the engine's service being alive. A container that is not running any more is reported at once,
        before this returns.
        """
        ...

    def close(self) -> None:
        """End what runs in the background."""
        ...


class Vault(Protocol):
    """Opens secrets, for as long as a container takes to start."""

    def files(self, task_id: str, container: str, variables: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Return `(variable, file)`: where the values of a container's secrets stand at each of its starts.

        Raises:
            SecretUnavailableError: This host has no place for them that is only in memory.
        """
        ...

    def opened(self, secrets: Sequence[tuple[str, DesiredSecret]]) -> AbstractContextManager[None]:
        """Let the values of `(file, secret)` pairs stand in their files inside the `with`.

        Raises:
            SecretUnavailableError: One of them does not open: it is for another device, of another name or version,
                or was changed. None of them stands anywhere then.
        """
        ...


class Identities(Protocol):
    """Lets the containers of tasks with a role ask who they are. Nothing here may fail: no container waits for it."""

    def environment(self, task_id: str, container: str) -> Mapping[str, str]:
        """Return the variables by which a container that is about to be made will ask."""
        ...

    def runs(self, container: FoundContainer) -> None:
        """The container's process runs; told of every one, and does not wait."""
        ...

    def ended(self, runtime_id: str) -> None:
        """The container's process is gone."""
        ...


class Nobody:
    """`Identities` of an agent that tells nobody."""

    def environment(self, task_id: str, container: str) -> Mapping[str, str]:
        """See `Identities`."""
        del task_id, container
        return {}

    def runs(self, container: FoundContainer) -> None:
        """See `Identities`."""

    def ended(self, runtime_id: str) -> None:
        """See `Identities`."""


class Updates(Protocol):
    """Whoever puts another version of `edge` in this one's place."""

    def carry_out(self, request: UpdateRequest) -> UpdateResult:
        """Have an update made and return how it ended; one that is under way, or has ended, is not begun again.

        It may outlive this agent: the next one asks again with the same request.
        """
        ...


class NoUpdates:
    """Where there is nobody."""

    def carry_out(self, request: UpdateRequest) -> UpdateResult:
        """Refuse it."""
        return UpdateResult(id=request.id, outcome=Outcome.FAILED, reason="this device does not update edge by itself")


class Clock(Protocol):
    """Two clocks: one that may be wrong, one that only counts."""

    def now(self) -> str:
        """Return the wall clock as RFC 3339 in UTC with milliseconds: `2026-11-23T12:00:00.000Z`. It may be wrong."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; never goes back, stops at a reboot."""
        ...

    def is_synchronized(self) -> bool:
        """Say whether the wall clock is known good (NTP, or an RTC that was set)."""
        ...


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a device is, told once in its `birth`.

    Attributes:
        boot_id: The kernel's, new at each boot.
        architecture: `X86_64` or `ARM64`, in ECS's words.
        cpu_units: 1024 for each core.
        memory_mib: In MiB.
        memory_limits: Whether the kernel enforces memory limits (off by default on Raspberry Pi OS).
    """

    boot_id: str
    architecture: str
    cpu_units: int
    memory_mib: int
    kernel: str
    os_name: str
    memory_limits: bool


class Proofs(Protocol):
    """What there is of an image's signatures, as bytes that nobody believes yet (`image_trust.evidence`)."""

    def gather(self, reference: str, architecture: str) -> bytes:
        """Fetch it.

        Raises:
            ImagePullError: The registry answered, and there is no such image.
            RegistryUnavailableError: It did not answer in time.
        """
        ...

    def kept(self, reference: str) -> tuple[bytes, ...]:
        """Return what was kept for a reference, the newest first."""
        ...

    def keep(self, reference: str, image_id: str, data: bytes) -> None:
        """Keep it for an image in the local store.

        Raises:
            StoreError: It cannot be kept; without it the image would not start without a network.
        """
        ...


class Host(Protocol):
    """The machine: facts, task-level limits, ports."""

    def facts(self) -> HostFacts:
        """Return what the device is."""
        ...

    def limit_task(self, task_id: str, *, cpu_units: int | None, memory_mib: int | None) -> str:
        """Make the task's cgroup with these limits and return the parent the engine must put containers under.

        Returns an empty string when the task has no limits of its own. Calling it again is harmless.

        Raises:
            EngineError: The kernel refuses the limit.
        """
        ...

    def real_path(self, path: str) -> str:
        """Return where a path leads once every symbolic link is followed; what is not there stays as it is."""
        ...

    def release_task(self, task_id: str) -> None:
        """Remove the task's cgroup, if it has one; its containers are gone, and their monitors get a moment to end."""
        ...

    def ports_in_use(self, protocol: str) -> frozenset[int]:
        """Return the host's listening (TCP) or bound (UDP) ports, `protocol` being `tcp` or `udp`."""
        ...

    def dynamic_port_range(self) -> range:
        """Return the kernel's `ip_local_port_range`, from which dynamic host ports are chosen."""
        ...
