"""The container engine in memory: `ContainerEngine`'s contract without a process."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from edge.agent.engine.ports import EngineStatus, FoundContainer, Image, LogLine
from edge.errors import (
    EngineError,
    EngineUnavailableError,
    ImagePullError,
    NameInUseError,
    NoSuchContainerError,
    NoSuchImageError,
    PortInUseError,
    RegistryUnavailableError,
)
from edge.model.container_spec import ContainerSpec, VolumeSpec

_KILLED = 137


class FakeEngine:
    """Fulfils `ContainerEngine`; what a container does is told by `say` and `end`.

    Attributes:
        registry: What can be pulled, by reference; None while the registry is away.
        images: The local store, by reference.
        started: What was said of containers that are ready.
        alive: While False every call raises `EngineUnavailableError`, as when Podman's service is dead.
    """

    def __init__(self) -> None:
        self.registry: dict[str, Image] | None = {}
        self.images: dict[str, Image] = {}
        self.volumes: dict[str, VolumeSpec] = {}
        self.alive = True
        self.secret_files: set[str] = set()
        self.environments: dict[str, dict[str, str]] = {}
        self.started: list[tuple[frozenset[str], float]] = []
        self._containers: dict[str, FoundContainer] = {}
        self._specs: dict[str, ContainerSpec] = {}
        self._lines: dict[str, list[LogLine]] = {}
        self._watchers: dict[str, list[Callable[[str], None]]] = {}
        self._changed = threading.Condition(threading.RLock())
        self._count = 0

    def say(self, runtime_id: str, text: str, stream: str = "stdout") -> None:
        """Let a container write one line."""
        with self._changed:
            self._lines.setdefault(runtime_id, []).append(LogLine(self._time(), stream, text))
            self._changed.notify_all()

    def end(self, runtime_id: str, code: int) -> None:
        """Let a container's process end by itself."""
        with self._changed:
            running = self._containers[runtime_id]
            ended = replace(running, status=EngineStatus.EXITED, pid=0, exit_code=code, finished_at=self._time())
            self._containers[runtime_id] = ended
            watchers = self._watchers.pop(runtime_id, [])
            self._changed.notify_all()
        for exited in watchers:
            threading.Thread(target=exited, args=(runtime_id,), daemon=True).start()

    def run_check(self, runtime_id: str, command: Sequence[str], timeout_seconds: float) -> bool:
        """What `true` says, and what everything else does not."""
        with self._changed:
            found = self._containers.get(runtime_id)
        if found is None or found.status is not EngineStatus.RUNNING:
            raise NoSuchContainerError(f"container {runtime_id[:12]} does not run")
        assert timeout_seconds > 0
        return command[0] == "true"

    def version(self) -> str:
        self._answer()
        return "4.3.1"

    def pull(self, reference: str, architecture: str, *, proven: bool = False) -> Image:
        assert not proven or "@sha256:" in reference
        self._answer()
        there = self.images.get(reference)
        if there is not None and "@sha256:" in reference and there.architecture == architecture:
            return there
        if self.registry is None:
            raise RegistryUnavailableError(f"{reference}: connection refused", reason="CannotPullContainerError")
        image = self.registry.get(reference)
        if image is None or image.architecture != architecture:
            raise ImagePullError(f"{reference}: manifest unknown", reason="CannotPullContainerError")
        self.images[reference] = image
        return image

    def image(self, reference: str) -> Image | None:
        self._answer()
        return self.images.get(reference) or next((i for i in self.images.values() if i.image_id == reference), None)

    def protect_images(self, image_ids: frozenset[str]) -> None:
        """See `ContainerEngine`."""
        self.protected = image_ids

    def images_started(self, image_ids: frozenset[str], after_seconds: float) -> None:
        """See `ContainerEngine`."""
        self.started.append((image_ids, after_seconds))

    def create(self, spec: ContainerSpec) -> str:
        with self._changed:
            self._answer()
            if any(one.name == spec.name for one in self._containers.values()):
                raise NameInUseError(f"the container name {spec.name} is already in use")
            if all(image.image_id != spec.image_id for image in self.images.values()):
                raise NoSuchImageError(f"{spec.image_id}: image not known")
            self.secret_files.update(file for _, file in spec.secrets)
            self._count += 1
            runtime_id = sha256(str(self._count).encode()).hexdigest()
            self._specs[runtime_id] = spec
            self._containers[runtime_id] = FoundContainer(
                runtime_id, spec.name, dict(spec.labels), EngineStatus.CREATED, image_id=spec.image_id
            )
            return runtime_id

    def start(self, runtime_id: str) -> FoundContainer:
        with self._changed:
            self._answer()
            container = self._containers.get(runtime_id)
            if container is None:
                raise NoSuchContainerError(f"no container {runtime_id}", reason="CannotStartContainerError")
            if container.status is EngineStatus.RUNNING:
                return container
            if self._ports(runtime_id) & {port for one in self._running() for port in self._ports(one)}:
                raise PortInUseError("address already in use", reason="CannotStartContainerError")
            secrets = self._specs[runtime_id].secrets
            try:
                values = {variable: Path(file).read_text() for variable, file in secrets}
            except OSError as error:
                raise EngineError(f"a secret: {error}", reason="CannotStartContainerError") from error
            self.environments[runtime_id] = {**dict(self._specs[runtime_id].environment), **values}
            self._count += 1
            self._containers[runtime_id] = replace(
                container,
                status=EngineStatus.RUNNING,
                pid=100_000 + self._count,
                started_at=self._time(),
                exit_code=None,
                finished_at="",
            )
            return self._containers[runtime_id]

    def stop(self, runtime_id: str, timeout_seconds: int) -> None:
        del timeout_seconds
        self._answer()
        if runtime_id in self._running():
            self.end(runtime_id, _KILLED)

    def remove(self, runtime_id: str) -> None:
        self.stop(runtime_id, 0)
        with self._changed:
            self._containers.pop(runtime_id, None)
            self._specs.pop(runtime_id, None)

    def inspect(self, runtime_id: str) -> FoundContainer | None:
        self._answer()
        return self._containers.get(runtime_id)

    def find(self, name: str) -> FoundContainer | None:
        self._answer()
        return next((one for one in self._containers.values() if one.name == name), None)

    def list_labelled(self, label: str, value: str) -> tuple[FoundContainer, ...]:
        self._answer()
        return tuple(one for one in self._containers.values() if one.labels.get(label) == value)

    def forget_secrets(self, files: Sequence[str]) -> None:
        """See `ContainerEngine`."""
        self._answer()
        self.secret_files.difference_update(files)

    def create_volume(self, spec: VolumeSpec) -> None:
        self._answer()
        self.volumes.setdefault(spec.name, spec)

    def remove_volume(self, name: str) -> None:
        self._answer()
        self.volumes.pop(name, None)

    def logs(self, runtime_id: str, *, tail: int | None, follow: bool) -> Iterator[LogLine]:
        with self._changed:
            self._answer()
            if runtime_id not in self._containers:
                raise NoSuchContainerError(f"no container {runtime_id}", reason="CannotReadLogError")
            if self._specs[runtime_id].log.driver == "none":
                raise EngineError("the container's log driver is none", reason="CannotReadLogError")
            written = list(self._lines.get(runtime_id, []))
            first = 0 if tail is None else max(0, len(written) - tail)
            return _FakeLog(self, runtime_id, written[first:], follow=follow)

    def watch_exit(self, container: FoundContainer, exited: Callable[[str], None]) -> None:
        with self._changed:
            now = self._containers.get(container.runtime_id)
            if now is not None and now.status is EngineStatus.RUNNING and now.pid == container.pid:
                self._watchers.setdefault(container.runtime_id, []).append(exited)
                return
        exited(container.runtime_id)

    def close(self) -> None:
        with self._changed:
            self._watchers.clear()

    def _answer(self) -> None:
        if not self.alive:
            raise EngineUnavailableError("the engine does not answer", reason="DockerTimeoutError")

    def _running(self) -> list[str]:
        return [one.runtime_id for one in self._containers.values() if one.status is EngineStatus.RUNNING]

    def _ports(self, runtime_id: str) -> set[tuple[str, int]]:
        return {(port.protocol, port.host_port) for port in self._specs[runtime_id].ports}

    def _time(self) -> str:
        self._count += 1
        return f"2026-11-23T12:00:{self._count // 1000:02}.{self._count % 1000:03}Z"


class _FakeLog(Iterator[LogLine]):
    def __init__(self, engine: FakeEngine, runtime_id: str, lines: list[LogLine], *, follow: bool) -> None:
        self._engine, self._runtime_id, self._lines, self._follow = engine, runtime_id, lines, follow
        self._seen = len(engine._lines.get(runtime_id, []))
        self._closed = False

    def __next__(self) -> LogLine:
        with self._engine._changed:
            while not self._closed:
                written = self._engine._lines.get(self._runtime_id, [])
                if self._follow:
                    self._lines.extend(written[self._seen :])
                    self._seen = len(written)
                if self._lines:
                    return self._lines.pop(0)
                if not self._follow or self._runtime_id not in self._engine._running():
                    break
                self._engine._changed.wait()
        raise StopIteration

    def close(self) -> None:
        with self._engine._changed:
            self._closed = True
            self._engine._changed.notify_all()
