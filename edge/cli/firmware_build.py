"""`edge firmware build`."""

import argparse
import subprocess
from pathlib import Path
from typing import Final

from edge.cli.output import note
from edge.cli.session import opened
from edge.errors import EdgeError, NotFoundError
from edge.fleet.clock import now
from edge.fleet.image_signing import image_keys

HELP = """\
Build an OS image with edge inside: Debian, two root slots for updates with a way back, and this fleet's certificate for
those updates. Needs root, Debian and this project's folder `firmware`."""
EXAMPLES = """\
examples:
  edge firmware build --board pi --version 1.0.0 --wheels wheels --out build/pi
  edge firmware build --board vm --arch amd64 --version 1.0.0 --wheels wheels --out build/vm
  edge firmware bundle --image build/pi"""
_RECIPE: Final = Path(__file__).parents[2] / "firmware"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--board", required=True, choices=("pi", "vm"), help="Raspberry Pi 4 and 5, or a VM with UEFI")
    parser.add_argument("--arch", choices=("amd64", "arm64"), help="default: the Pi's, the host's for a VM")
    parser.add_argument("--version", required=True, metavar="V", help="of the image: three numbers")
    parser.add_argument("--wheels", required=True, type=Path, metavar="DIR", help="wheels of edge and of all it needs")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where disk.img goes")
    parser.add_argument(
        "--recipe", type=Path, default=_RECIPE, metavar="DIR", help="the folder `firmware` of the source"
    )
    parser.add_argument("--suite", default="bookworm", help="Debian's (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Let the recipe do it."""
    script = args.recipe / "build.sh"
    if not script.exists():
        raise NotFoundError(f"there is no {script}", hint="Name the folder `firmware` of edge's source with --recipe.")
    with opened(args) as fleet:
        keyring = image_keys(fleet.folder.path, fleet.folder.path.name, now()).keyring
    command = [str(script), "--keyring", str(keyring), "--suite", args.suite]
    for name in ("board", "arch", "version", "wheels", "out"):
        value = getattr(args, name)
        command += [] if value is None else [f"--{name}", str(value)]
    code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603 - our own recipe
    if code != 0:
        raise EdgeError("the image was not built; the recipe's last words are above")
    note(f"next: write {args.out / 'disk.img'} to a card, or `edge firmware bundle --image {args.out}` for an update")
    return 0
