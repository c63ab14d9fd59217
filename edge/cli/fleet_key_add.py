"""`edge fleet key add`."""

import argparse
import shlex
from pathlib import Path

from edge.cli.key_change import add_common, apply
from edge.cli.session import opened
from edge.errors import InvalidInputError, RefusedError
from edge.fleet.clock import now
from edge.fleet.folder import Fleet
from edge.fleet.key_changes import adding
from edge.fleet.keyring import KeyRecord, new_file_key, outside_key
from edge.fleet.signing import ask_passphrase, command_signer, read_public_key
from edge.model.trust import DOCUMENT_ROLES, Role

HELP = """\
Let another key sign for the fleet: a new one made here, with a passphrase or without; one that another program holds;
or one of which only the public half is here. Devices learn of it by a trust bundle that the present root keys sign."""
EXAMPLES = """\
examples:
  edge fleet key add backup --passphrase            a second key for everything
  edge fleet key add deploy --role desired-state --role command
  edge fleet key add token --signer 'hsm-sign --slot 3' --public token.pem
  edge fleet key add safe --public safe.pem --role root
  edge fleet key add images --public cosign.pub --role image

A signer command gets the message on its standard input and writes the Ed25519 signature to its standard output."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="what to call it: a-z, 0-9 and -")
    parser.add_argument(
        "--role",
        action="append",
        choices=[role.value for role in Role],
        help="what it may sign (default: all but images)",
    )
    add_source(parser)
    add_common(parser)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declare where a key comes from."""
    parser.add_argument("--passphrase", action="store_true", help="encrypt the new key with a passphrase")
    parser.add_argument("--signer", metavar="COMMAND", help="a program that holds the key; with --public")
    parser.add_argument("--public", type=Path, metavar="FILE", help="the public key (PEM) of one made elsewhere")


def make_key(args: argparse.Namespace, fleet: Fleet, name: str) -> KeyRecord:
    """Make the key, or prove that its holder works."""
    if args.public is None:
        if args.signer:
            raise InvalidInputError("--signer needs the public key", hint="Give it with --public FILE.")
        passphrase = ask_passphrase(f"the new key {name}") if args.passphrase else b""
        if args.passphrase and not passphrase:
            raise RefusedError("the passphrase is empty")
        return new_file_key(fleet.folder.path, name, passphrase, now())
    if args.passphrase:
        raise InvalidInputError("--passphrase encrypts a key made here; with --public none is")
    public = read_public_key(args.public)
    command = shlex.split(args.signer) if args.signer else []
    if command:
        command_signer(command, public)
    return outside_key(name, command, public, now())


def run(args: argparse.Namespace) -> int:
    """Add it."""
    roles = [Role(role) for role in args.role] if args.role else list(DOCUMENT_ROLES)
    with opened(args) as fleet:
        key = make_key(args, fleet, args.name)
        return apply(args, fleet, adding(args.name, roles), [key])
