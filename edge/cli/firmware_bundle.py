"""`edge firmware bundle`."""

import argparse
from pathlib import Path

from edge.cli.output import print_fields, print_json
from edge.cli.session import opened
from edge.errors import InvalidInputError, RefusedError
from edge.fleet.clock import now, timestamp
from edge.fleet.folder import Fleet
from edge.model.envelope import Signer
from edge.model.trust import Role

HELP = """\
Sign a version of edge for devices: one file with the wheels of edge and of all it needs, and a manifest that names each
by its digest. A device takes it only if the keys of the role `firmware` signed it."""
EXAMPLES = """\
examples:
  pip wheel --wheel-dir wheels .                                    for devices like this machine
  pip download --dest wheels --only-binary=:all: --platform manylinux2014_aarch64 --python-version 3.11 .
  edge firmware bundle wheels --arch arm64 --python 3.11
  edge firmware bundle wheels --arch arm64 --board raspberrypi,4-model-b --minimum-version 0.1.0"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("wheels", type=Path, metavar="DIR", help="wheels of edge and of everything it needs")
    parser.add_argument("--arch", required=True, choices=("amd64", "arm64"), help="for which devices")
    parser.add_argument(
        "--python", default="3.11", metavar="3.N", help="their Python (default: %(default)s, Debian 12)"
    )
    parser.add_argument("--board", action="append", default=[], metavar="NAME", help="only these (device-tree names)")
    parser.add_argument(
        "--minimum-version", default="0.0.0", metavar="V", help="only devices that run this version or newer"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: edge-VERSION-ARCH.bundle")


def run(args: argparse.Namespace) -> int:
    """Make it."""
    from edge.firmware.bundle_file import described, find_wheels, write_bundle  # noqa: PLC0415 - imported when it runs
    from edge.model.runtime_bundle import RuntimeManifest  # noqa: PLC0415

    wheels, version = find_wheels(args.wheels)
    out = args.out or Path(f"edge-{version}-{args.arch}.bundle")
    with opened(args) as fleet:
        try:
            manifest = RuntimeManifest(
                version=version,
                minimum_version=args.minimum_version,
                architecture=args.arch,
                python=args.python,
                boards=args.board,
                issued_at=timestamp(now()),
                files=[described(wheel) for wheel in wheels],
            )
        except ValueError as error:
            raise InvalidInputError(f"this cannot be bundled: {error}") from error
        write_bundle(out, manifest, wheels, _signers(fleet))
    told = {"file": str(out), "version": version, "wheels": len(wheels), "bytes": out.stat().st_size}
    if args.output == "json":
        print_json(told)
    else:
        print_fields([(name, str(value)) for name, value in told.items()])
    return 0


def _signers(fleet: Fleet) -> list[Signer]:
    if not fleet.keyring.trusted().threshold(Role.FIRMWARE):
        raise RefusedError(
            "this fleet's trust bundle lets nobody sign firmware",
            hint="Let a key: `edge fleet key add firmware --role firmware`; devices hear of it.",
        )
    return list(fleet.signers(Role.FIRMWARE))
