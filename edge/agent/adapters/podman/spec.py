"""A `ContainerSpec` as Podman's SpecGenerator: pure, and complete, so that no default of Podman decides anything.

Key names: github.com/containers/podman `pkg/specgen/specgen.go` at v4.3.1 and v5.4.2 (both take all of these; a key
that one does not know it ignores in silence, which is why the contract suite looks at what came out).
"""

from collections.abc import Mapping
from typing import Any, Final

from edge.model.container_spec import ContainerSpec, Mount

_ALL: Final = "ALL"


def render_spec(spec: ContainerSpec, limits: Mapping[str, int]) -> dict[str, Any]:
    """Return the JSON for `POST /libpod/containers/create`.

    Args:
        spec: What is wanted.
        limits: Highest value this host grants, by resource; a container that asks for more would not start.
    """
    full: dict[str, Any] = {
        "name": spec.name,
        "image": spec.image_id,
        "labels": dict(spec.labels),
        "command": _list(spec.command),
        "entrypoint": _list(spec.entrypoint),
        "work_dir": spec.working_directory,
        "env": dict(spec.environment),
        "secret_env": {variable: secret_name(file) for variable, file in spec.secrets},
        "user": spec.user,
        "hostname": spec.hostname,
        "hostadd": [f"{name}:{address}" for name, address in spec.extra_hosts],
        "dns_server": list(spec.dns_servers),
        "netns": {"nsmode": spec.network_mode},
        "portmappings": [
            {"container_port": p.container_port, "host_port": p.host_port, "protocol": p.protocol} for p in spec.ports
        ],
        "mounts": [_mount(mount) for mount in spec.mounts if mount.kind != "volume"],
        "volumes": [_volume(mount) for mount in spec.mounts if mount.kind == "volume"],
        "volumes_from": [f"{source}:{'ro' if read_only else 'rw'}" for source, read_only in spec.volumes_from],
        "read_only_filesystem": spec.read_only_root,
        "init": spec.init,
        "devices": [{"path": f"{d.host_path}:{d.container_path}:{d.permissions}"} for d in spec.devices],
        "r_limits": _ulimits(spec, limits),
        "shm_size": spec.shm_bytes,
        "resource_limits": _resources(spec),
        "cgroup_parent": spec.cgroup_parent,
        "stop_timeout": spec.stop_timeout,
        "log_configuration": _log(spec),
    }
    rendered = {key: value for key, value in full.items() if value not in (None, "", [], {})}
    rendered.update(_fixed(spec))
    return rendered


def secret_name(file: str) -> str:
    """Return Podman's name for the secret whose value stands in a file while a container starts."""
    return f"edge-{file.rpartition('/')[2]}"


def _fixed(spec: ContainerSpec) -> dict[str, Any]:
    """What is said even when it is nothing: here Podman's default is not ECS's."""
    fixed: dict[str, Any] = {
        # Health checks and restarts are the agent's: Podman's know neither ECS's rules nor a reboot.
        "healthconfig": {"Test": ["NONE"]},
        "restart_policy": "no",
        "sdnotifyMode": "ignore",
        "terminal": False,
        # As Docker: a read-only root has no writable /tmp and /run unless the task says so.
        "read_write_tmpfs": False,
        "privileged": spec.privileged,
        "no_new_privileges": spec.no_new_privileges,
    }
    if spec.command == ():
        fixed["command"] = []
    if not spec.privileged:
        # The whole set, because Podman's own default differs between 4.3 and 5.x.
        fixed["cap_drop"] = [_ALL]
        fixed["cap_add"] = [f"CAP_{name}" for name in spec.capabilities]
    return fixed


def _list(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)


def _mount(mount: Mount) -> dict[str, Any]:
    options = [*mount.options, "ro" if mount.read_only else "rw"]
    if mount.kind == "tmpfs":
        return {"type": "tmpfs", "source": "tmpfs", "destination": mount.target, "options": options}
    return {"type": "bind", "source": mount.source, "destination": mount.target, "options": ["rbind", *options]}


def _volume(mount: Mount) -> dict[str, Any]:
    return {"Name": mount.source, "Dest": mount.target, "Options": ["ro"] if mount.read_only else []}


def _ulimits(spec: ContainerSpec, limits: Mapping[str, int]) -> list[dict[str, Any]]:
    wanted = {limit.name: (limit.soft, limit.hard) for limit in spec.ulimits}
    for name, most in limits.items():
        soft, hard = wanted.get(name, (most, most))
        hard = most if hard < 0 else min(hard, most)
        wanted[name] = (hard if soft < 0 else min(soft, hard), hard)
    return [{"type": name, "soft": soft, "hard": hard} for name, (soft, hard) in sorted(wanted.items())]


def _resources(spec: ContainerSpec) -> dict[str, Any]:
    memory = {"limit": spec.memory_bytes, "reservation": spec.memory_reservation_bytes}
    given = {key: value for key, value in memory.items() if value}
    pids = {"pids": {"limit": spec.pids_limit}} if spec.pids_limit else {}
    return {"cpu": {"shares": spec.cpu_shares}} | pids | ({"memory": given} if given else {})


def _log(spec: ContainerSpec) -> dict[str, Any]:
    match spec.log.driver:
        case "json-file":
            # Podman's json-file is its k8s-file; it keeps one file and starts it anew at `size`.
            given = {"size": spec.log.max_bytes, "path": spec.log.path}
            return {"driver": "k8s-file"} | {key: value for key, value in given.items() if value}
        case "journald":
            return {"driver": "journald"} | ({"options": {"tag": spec.log.tag}} if spec.log.tag else {})
        case _:
            return {"driver": "none"}
