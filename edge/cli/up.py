"""`edge up`: the agent, the image service and Podman's API service under one supervisor, for hosts without systemd."""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edge import locks, managed_runtime
from edge.errors import EdgeError, EngineError, InvalidInputError, NotFoundError, RefusedError, StoreError
from edge.fd_store import check_socket_path
from edge.files import make_folder
from edge.images.image_store import ImageStore
from edge.podman_host import PodmanHostFacts, choose_podman_flags, read_facts
from edge.supervisor import Child, Start, Supervisor

HELP = "run the agent, the image service and Podman's service on a host without systemd"
_IDLE_SECONDS = 60
"""Longer than a task's start has pauses, short against the hours a device is idle: see docs/hosts.md."""
_LEFT_OVER_SECONDS = 10.0
_MAX_CONFIG = 1 << 20
_NOT_FOR_CHILDREN = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "CONTAINER_HOST")


@dataclass(frozen=True, slots=True)
class UpConfig:
    """The settings of `agent.toml` that `edge up` needs, made absolute."""

    podman_socket: Path
    state_dir: Path
    images_socket: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge up`."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the device's agent.toml")
    parser.add_argument("--podman-root", type=Path, metavar="DIR", help="Podman's image and container store")
    parser.add_argument("--podman-runroot", type=Path, metavar="DIR", help="Podman's state of this boot")
    parser.add_argument(
        "--podman-storage-opt", action="append", default=[], metavar="OPTION", help="a storage option; may be repeated"
    )
    parser.add_argument(
        "--no-lazy-images", action="store_true", help="no image service: every image is pulled whole before it starts"
    )
    parser.add_argument(
        "--podman-idle-seconds",
        type=int,
        default=_IDLE_SECONDS,
        metavar="N",
        help="end Podman's service after N idle seconds, 0 to keep it (default: %(default)s); it starts on demand",
    )


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT. Containers go on when it ends, however it ends."""
    agent = (*managed_runtime.program(), "agent", "run", "--config", str(args.config.absolute()))
    return run_with(args, agent, _print)


def _resume_update(config: Path, state_dir: Path) -> None:
    """Let an update that was cut off be judged: by the version that proved itself, in a session of its own."""
    base = managed_runtime.managed_base()
    if base is None or not managed_runtime.is_update_open(state_dir):
        return
    program = managed_runtime.updater(base, config)
    with suppress(OSError):
        # It must outlive us, and is nobody's to wait for.
        subprocess.run(("setsid", "--fork", *program), stdin=subprocess.DEVNULL, check=False)  # noqa: S603, S607


def run_with(args: argparse.Namespace, agent: Sequence[str], log: Callable[[str], None]) -> int:
    """Run with this program as the agent."""
    _check_host(os.environ, os.geteuid())
    config = read_config(args.config)
    facts = read_facts()
    lazy = not args.no_lazy_images and os.path.exists("/dev/fuse")  # noqa: PTH110
    if lazy:
        # Podman reads the store from its first command on, and the image service may come later.
        ImageStore(images_dir(config) / "store")
        args.podman_storage_opt = [*args.podman_storage_opt, f"additionalimagestore={images_dir(config)}/store"]
    elif not args.no_lazy_images:
        log("warning: there is no /dev/fuse, images are pulled whole before they start (modprobe fuse)")
    podman = podman_command(args, facts)
    if not facts.memory_controller:
        log("warning: the kernel's memory controller is off, tasks' memory limits have no effect (docs/hosts.md)")
    with _lock(config.state_dir), _listen(config.podman_socket) as listening:
        try:
            children = _children(podman, agent, args.podman_idle_seconds, listening.fileno())
            if lazy:
                children = (_image_service(config), *children)
            _resume_update(args.config.absolute(), config.state_dir)
            supervisor = Supervisor(children, config.state_dir / "run", log)
            supervisor.run(lambda: log(f"edge is up: agent and Podman (on {config.podman_socket})"))
        finally:
            config.podman_socket.unlink(missing_ok=True)
    return 0


def podman_command(args: argparse.Namespace, facts: PodmanHostFacts) -> tuple[str, ...]:
    """Return `podman` with the global flags this host and these options ask for.

    Raises:
        EngineError: Podman, or an OCI runtime that works here, is not installed.
    """
    podman = shutil.which("podman")
    if podman is None:
        raise EngineError("podman is not installed, or not on PATH", hint="Install it: apt install podman")
    flags: list[str] = []
    if args.podman_root:
        flags += ["--root", str(args.podman_root.absolute())]
    if args.podman_runroot:
        runroot = args.podman_runroot.absolute()
        # Without its own, libpod's state of the boot would be shared with the host's default store.
        flags += ["--runroot", str(runroot), "--tmpdir", str(runroot / "libpod")]
    for option in args.podman_storage_opt:
        flags += ["--storage-opt", option]
    return (podman, *choose_podman_flags(facts), *flags)


def read_config(path: Path) -> UpConfig:
    """Read what `edge up` needs of `agent.toml`; the agent judges the rest.

    Raises:
        NotFoundError: There is no such file, or it cannot be read.
        InvalidInputError: It is not TOML, or a setting is missing.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG).decode()
        document = tomllib.loads(text)
    except OSError as error:
        raise NotFoundError(
            f"cannot read {path}: {error.strerror}", hint="`edge device add` writes an agent.toml for a device."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is not TOML: {error}") from error
    folder = path.absolute().parent
    socket_path = folder / _setting(document, "podman", "socket", path).removeprefix("unix://")
    check_socket_path(socket_path)
    state_dir = folder / _setting(document, "storage", "state_dir", path)
    section = document.get("images")
    named = section.get("socket") if isinstance(section, dict) else None
    images_socket = folder / named if isinstance(named, str) and named else state_dir / "run" / "images.sock"
    return UpConfig(socket_path, state_dir, images_socket)


def _setting(document: Mapping[str, object], table: str, key: str, path: Path) -> str:
    section = document.get(table)
    value = section.get(key) if isinstance(section, dict) else None
    if not isinstance(value, str) or not value:
        raise InvalidInputError(
            f"{path}: [{table}] {key} must be a path", problems=((f"{table}.{key}", "must be a path, as a string"),)
        )
    return value


def _check_host(env: Mapping[str, str], euid: int) -> None:
    if euid != 0:
        raise RefusedError("edge up must run as root", hint="Run it with sudo.")
    if "CONTAINERS_STORAGE_CONF" in env:
        raise InvalidInputError(
            "CONTAINERS_STORAGE_CONF is set: Podman's clean-up would use another store than its containers",
            hint="Unset it; use /etc/containers/storage.conf, or --podman-root and --podman-runroot.",
        )


def _children(podman: tuple[str, ...], agent: Sequence[str], idle_seconds: int, listening: int) -> tuple[Child, ...]:
    env = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_CHILDREN}
    # conmon before 2.1.13 leaves an empty file `oom` in the directory Podman was started in (containers/conmon#504).
    service = ("env", "--chdir=/run", *podman, "system", "service", "--time", str(idle_seconds))
    return (
        Child("podman", service, env, Start.ON_DEMAND, (("podman", listening),)),
        # Longer than Podman's: it may wait for a call to Podman before it can commit what came of it.
        Child("agent", tuple(agent), env, stop_timeout_seconds=20.0),
    )


def images_dir(config: UpConfig) -> Path:
    """Return where the image service keeps everything."""
    return config.state_dir / "images"


def _image_service(config: UpConfig) -> Child:
    env = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_CHILDREN}
    where = ("--state-dir", str(images_dir(config)), "--socket", str(config.images_socket))
    return Child("images", (*managed_runtime.program(), "images", "serve", *where), env)


@contextmanager
def _lock(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for one `edge up`; the kernel lets go of it when the process ends, however it ends."""
    try:
        make_folder(state_dir)
        file = (state_dir / "up.lock").open("ab")
    except OSError as error:
        raise StoreError(f"cannot use the state directory {state_dir}: {error.strerror}") from error
    with file:
        if not locks.take(file):
            raise RefusedError(
                f"another `edge up` runs on {state_dir}", hint="Stop it first, or use another state_dir."
            )
        yield


def _listen(path: Path) -> socket.socket:
    """Listen on `path` in place of whatever a dead service left there.

    A service whose supervisor was killed has got its SIGTERM and is about to end: it is waited for.

    Raises:
        RefusedError: Somebody else goes on listening there.
    """
    deadline = time.monotonic() + _LEFT_OVER_SECONDS
    while _is_served(path):
        if time.monotonic() > deadline:
            raise RefusedError(
                f"another program serves {path}", hint="Stop it (systemd's podman.socket?), or change [podman] socket."
            )
        time.sleep(0.1)
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o077)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listening.bind(str(path))
    except OSError as error:
        listening.close()
        raise EdgeError(f"cannot make the socket {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    listening.listen(128)
    return listening


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _print(line: str) -> None:
    with suppress(OSError):  # Whoever read our log is gone; the work goes on.
        print(line, file=sys.stderr, flush=True)
