"""`ContainerEngine` fulfilled by Podman 4.3.1 to 5.x over its service's socket."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from edge.agent.adapters.lazy_images import LazyImages, prepared
from edge.agent.adapters.podman.api import NO_SPACE, PodmanApi, refusal
from edge.agent.adapters.podman.exits import ExitWatcher, is_process_of
from edge.agent.adapters.podman.kernel_log import killed_for_memory
from edge.agent.adapters.podman.log_frames import LogStream
from edge.agent.adapters.podman.runtime_exec import RuntimeExec
from edge.agent.adapters.podman.secret_places import SecretPlaces
from edge.agent.adapters.podman.spec import render_spec
from edge.agent.engine.ports import EngineStatus, FoundContainer, Image, LogLine
from edge.errors import (
    EngineError,
    EngineFullError,
    EngineUnavailableError,
    ImagePullError,
    NameInUseError,
    NoSuchContainerError,
    NoSuchImageError,
    RegistryUnavailableError,
)
from edge.model.container_spec import ContainerSpec, VolumeSpec
from edge.podman_host import choose_ulimits, read_facts

_STATUS: Final[Mapping[str, EngineStatus]] = {
    "created": EngineStatus.CREATED,
    "configured": EngineStatus.CREATED,
    "initialized": EngineStatus.CREATED,
    "running": EngineStatus.RUNNING,
    "paused": EngineStatus.RUNNING,
    "stopping": EngineStatus.RUNNING,
    "stopped": EngineStatus.EXITED,
    "exited": EngineStatus.EXITED,
}
_CREATE_SECONDS: Final = 120.0
_PULL_SECONDS: Final = 3600.0
_KILLED: Final = 128 + 9
"""The exit code of a process that SIGKILL ended."""
_SETTLE_SECONDS: Final = 2.0
"""How long Podman gets to record an exit that the kernel has told us of already."""
_SETTLE_PAUSE_SECONDS: Final = 0.02
_REGISTRY_AWAY: Final = (
    "connection refused",
    "no such host",
    "i/o timeout",
    "deadline exceeded",
    "network is unreachable",
    "no route to host",
    "connection reset",
    "tls handshake timeout",
    "unexpected eof",
    "server misbehaving",
    "temporary failure in name resolution",
    "received unexpected http status: 5",
    "toomanyrequests",
)


class PodmanEngine:
    """Podman behind a Unix socket; the contract is `ContainerEngine`'s."""

    def __init__(self, socket: Path, images: LazyImages | None = None) -> None:
        self._socket = socket
        self._images = images
        self._api = PodmanApi(socket)
        self._exits = ExitWatcher()
        self._limits = dict(choose_ulimits(read_facts()))
        self._checks = RuntimeExec(self._runtime_of)
        self._secrets = SecretPlaces(self._api)

    def version(self) -> str:
        """See `ContainerEngine`."""
        answer = self._api.call("GET", "/version").json()
        return str(answer.get("Version", ""))

    # --- images

    def image(self, reference: str) -> Image | None:
        """See `ContainerEngine`."""
        try:
            answer = self._api.call(
                "GET", f"/images/{quote(reference, safe='')}/json", reason="CannotInspectImageError"
            )
        except NoSuchImageError:
            return None
        return None if answer.status == 404 else _image(answer.json())  # noqa: PLR2004

    def pull(self, reference: str, architecture: str, *, proven: bool = False) -> Image:
        """See `ContainerEngine`."""
        if "@sha256:" in reference:
            there = self.image(reference)
            if there is not None and there.architecture == architecture:
                return self._sealed(there) if proven else there
        lazy, why_not = prepared(self._images, reference, architecture, proven=proven)
        if lazy is not None:
            return lazy
        image_id = self._pull(reference, architecture)
        image = self.image(image_id)
        if image is None:
            raise EngineUnavailableError(f"{reference} was pulled, and is not there any more")
        if image.architecture != architecture:
            raise ImagePullError(
                f"{reference} is for {image.architecture}, this device is {architecture}",
                reason="CannotPullContainerError",
                hint="Push the image for this device's architecture too.",
            )
        return replace(self._sealed(image) if proven else image, note=why_not)

    def _sealed(self, image: Image) -> Image:
        """The image service may serve it, or a layer of it, by an index that nobody has signed."""
        if self._images is not None:
            self._images.check_sealed(image.image_id)
        return image

    def protect_images(self, image_ids: frozenset[str]) -> None:
        """See `ContainerEngine`: Podman itself removes nothing unasked."""
        if self._images is not None:
            self._images.protect(image_ids)

    def images_started(self, image_ids: frozenset[str], after_seconds: float) -> None:
        """See `ContainerEngine`: Podman itself learns nothing from it."""
        if self._images is not None:
            self._images.started(image_ids, after_seconds)

    def _pull(self, reference: str, architecture: str) -> str:
        parameters = {"reference": reference, "Arch": architecture, "policy": "always", "quiet": "true"}
        image_id = ""
        with closing(
            self._api.stream("POST", "/images/pull", parameters=parameters, timeout=_PULL_SECONDS)
        ) as response:
            if response.status_code >= 400:  # noqa: PLR2004
                error = refusal(response.status_code, response.content, "CannotPullContainerError", ImagePullError)
                raise _pull_error(reference, str(error))
            # A failed pull is a success to HTTP: what went wrong stands in the stream.
            for document in _documents(response.iter_content(chunk_size=None)):
                if document.get("error"):
                    raise _pull_error(reference, str(document["error"]))
                image_id = str(document.get("id") or image_id)
        if not image_id:
            raise EngineUnavailableError(f"Podman broke off while it pulled {reference}")
        return image_id

    # --- containers

    def create(self, spec: ContainerSpec) -> str:
        """See `ContainerEngine`."""
        for mount in spec.mounts:
            if mount.kind == "bind":
                _make_source(Path(mount.source))
        self._secrets.remember([file for _, file in spec.secrets])
        try:
            return self._create(spec)
        except NameInUseError:
            if self.find(spec.name) is not None:
                raise
            # A service that died in mid-create leaves a half in its storage that it does not know itself, and that
            # keeps the name for ever; removing by name with force takes it away (seen on 4.3.1).
            self.remove(spec.name)
            return self._create(spec)

    def _create(self, spec: ContainerSpec) -> str:
        answer = self._api.call(
            "POST",
            "/containers/create",
            document=render_spec(spec, self._limits),
            timeout=_CREATE_SECONDS,
            reason="CannotCreateContainerError",
            missing=NoSuchImageError,
        )
        return str(answer.json()["Id"])

    def start(self, runtime_id: str) -> FoundContainer:
        """See `ContainerEngine`."""
        try:
            self._api.call(
                "POST",
                f"/containers/{runtime_id}/start",
                timeout=_CREATE_SECONDS,
                reason="CannotStartContainerError",
                missing=NoSuchContainerError,
            )
        except EngineError:
            # Podman had written its configuration before it failed.
            with contextlib.suppress(EngineError):
                if (failed := self.inspect(runtime_id)) is not None:
                    self._secrets.cover(failed)
            raise
        found = self.inspect(runtime_id)
        if found is None:
            raise NoSuchContainerError(f"container {runtime_id[:12]} was removed while it started")
        self._secrets.cover(found)
        return found

    def stop(self, runtime_id: str, timeout_seconds: int) -> None:
        """See `ContainerEngine`."""
        self._api.call(
            "POST",
            f"/containers/{runtime_id}/stop",
            parameters={"timeout": timeout_seconds},
            timeout=timeout_seconds + 60.0,
            reason="CannotStopContainerError",
        )

    def remove(self, runtime_id: str) -> None:
        """See `ContainerEngine`."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            try:
                self._api.call(
                    "DELETE",
                    f"/containers/{quote(runtime_id, safe='')}",
                    parameters={"force": "true", "v": "true", "timeout": 0},
                    timeout=_CREATE_SECONDS,
                    reason="CannotRemoveContainerError",
                )
            except EngineError as error:
                # It ended by itself between Podman's look and Podman's kill, or its monitor is gone: the next look
                # sees that.
                if "could not be stopped" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_SETTLE_PAUSE_SECONDS)
            else:
                break
        self._exits.forget(runtime_id)

    def inspect(self, runtime_id: str) -> FoundContainer | None:
        """See `ContainerEngine`."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            late = time.monotonic() > deadline
            try:
                answer = self._api.call("GET", f"/containers/{quote(runtime_id, safe='')}/json")
            except EngineError as error:
                # Podman fails when the process ends while it looks at it: `read /proc/17198/cgroup: no such process`.
                if "no such process" not in str(error) or late:
                    raise
            else:
                if answer.status == 404:  # noqa: PLR2004
                    return None
                found = _found(answer.json())
                ghost = found.status is EngineStatus.RUNNING and not is_process_of(found.runtime_id, found.pid)
                if not ghost:
                    return self._with_memory_kill(found)
                if late:
                    return _without_process(found)
            time.sleep(_SETTLE_PAUSE_SECONDS)

    def _with_memory_kill(self, found: FoundContainer) -> FoundContainer:
        # Podman's own OOMKilled is never true before 5.0, and after it stays true in a later run of the container.
        if not found.exit_code:
            return found
        killed = self._exits.was_out_of_memory(found.runtime_id) or (
            found.exit_code == _KILLED and killed_for_memory(found.runtime_id, found.started_at)
        )
        return replace(found, oom_killed=True) if killed else found

    def find(self, name: str) -> FoundContainer | None:
        """See `ContainerEngine`."""
        return self.inspect(name)

    def list_labelled(self, label: str, value: str) -> tuple[FoundContainer, ...]:
        """See `ContainerEngine`."""
        filters = json.dumps({"label": [f"{label}={value}"]})
        answer = self._api.call(
            "GET",
            "/containers/json",
            parameters={"all": "true", "filters": filters},
            reason="CannotListContainersError",
        )
        listed = [_listed(row) for row in answer.json()]
        for container in listed:
            # It may have been started by an agent that was killed before it could do this.
            self._secrets.cover_if_possible(container)
        found = (self._settled(container) for container in listed)
        return tuple(container for container in found if container is not None)

    def _settled(self, listed: FoundContainer) -> FoundContainer | None:
        """A list says nothing of how a container ended: those that do not run are looked at one by one."""
        if listed.status is EngineStatus.CREATED:
            return listed
        if listed.status is EngineStatus.RUNNING and is_process_of(listed.runtime_id, listed.pid):
            return listed
        return self.inspect(listed.runtime_id)

    def forget_secrets(self, files: Sequence[str]) -> None:
        """See `ContainerEngine`."""
        self._secrets.forget(files)

    # --- volumes

    def create_volume(self, spec: VolumeSpec) -> None:
        """See `ContainerEngine`."""
        if self._api.call("GET", f"/volumes/{quote(spec.name, safe='')}/json").status == 200:  # noqa: PLR2004
            return
        document = {
            "Name": spec.name,
            "Driver": spec.driver,
            "Options": dict(spec.options),
            "Label": dict(spec.labels),
            "Labels": dict(spec.labels),
        }
        try:
            self._api.call("POST", "/volumes/create", document=document, reason="CannotCreateVolumeError")
        except EngineError as error:
            if "already exists" not in str(error):
                raise

    def remove_volume(self, name: str) -> None:
        """See `ContainerEngine`."""
        self._api.call("DELETE", f"/volumes/{quote(name, safe='')}", reason="CannotRemoveVolumeError")

    # --- logs and exits

    def logs(self, runtime_id: str, *, tail: int | None, follow: bool) -> Iterator[LogLine]:
        """See `ContainerEngine`."""
        parameters = {
            "stdout": "true",
            "stderr": "true",
            "timestamps": "true",
            "follow": str(follow).lower(),
            "tail": "all" if tail is None else str(tail),
        }
        if self._log_driver(runtime_id) == "none":
            raise EngineError(
                "the container's log driver is none: nothing was kept",
                reason="CannotReadLogError",
                hint="Use logDriver json-file or journald.",
            )
        return LogStream(self._socket, runtime_id, parameters, follow=follow)

    def _log_driver(self, runtime_id: str) -> str:
        answer = self._api.call("GET", f"/containers/{runtime_id}/json", missing=NoSuchContainerError)
        return str(answer.json().get("HostConfig", {}).get("LogConfig", {}).get("Type", ""))

    def run_check(self, runtime_id: str, command: Sequence[str], timeout_seconds: float) -> bool:
        """See `ContainerEngine`."""
        return self._checks.run(runtime_id, command, timeout_seconds)

    def _runtime_of(self, runtime_id: str) -> str:
        answer = self._api.call("GET", f"/containers/{runtime_id}/json", missing=NoSuchContainerError)
        return str(answer.json().get("OCIRuntime", ""))

    def watch_exit(self, container: FoundContainer, exited: Callable[[str], None]) -> None:
        """See `ContainerEngine`."""
        self._exits.watch(container.runtime_id, container.pid, exited)

    def close(self) -> None:
        """See `ContainerEngine`."""
        self._exits.close()
        if self._images is not None:
            self._images.close()


def _found(document: Mapping[str, Any]) -> FoundContainer:
    state = document.get("State", {})
    status = _STATUS.get(str(state.get("Status", "")).lower(), EngineStatus.GONE_WRONG)
    ran = _time(state.get("FinishedAt"))
    return FoundContainer(
        runtime_id=str(document["Id"]),
        name=str(document.get("Name", "")).lstrip("/"),
        labels=dict(document.get("Config", {}).get("Labels") or {}),
        status=status,
        pid=int(state.get("Pid") or 0) if status is EngineStatus.RUNNING else 0,
        exit_code=int(state.get("ExitCode", 0)) if ran and status is EngineStatus.EXITED else None,
        started_at=_time(state.get("StartedAt")),
        finished_at=ran,
        image_id=str(document.get("Image", "")).removeprefix("sha256:"),
    )


def _listed(row: Mapping[str, Any]) -> FoundContainer:
    status = _STATUS.get(str(row.get("State", "")).lower(), EngineStatus.GONE_WRONG)
    started = int(row.get("StartedAt") or 0)
    return FoundContainer(
        runtime_id=str(row["Id"]),
        name=str((row.get("Names") or [""])[0]),
        labels=dict(row.get("Labels") or {}),
        status=status,
        pid=int(row.get("Pid") or 0) if status is EngineStatus.RUNNING else 0,
        started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)) if started > 0 else "",
        image_id=str(row.get("ImageID", "")).removeprefix("sha256:"),
    )


def _without_process(found: FoundContainer) -> FoundContainer:
    """Podman believes in it and the kernel does not: conmon was killed before it could record the exit."""
    return replace(found, status=EngineStatus.EXITED, pid=0, exit_code=None, finished_at="")


def _image(document: Mapping[str, Any]) -> Image:
    digests = document.get("RepoDigests") or []
    digest = str(document.get("Digest") or (digests[0].partition("@")[2] if digests else ""))
    return Image(
        str(document["Id"]).removeprefix("sha256:"), digest if digests else "", str(document.get("Architecture", ""))
    )


def _time(value: Any) -> str:
    text = str(value or "")
    return "" if text.startswith("0001-") else text


def _documents(chunks: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a stream, one to a line."""
    rest = b""
    try:
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    yield json.loads(line)
        if rest.strip():
            yield json.loads(rest)
    except (OSError, ValueError) as error:  # requests' and urllib3's errors are OSErrors; half a line is no JSON
        raise EngineUnavailableError(f"Podman broke off in the middle of an answer: {error}") from error


def _pull_error(reference: str, message: str) -> EngineError:
    text = message.lower()
    if any(sign in text for sign in NO_SPACE):
        return EngineFullError(f"{reference}: {message}", reason="CannotPullContainerError")
    if any(sign in text for sign in _REGISTRY_AWAY):
        return RegistryUnavailableError(f"{reference}: {message}", reason="CannotPullContainerError")
    return ImagePullError(f"{reference}: {message}", reason="CannotPullContainerError")


def _make_source(path: Path) -> None:
    """ECS creates a host path that is missing; Podman refuses it."""
    try:
        if not path.exists():
            path.mkdir(parents=True)
    except OSError as error:
        raise EngineError(
            f"cannot make the host path {path}: {error.strerror}", reason="CannotCreateContainerError"
        ) from error
