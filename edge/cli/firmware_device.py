"""What the commands `edge firmware …` share on a device: its versions, its trial, and what an updater needs."""

import argparse
import hashlib
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.errors import InvalidInputError, NotFoundError, RefusedError
from edge.files import store_error
from edge.managed_runtime import UPDATE_FOLDER, managed_base

if TYPE_CHECKING:
    from edge.agent.config import AgentConfig
    from edge.firmware.runtimes import Runtimes
    from edge.firmware.spool import Spool
    from edge.firmware.updater import Updater
    from edge.model.runtime_bundle import Place
    from edge.model.runtime_update import BundleReference

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""What the kernel says -> what OCI says."""
_COMPATIBLE: Final = Path("/proc/device-tree/compatible")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare where the device's parts are."""
    parser.add_argument("--config", type=Path, default=Path("/etc/edge/agent.toml"), metavar="FILE", help="agent.toml")
    parser.add_argument(
        "--base", type=Path, metavar="DIR", help="the folder of versions (default: where this program is)"
    )


def find_runtimes(args: argparse.Namespace) -> "Runtimes":
    """Return the device's versions.

    Raises:
        NotFoundError: This is no such device.
    """
    from edge.firmware.runtimes import Runtimes  # noqa: PLC0415 - imported when it runs

    base = args.base or managed_base()
    if base is None:
        raise NotFoundError(
            f"this edge, in {sys.prefix}, is not one of several versions in a folder",
            hint="Call the device's own (/opt/edge/current/bin/edge), or name the folder with --base.",
        )
    runtimes = Runtimes(base.absolute())
    runtimes.current()
    return runtimes


def find_spool(config: "AgentConfig") -> "Spool":
    """Return where updates are noted."""
    from edge.firmware.spool import Spool  # noqa: PLC0415 - imported when it runs

    return Spool(config.state_dir / UPDATE_FOLDER)


def make_updater(args: argparse.Namespace, config: "AgentConfig") -> "Updater":
    """Wire an updater of this device.

    Raises:
        RefusedError: Not root.
        NotFoundError: This is no device with versions.
    """
    from edge.agent.local_status import agent_pid, agent_seen, trust_in_force  # noqa: PLC0415 - imported when it runs
    from edge.firmware.services import restart_services  # noqa: PLC0415
    from edge.firmware.updater import Updater, World  # noqa: PLC0415

    if os.geteuid() != 0:
        raise RefusedError("updating edge is root's", hint="Run it with sudo.")
    world = World(
        trust=lambda: trust_in_force(config),
        place=this_place,
        fetch=fetch_bundle,
        look=lambda: agent_seen(config),
        restart=lambda: restart_services(config.state_dir, agent_pid(config)),
        sleep=time.sleep,
        monotonic=time.monotonic,
    )
    return Updater(find_runtimes(args), find_spool(config), world)


def this_place() -> "Place":
    """Return what kind of device this is; the versions are the updater's to fill in."""
    from edge.model.runtime_bundle import Place  # noqa: PLC0415 - imported when it runs

    try:
        boards = tuple(name for name in _COMPATIBLE.read_bytes().decode().split("\0") if name)
    except (OSError, UnicodeDecodeError):
        boards = ()
    machine = platform.machine()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Place("0.0.0", "0.0.0", _ARCHITECTURES.get(machine, machine), python, boards)


def fetch_bundle(ref: "BundleReference", path: Path) -> None:
    """Bring a bundle from its registry; what came before a link broke is not fetched again.

    Raises:
        RegistryUnavailableError: Nobody answered, or broke off; what came stays.
        ImagePullError: The registry has no such bundle.
        RefusedError: It sent something else; nothing stays.
        StoreError: It cannot be written.
    """
    from edge.cli.image_index import registry_client  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.documents import Descriptor  # noqa: PLC0415
    from edge.images.oci.references import parse_reference  # noqa: PLC0415

    reference = parse_reference(ref.url).at(ref.digest)
    client = registry_client()
    try:
        with path.open("ab") as file:
            here = file.tell()
            if here > ref.size:
                file.truncate(0)
                here = 0
            for piece in client.chunks(reference, Descriptor("", ref.digest, ref.size), here, ref.size - here):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise store_error(f"cannot write {path}", error) from error
    finally:
        client.close()
    if f"sha256:{digest}" != ref.digest:
        path.unlink(missing_ok=True)
        raise RefusedError(f"the registry sent other bytes for {ref.url}@{ref.digest}", hint="Push the bundle again.")


def load_device(args: argparse.Namespace) -> "AgentConfig":
    """Read the device's configuration."""
    from edge.agent.config import load_config  # noqa: PLC0415 - imported when it runs

    if not args.config.exists():
        raise InvalidInputError(f"there is no {args.config}", hint="Name the device's agent.toml with --config.")
    return load_config(args.config)
