"""`edge firmware install`."""

import argparse
import os
import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli.firmware_device import add_options, find_spool, load_device, make_updater
from edge.cli.output import note, print_fields, print_json
from edge.errors import EdgeError, RefusedError

if TYPE_CHECKING:
    from edge.model.runtime_update import UpdateResult

HELP = """\
Update this device from a bundle, offline. A bundle of edge: verify it, install it beside what runs, let the agent start
anew from it and watch; if the new agent is not well in time, the old version comes back by itself. Containers go on all
the while. A bundle of an OS image: RAUC writes it into the other root slot, for the next boot."""
EXAMPLES = """\
examples:
  edge firmware install /boot/firmware/edge-0.2.0-arm64.bundle
  edge firmware install edge-0.1.0-arm64.bundle --allow-downgrade
  edge firmware install edge-pi-arm64-1.1.0.raucb"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("bundle", type=Path, metavar="FILE", help="what `edge firmware bundle` made")
    parser.add_argument(
        "--window",
        type=int,
        default=180,
        metavar="SECONDS",
        help="how long the new agent may take until it is well (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-downgrade", action="store_true", help="take a version older than one that has run here"
    )
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Note the request, and carry it out unless an updater does already."""
    from edge.firmware.image_bundle import is_image_bundle  # noqa: PLC0415 - imported when it runs
    from edge.model.runtime_update import UpdateRequest, told  # noqa: PLC0415

    if is_image_bundle(args.bundle):
        return _install_image(args)
    config = load_device(args)
    updater, spool = make_updater(args, config), find_spool(config)
    pending = spool.trial() or spool.request()
    if pending is not None:
        raise RefusedError(
            f"an update is under way ({pending.id})", hint="`edge firmware resume` takes it to its end; wait for it."
        )
    try:
        request = UpdateRequest(
            id=f"local-{secrets.token_hex(8)}",
            file=str(args.bundle.absolute()),
            window_seconds=args.window,
            allow_downgrade=args.allow_downgrade,
        )
    except ValueError as error:
        from edge.errors import InvalidInputError  # noqa: PLC0415

        raise InvalidInputError("--window is from 20 to 3600 seconds") from error
    # A lost terminal is no reason to leave a trial without its judge.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    spool.ask(request)
    note("installing; containers go on. What is cut off now is finished at the next start.")
    result = updater.carry_on()
    if result is None or result.id != request.id:
        raise EdgeError("the update was not carried out", hint="`edge firmware status` shows how it stands.")
    return show_result(args, result, told(result))


def _install_image(args: argparse.Namespace) -> int:
    from edge.firmware.image_bundle import install_image  # noqa: PLC0415 - imported when it runs

    if os.geteuid() != 0:
        raise RefusedError("writing a slot is root's", hint="Run it with sudo.")
    note("writing the other slot; what runs is not touched")
    install_image(args.bundle, allow_downgrade=args.allow_downgrade)
    if args.output == "json":
        print_json({"outcome": "WRITTEN", "next": "reboot"})
    else:
        note("written; the next boot is of it: `systemctl reboot`, on a Raspberry Pi /usr/lib/edge/reboot-into-new.")
        note("It must prove itself then, or the slot that runs now comes back.")
    return 0


def show_result(args: argparse.Namespace, result: "UpdateResult", words: str) -> int:
    """Print how an update ended, or raise what it ended with."""
    from edge.model.runtime_update import Outcome  # noqa: PLC0415 - imported when it runs

    if args.output == "json":
        print_json(result.to_wire())
    match result.outcome:
        case Outcome.INSTALLED:
            if args.output != "json":
                print_fields([("version", result.version), ("before", result.previous)])
            return 0
        case Outcome.REFUSED:
            raise RefusedError(words)
        case Outcome.RETURNED | Outcome.FAILED:
            raise EdgeError(words)
