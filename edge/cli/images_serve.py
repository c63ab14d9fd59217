"""`edge images serve`."""

import argparse
import logging
import os
import threading
from pathlib import Path

from edge import memory
from edge.cli.image_socket import DEFAULT_SOCKET
from edge.stop_signals import stopped_by_signals

HELP = """\
Serve images to Podman before they have arrived: an additional image store whose files are fetched when they are read,
completed in quiet moments, proved and unpacked. Runs under `edge up` and systemd. When it ends, containers wait with
their reads for the next one; --unmount ends that."""
EXAMPLES = """\
examples:
  edge images serve --state-dir /var/lib/edge/images
  podman --storage-opt additionalimagestore=/var/lib/edge/images/store images
  edge images serve --state-dir /var/lib/edge/images --unmount"""
_KIB = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--state-dir", type=Path, default=Path("/var/lib/edge/images"), metavar="DIR", help="its files")
    parser.add_argument("--socket", type=Path, default=DEFAULT_SOCKET, metavar="PATH", help="where it is asked")
    parser.add_argument(
        "--background-kib-per-second",
        type=int,
        default=0,
        metavar="N",
        help="most KiB a second for what no container waits for (default: no limit)",
    )
    parser.add_argument(
        "--read-seconds",
        type=float,
        default=300.0,
        metavar="S",
        help="how long a container's read waits for a registry that is away, before it fails (default: %(default)g)",
    )
    parser.add_argument("--unmount", action="store_true", help="end the mount a service left, and do nothing else")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM, SIGINT or the mount's end."""
    from edge.images.api import ApiServer  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.client import RegistryClient  # noqa: PLC0415
    from edge.images.oci.registries import Registries  # noqa: PLC0415
    from edge.images.service import ImageService  # noqa: PLC0415
    from edge.images.serving import end_mount, lock_root, prove_answers  # noqa: PLC0415
    from edge.sd_notify import ServiceManager  # noqa: PLC0415

    memory.stay_lean()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    lock = lock_root(args.state_dir)
    try:
        if args.unmount:
            end_mount(args.state_dir.absolute(), os.environ)
            return 0
        client = RegistryClient(Registries.of_host(os.environ), os.environ)
        service = ImageService(
            args.state_dir.absolute(), client, args.background_kib_per_second * _KIB, args.read_seconds
        )
        ended = threading.Event()
        with stopped_by_signals(ended.set):
            environment = dict(os.environ)
            # Whoever keeps the mount is found in a copy: no process that is started later may inherit it.
            manager = ServiceManager.taken_from(os.environ)
            mounted = service.start(environment)

            def wait_for_mount() -> None:
                mounted.join()
                ended.set()

            threading.Thread(target=wait_for_mount, name="mounted", daemon=True).start()
            api = ApiServer(args.socket, service)
            logging.getLogger(__name__).info("images are served in %s, asked for on %s", args.state_dir, args.socket)
            manager.ready()
            while not ended.wait(manager.alive_seconds):
                # Through the kernel and back, as a container's read goes: it hangs when the mount is not answered for.
                prove_answers(args.state_dir)
                manager.alive()
            manager.stopping()
            api.close()
            service.stop()
    finally:
        os.close(lock)
    return 0
