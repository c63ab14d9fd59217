"""What the owner of a device allows, whoever has signed a task definition: what is not named here is refused.

Without a word in the device's configuration a task reaches nothing of the host beyond its own containers and volumes.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edge.model.container_spec_builder import DEFAULT_CAPABILITIES, asks_for_new_privileges
from edge.model.image_trust.policy import ImagePolicy, is_below, repository_of, scope_of
from edge.model.task_definition_rules import CAPABILITIES

if TYPE_CHECKING:
    from edge.model.task_definition import ContainerDefinition, TaskDefinition, Volume

READ_ONLY: Final = ":ro"
_HARMLESS_TYPES: Final = frozenset({"tmpfs"})
Problem = tuple[str, str]


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """What a task may ask for.

    Attributes:
        allow_privileged: `privileged`, which is everything.
        allow_host_network: `networkMode` "host".
        allow_new_privileges: A container may let its programs gain privileges by set-user-id files.
        host_paths: Folders and files that may be mounted, with all that is in them; with `:ro`, only read-only. Also
            what the `device` of a volume's `driverOpts` may begin with.
        devices: Device nodes; a `*` at the end stands for anything without a slash.
        capabilities: Beyond those every container has; without `CAP_`.
        registries: Where images may come from, as a registry or a registry with the beginning of a path; `*` is any.
        pids_limit: The most processes and threads of a container.
        images: What an image must have, by where it comes from.
    """

    allow_privileged: bool = False
    allow_host_network: bool = False
    allow_new_privileges: bool = False
    host_paths: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    registries: tuple[str, ...] = ("*",)
    pids_limit: int = 2048
    images: ImagePolicy = field(default_factory=ImagePolicy)

    def problems(self, definition: "TaskDefinition") -> tuple[Problem, ...]:
        """Return `(path, message)` for each thing that a task definition asks for and the owner does not allow."""
        found = [*self._task_problems(definition)]
        for index, container in enumerate(definition.container_definitions):
            where = f"containerDefinitions[{index}]"
            found += [(f"{where}.{path}", message) for path, message in self._container_problems(container)]
        return tuple((path, f"this device's policy does not allow {message}") for path, message in found)

    def allows_path(self, path: str, *, read_only: bool) -> bool:
        """Say whether a path of the host may be mounted."""
        for allowed in self.host_paths:
            folder = allowed.removesuffix(READ_ONLY)
            if (read_only or folder == allowed) and is_below(path, folder):
                return True
        return False

    def _task_problems(self, definition: "TaskDefinition") -> Iterator[Problem]:
        if definition.network_mode == "host" and not self.allow_host_network:
            yield "networkMode", "the host's network (policy.allow_host_network)"
        written = {
            mount.source_volume
            for container in definition.container_definitions
            for mount in container.mount_points
            if not mount.read_only
        }
        for index, volume in enumerate(definition.volumes):
            path, name = _host_path(volume)
            if path is not None and not self.allows_path(path, read_only=volume.name not in written):
                how = "" if self.allows_path(path, read_only=True) else ", not even read-only"
                yield f"volumes[{index}].{name}", f"{path}{how} (policy.host_paths)"

    def _container_problems(self, container: "ContainerDefinition") -> Iterator[Problem]:
        if container.privileged and not self.allow_privileged:
            yield "privileged", "privileged containers (policy.allow_privileged)"
        if asks_for_new_privileges(container) and not self.allow_new_privileges:
            yield "dockerSecurityOptions", "new privileges (policy.allow_new_privileges)"
        if not self._allows_image(container.image):
            yield "image", f"images from {container.image} (policy.registries)"
        if problem := self.images.problem(container.image):
            yield "image", problem
        linux = container.linux_parameters
        if linux is None:
            return
        for index, device in enumerate(linux.devices):
            if not any(_matches(device.host_path, allowed) for allowed in self.devices):
                yield f"linuxParameters.devices[{index}]", f"the device {device.host_path} (policy.devices)"
        added = set(linux.capabilities.add) if linux.capabilities is not None else set[str]()
        more = (set(CAPABILITIES) if "ALL" in added else added) - {*DEFAULT_CAPABILITIES, *self.capabilities}
        if more:
            yield "linuxParameters.capabilities.add", f"{', '.join(sorted(more))} (policy.capabilities)"

    def _allows_image(self, image: str) -> bool:
        name = repository_of(image)
        return any(allowed == "*" or is_below(name, scope_of(allowed)) for allowed in self.registries)


def _host_path(volume: "Volume") -> tuple[str | None, str]:
    """What of the host a volume leads to, None for nothing, and which field says so."""
    if volume.host is not None and volume.host.source_path is not None:
        return volume.host.source_path, "host.sourcePath"
    options = volume.docker_volume_configuration.driver_opts if volume.docker_volume_configuration else {}
    # Podman's local driver hands these to mount(8): `type=none,o=bind,device=/etc` is /etc.
    if not options or options.get("type") in _HARMLESS_TYPES:
        return None, ""
    return options.get("device", ""), "dockerVolumeConfiguration.driverOpts"


def _matches(path: str, allowed: str) -> bool:
    clean = posixpath.normpath(path)
    if not allowed.endswith("*"):
        return clean == allowed
    return clean.startswith(allowed[:-1]) and "/" not in clean[len(allowed) - 1 :]
