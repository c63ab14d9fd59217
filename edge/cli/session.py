"""What commands on a fleet have in common: its folder, the line to its devices, and files named as arguments."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edge.cli.output import progress
from edge.errors import InvalidInputError, NotFoundError
from edge.files import store_error
from edge.fleet.folder import Fleet, open_fleet
from edge.fleet.link import FleetLink, new_client_id, paho_broker

MAXIMUM_FILE_BYTES: Final = 1 << 20


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[Fleet]:
    """Open the fleet that the arguments name."""
    with open_fleet(args.fleet) as fleet:
        yield fleet


@contextmanager
def connected(args: argparse.Namespace, fleet: Fleet) -> Iterator[FleetLink]:
    """Connect to the fleet's broker."""
    settings = fleet.folder.broker_settings(fleet.settings.operator, new_client_id())
    link = FleetLink(settings, args.brokers or paho_broker)
    with progress(f"connecting to {fleet.settings.operator}"):
        link.connect()
    try:
        yield link
    finally:
        link.close()


def read_json_object(name: str) -> dict[str, Any]:
    """Read a JSON object from a file named by an argument; `-` is stdin.

    Raises:
        InvalidInputError: It is no JSON object, or absurdly large.
        NotFoundError: There is none.
        StoreError: It cannot be read.
    """
    data = read_file(name)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{name} is not a JSON object")
    return document


def read_file(name: str) -> bytes:
    """Read a file named by an argument; `-` is stdin. Raises as `read_json_object`."""
    data = _read(name)
    if len(data) > MAXIMUM_FILE_BYTES:
        raise InvalidInputError(f"{name} is larger than {MAXIMUM_FILE_BYTES} bytes")
    return data


def _read(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(MAXIMUM_FILE_BYTES + 1)
        with Path(name).open("rb") as file:
            return file.read(MAXIMUM_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"cannot read {name}: No such file") from error
    except OSError as error:
        raise store_error(f"cannot read {name}", error) from error


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Let a command take `--device`."""
    parser.add_argument("--device", metavar="DEVICE", help="which device; may be left out when the fleet has only one")
