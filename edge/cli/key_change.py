"""What `edge fleet key add|retire|rotate|threshold` have in common: a new trust bundle, and its way to the devices."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from edge.cli.output import note, print_fields, print_json
from edge.cli.session import connected
from edge.errors import BrokerError, DeadlineError
from edge.fleet.clock import now
from edge.fleet.devices import list_devices
from edge.fleet.folder import Fleet
from edge.fleet.keyring import Change, KeyRecord
from edge.fleet.publishing import publish_newest
from edge.fleet.signing import FileSigner
from edge.fleet.tasks import next_revision, nothing_new
from edge.model.trust import Role, TrustedSet


def add_common(parser: argparse.ArgumentParser) -> None:
    """Declare what every change of keys takes."""
    parser.add_argument(
        "--with",
        dest="brought",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="a private key (PEM) that is kept elsewhere and signs this change; may be repeated",
    )
    parser.add_argument("--no-publish", action="store_true", help="do not send it to the devices now")


def apply(args: argparse.Namespace, fleet: Fleet, change: Change, added: Sequence[KeyRecord] = ()) -> int:
    """Make the next trust bundle, and let the devices have it, with desired states signed by the keys it names."""
    brought = [FileSigner.load(path) for path in args.brought]
    before = fleet.keyring.trusted().key_ids(Role.DESIRED_STATE)
    try:
        trusted = fleet.keyring.change(change, now(), added=added, brought=brought)
    except BaseException:
        for key in added:
            # Nobody believes it: left behind it would only be in the way of the next attempt.
            if key.location and key.kind.value == "file":
                (fleet.folder.path / key.location).unlink(missing_ok=True)
        raise
    gone = before - trusted.key_ids(Role.DESIRED_STATE)
    published = _publish(args, fleet, renew=bool(gone)) if not args.no_publish else 0
    return _tell(args, trusted, published)


def _publish(args: argparse.Namespace, fleet: Fleet, *, renew: bool) -> int:
    """Return how many devices it was published for."""
    devices = list_devices(fleet.database)
    if renew:
        # Signed by a key that is gone, the newest desired state would not count on a device that is set up anew.
        signers = fleet.signers(Role.DESIRED_STATE)
        for device in devices:
            if device.desired is not None:
                next_revision(fleet.database, signers, device, now(), nothing_new)
    if not devices:
        return 0
    try:
        with connected(args, fleet) as link:
            for device in devices:
                publish_newest(link, fleet.database, device)
    except (BrokerError, DeadlineError) as error:
        error.hint = "The keys are changed here; `edge fleet publish` tells the devices once the broker is there."
        raise
    return len(devices)


def _tell(args: argparse.Namespace, trusted: TrustedSet, published: int) -> int:
    roles = {
        role.value: f"{trusted.threshold(role)} of {len(trusted.key_ids(role))}"
        for role in Role
        if trusted.threshold(role)
    }
    if args.output == "json":
        print_json({"version": trusted.version, "roles": roles, "published": published})
        return 0
    print_fields([("trust bundle", str(trusted.version)), *roles.items(), ("published for", f"{published} devices")])
    note("`edge device show DEVICE` tells which trust bundle a device has")
    return 0
