"""`edge firmware bundle`."""

import argparse
from collections.abc import Mapping
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
by its digest. A device takes it only if the keys of the role `firmware` signed it. With --image, sign an OS image that
`edge firmware build` made, as a bundle for RAUC."""
EXAMPLES = """\
examples:
  pip wheel --wheel-dir wheels .                                    for devices like this machine
  pip download --dest wheels --only-binary=:all: --platform manylinux2014_aarch64 --python-version 3.11 .
  edge firmware bundle wheels --arch arm64 --python 3.11
  edge firmware bundle wheels --arch arm64 --board raspberrypi,4-model-b --minimum-version 0.1.0
  edge firmware bundle --image build/pi"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("wheels", nargs="?", type=Path, metavar="DIR", help="wheels of edge and of all it needs")
    parser.add_argument("--image", type=Path, metavar="DIR", help="instead: the folder of an OS image")
    parser.add_argument("--arch", choices=("amd64", "arm64"), help="for which devices")
    parser.add_argument(
        "--python", default="3.11", metavar="3.N", help="their Python (default: %(default)s, Debian 12)"
    )
    parser.add_argument("--board", action="append", default=[], metavar="NAME", help="only these (device-tree names)")
    parser.add_argument(
        "--minimum-version", default="0.0.0", metavar="V", help="only devices that run this version or newer"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: edge-VERSION-ARCH.bundle; NAME-VERSION.raucb"
    )


def run(args: argparse.Namespace) -> int:
    """Make it."""
    from edge.firmware.bundle_file import described, find_wheels, write_bundle  # noqa: PLC0415 - imported when it runs
    from edge.model.runtime_bundle import RuntimeManifest  # noqa: PLC0415

    if (args.wheels is None) == (args.image is None):
        raise InvalidInputError("name either a folder of wheels, or an image with --image")
    if args.image is not None:
        return _bundle_image(args)
    if args.arch is None:
        raise InvalidInputError("--arch is missing", hint="The wheels are for amd64 or for arm64 devices.")
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
    return _tell(args, {"file": str(out), "version": version, "wheels": len(wheels), "bytes": out.stat().st_size})


def _bundle_image(args: argparse.Namespace) -> int:
    from edge.firmware.image_bundle import read_image_facts, write_image_bundle  # noqa: PLC0415 - imported when it runs
    from edge.fleet.image_signing import image_keys  # noqa: PLC0415

    facts = read_image_facts(args.image)
    out = args.out or Path(f"{facts['COMPATIBLE']}-{facts['VERSION']}.raucb")
    with opened(args) as fleet:
        keys = image_keys(fleet.folder.path, fleet.folder.path.name, now())
        write_image_bundle(args.image, out, keys.certificate, keys.key)
    told = {"file": str(out), "version": facts["VERSION"], "board": facts["COMPATIBLE"], "bytes": out.stat().st_size}
    return _tell(args, told)


def _tell(args: argparse.Namespace, told: Mapping[str, str | int]) -> int:
    if args.output == "json":
        print_json(dict(told))
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
