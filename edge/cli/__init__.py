"""`edge …`: arguments in, exit codes out.

A command's module is imported only when that command runs: `edge --help` costs no MQTT, no cryptography, no schema
library, and an agent carries nothing of the operator's side. Every module of the table has `HELP`,
`add_arguments(parser)` and `run(args) -> exit code`; everything a command cannot do is an `EdgeError`.
"""

import argparse
import importlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from edge import __version__
from edge.errors import EdgeError, InvalidInputError

INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""
BROKEN_PIPE: Final = 141
"""128 + SIGPIPE: who read our output has gone."""


@dataclass(frozen=True, slots=True)
class Row:
    """A command: the module that is it, and its line in a list; `on_fleet` when it works on a fleet's folder."""

    module: str
    summary: str
    on_fleet: bool = True


_DEVICE_ADD: Final = Row("edge.cli.device_add", "make a device's identity, ready to be handed over")
_DEVICE_LS: Final = Row("edge.cli.device_ls", "list the devices and whether they are connected")
_DEVICE_SHOW: Final = Row("edge.cli.device_show", "show a device: state, resources, images, tasks")

COMMANDS: Final[Mapping[tuple[str, ...], Row]] = {
    ("fleet", "init"): Row("edge.cli.fleet_init", "make a fleet: its CA, its signing key, its database"),
    ("fleet", "broker-config"): Row("edge.cli.fleet_broker_config", "write Mosquitto's configuration for the fleet"),
    ("fleet", "publish"): Row("edge.cli.fleet_publish", "publish desired states again, after a broker lost them"),
    ("fleet", "key", "ls"): Row("edge.cli.fleet_key_ls", "list the keys that sign for the fleet"),
    ("fleet", "key", "add"): Row("edge.cli.fleet_key_add", "let another key sign"),
    ("fleet", "key", "retire"): Row("edge.cli.fleet_key_retire", "let a key sign no more: it is lost, or stolen"),
    ("fleet", "key", "rotate"): Row("edge.cli.fleet_key_rotate", "put a new key in the place of another"),
    ("fleet", "key", "threshold"): Row("edge.cli.fleet_key_threshold", "say how many keys must sign for a role"),
    ("fleet", "activation", "create"): Row("edge.cli.fleet_activation_create", "let devices enrol by an id and a code"),
    ("fleet", "activation", "ls"): Row("edge.cli.fleet_activation_ls", "list the activations devices can enrol by"),
    ("fleet", "activation", "revoke"): Row("edge.cli.fleet_activation_revoke", "let nobody enrol by one any more"),
    ("fleet", "enrollment", "ls"): Row("edge.cli.fleet_enrollment_ls", "list the devices that wait for an operator"),
    ("fleet", "enrollment", "approve"): Row("edge.cli.fleet_enrollment_approve", "give a waiting device its identity"),
    ("fleet", "enrollment", "deny"): Row("edge.cli.fleet_enrollment_deny", "refuse a waiting device"),
    ("fleet", "token", "verify"): Row("edge.cli.fleet_token_verify", "verify who a task says it is"),
    ("fleet", "device", "add"): _DEVICE_ADD,
    ("fleet", "device", "ls"): _DEVICE_LS,
    ("fleet", "device", "show"): _DEVICE_SHOW,
    ("device", "add"): _DEVICE_ADD,
    ("device", "ls"): _DEVICE_LS,
    ("device", "show"): _DEVICE_SHOW,
    ("device", "revoke"): Row("edge.cli.device_revoke", "take a device's right to the broker: it was stolen, or sold"),
    ("device", "pull-image"): Row("edge.cli.device_pull_image", "let a device fetch an image ahead of time"),
    ("device", "update"): Row("edge.cli.device_update", "let a device take another version of edge"),
    ("task-definition", "register"): Row(
        "edge.cli.task_definition_register", "store an ECS task definition as the next revision of its family"
    ),
    ("task-definition", "ls"): Row("edge.cli.task_definition_ls", "list the registered task definitions"),
    ("task-definition", "show"): Row("edge.cli.task_definition_show", "show one as ECS JSON"),
    ("task-definition", "check"): Row(
        "edge.cli.task_definition_check", "judge a file without storing it", on_fleet=False
    ),
    ("task", "run"): Row("edge.cli.task_run", "start a task on a device and watch it until it runs"),
    ("task", "stop"): Row("edge.cli.task_stop", "stop a task and watch it until it has"),
    ("task", "ls"): Row("edge.cli.task_ls", "list tasks with their state and what holds them up"),
    ("task", "describe"): Row("edge.cli.task_describe", "show everything about tasks, as ECS describes them"),
    ("task", "logs"): Row("edge.cli.task_logs", "show or follow what a task's containers write"),
    ("service", "create"): Row("edge.cli.service_create", "let a device keep tasks running by itself"),
    ("service", "update"): Row("edge.cli.service_update", "deploy another definition, or change a service's numbers"),
    ("service", "delete"): Row("edge.cli.service_delete", "remove a service; its tasks stop"),
    ("service", "ls"): Row("edge.cli.service_ls", "list services and their deployments"),
    ("schedule", "create"): Row("edge.cli.schedule_create", "let a device start tasks at given times"),
    ("schedule", "delete"): Row("edge.cli.schedule_delete", "remove a schedule"),
    ("schedule", "ls"): Row("edge.cli.schedule_ls", "list schedules and when each comes next"),
    ("secret", "set"): Row("edge.cli.secret_set", "give a secret a value, and give it to the devices that need it"),
    ("secret", "ls"): Row("edge.cli.secret_ls", "list secrets and which devices have them; never values"),
    ("secret", "rm"): Row("edge.cli.secret_rm", "forget a secret, here and on the devices"),
    ("controller", "run"): Row("edge.cli.controller_run", "answer the devices: what the newest revision is, what time"),
    ("telemetry", "collect"): Row("edge.cli.telemetry_collect", "store what the devices measure, as it comes"),
    ("telemetry", "tail"): Row("edge.cli.telemetry_tail", "show and follow stored records"),
    ("telemetry", "export"): Row("edge.cli.telemetry_export", "write stored records as JSON lines or CSV"),
    ("telemetry", "check"): Row("edge.cli.telemetry_check", "check that every record is accounted for"),
    ("audit", "ls"): Row("edge.cli.audit_ls", "show what was asked of devices, by whom, and what came of it"),
    ("audit", "verify"): Row("edge.cli.audit_verify", "check that nobody changed the devices' audit trails"),
    ("events",): Row("edge.cli.events", "follow state changes of the whole fleet"),
    ("agent", "run"): Row("edge.cli.agent_run", "run the agent on this device", on_fleet=False),
    ("agent", "enroll"): Row(
        "edge.cli.agent_enroll", "get this device's identity by an activation's id and code", on_fleet=False
    ),
    ("agent", "request"): Row(
        "edge.cli.agent_request", "make this device's key, and ask for its certificate", on_fleet=False
    ),
    ("agent", "status"): Row("edge.cli.agent_status", "show what the agent of this device does", on_fleet=False),
    ("agent", "check-config"): Row("edge.cli.agent_check_config", "judge an agent.toml", on_fleet=False),
    ("doctor",): Row("edge.cli.doctor", "say what is wrong with this device, and what to do", on_fleet=False),
    ("local", "ls"): Row("edge.cli.local_ls", "list this device's tasks, without any network", on_fleet=False),
    ("local", "run"): Row("edge.cli.local_run", "start a task at the device itself", on_fleet=False),
    ("local", "stop"): Row("edge.cli.local_stop", "stop a task at the device itself", on_fleet=False),
    ("local", "describe"): Row("edge.cli.local_describe", "show everything about a task here", on_fleet=False),
    ("local", "logs"): Row("edge.cli.local_logs", "show or follow what a task here writes", on_fleet=False),
    ("image", "ls"): Row("edge.cli.image_ls", "list this device's images and how much of each is here", on_fleet=False),
    ("image", "pull"): Row("edge.cli.image_pull", "make an image startable on this device", on_fleet=False),
    ("image", "export"): Row(
        "edge.cli.image_export", "copy an image from its registry into an archive", on_fleet=False
    ),
    ("image", "import"): Row("edge.cli.image_import", "take an image from an archive", on_fleet=False),
    ("image", "rm"): Row("edge.cli.image_rm", "remove images from this device", on_fleet=False),
    ("image", "prune"): Row("edge.cli.image_prune", "remove the images no task needs", on_fleet=False),
    ("image", "log"): Row("edge.cli.image_log", "show what the image service had to say", on_fleet=False),
    ("image", "diff"): Row("edge.cli.image_diff", "say what an update would fetch", on_fleet=False),
    ("image", "verify"): Row(
        "edge.cli.image_verify", "hold an image's signatures against what a device demands", on_fleet=False
    ),
    ("image", "signatures"): Row(
        "edge.cli.image_signatures", "show what the registry has of an image's signatures", on_fleet=False
    ),
    ("image", "index", "build"): Row(
        "edge.cli.image_index_build", "index an image's layers for lazy starts, into a folder", on_fleet=False
    ),
    ("image", "index", "push"): Row(
        "edge.cli.image_index_push", "put an image's index into its registry", on_fleet=False
    ),
    ("image", "index", "show"): Row("edge.cli.image_index_show", "show the indexes an image has", on_fleet=False),
    ("image", "index", "verify"): Row(
        "edge.cli.image_index_verify", "hold an image's indexes against its layers", on_fleet=False
    ),
    ("image", "profile", "show"): Row(
        "edge.cli.image_profile_show", "show what images read when they start", on_fleet=False
    ),
    ("image", "profile", "export"): Row(
        "edge.cli.image_profile_export", "write what an image's start reads into a file", on_fleet=False
    ),
    ("image", "profile", "import"): Row(
        "edge.cli.image_profile_import", "let this device fetch first what a start read elsewhere", on_fleet=False
    ),
    ("image", "profile", "push"): Row(
        "edge.cli.image_profile_push", "put what an image's start reads into its registry, as SOCI does"
    ),
    ("image", "bundle", "build"): Row("edge.cli.image_bundle_build", "pack what an image's start reads, into a folder"),
    ("image", "bundle", "push"): Row(
        "edge.cli.image_bundle_push", "put a start bundle beside its image, for devices to start from"
    ),
    ("image", "bundle", "show"): Row(
        "edge.cli.image_bundle_show", "show the start bundles an image has", on_fleet=False
    ),
    ("images", "serve"): Row("edge.cli.images_serve", "serve images before they have arrived", on_fleet=False),
    ("firmware", "build"): Row("edge.cli.firmware_build", "build an OS image with edge and two root slots"),
    ("firmware", "bundle"): Row("edge.cli.firmware_bundle", "sign a version of edge, or an OS image, as one file"),
    ("firmware", "push"): Row("edge.cli.firmware_push", "put a bundle into a registry", on_fleet=False),
    ("firmware", "install"): Row("edge.cli.firmware_install", "update this device from a bundle", on_fleet=False),
    ("firmware", "status"): Row(
        "edge.cli.firmware_status", "show this device's versions and its last update", on_fleet=False
    ),
    ("firmware", "resume"): Row(
        "edge.cli.firmware_resume", "take a cut-off update to its end; systemd does", on_fleet=False
    ),
    ("up",): Row("edge.cli.up", "run the agent and Podman's service where there is no systemd", on_fleet=False),
}

_EXAMPLES: Final = """\
A fleet in six lines:
  edge fleet init --broker broker.example       make the fleet on this machine
  edge fleet broker-config /etc/mosquitto/edge  let Mosquitto know it
  edge device add pi-1                          make an identity; copy its folder to the device
  edge task-definition register app.json        any ECS task definition
  edge task run app --device pi-1               watch it start
  edge task logs -f TASK                        see what it writes

The fleet's folder is --fleet DIR, else $EDGE_FLEET, else ~/.local/share/edge/fleet.
Exit codes: 0 done, 1 failed, 2 wrong input, 3 not found, 4 try again, 5 refused, 6 too late, 130 interrupted.
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in the way every other error is said."""

    def error(self, message: str) -> NoReturn:
        raise InvalidInputError(message, hint=f"See `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None, *, brokers: Callable[..., Any] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: The arguments after the program's name; None for the process's own.
        brokers: Makes the connection to the broker from `BrokerSettings`; None for a real one.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments, brokers)
        sys.stdout.flush()
    except EdgeError as error:
        _tell(error, as_json=_wants_json(arguments))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it closes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def _dispatch(arguments: list[str], brokers: Callable[..., Any] | None) -> int:
    words, rest = _split(arguments)
    row = COMMANDS.get(words)
    if row is None:
        return _guide(words, rest)
    module = importlib.import_module(row.module)
    parser = _Parser(
        prog=" ".join(("edge", *words)),
        description=module.HELP,
        epilog=getattr(module, "EXAMPLES", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_common(parser, row)
    module.add_arguments(parser)
    try:
        args = parser.parse_args(rest)
    except SystemExit as finished:
        return int(finished.code or 0)
    args.brokers = brokers
    code: int = module.run(args)
    return code


def _add_common(parser: argparse.ArgumentParser, row: Row) -> None:
    parser.add_argument("--output", choices=("table", "json"), default="table", help="how to print (default: table)")
    if row.on_fleet:
        parser.add_argument("--fleet", type=Path, metavar="DIR", default=_default_fleet(), help="the fleet's folder")


def _default_fleet() -> Path:
    named = os.environ.get("EDGE_FLEET")
    return Path(named) if named else Path.home() / ".local" / "share" / "edge" / "fleet"


def _split(arguments: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Take the command's words off the front; options before them (`edge --fleet DIR task ls`) go behind."""
    before: list[str] = []
    rest = list(arguments)
    while rest and rest[0] in ("--fleet", "--output"):
        before += [rest.pop(0), *rest[:1]]
        del rest[:1]
    while rest and rest[0].startswith(("--fleet=", "--output=")):
        before.append(rest.pop(0))
    words: tuple[str, ...] = ()
    while rest and words not in COMMANDS and not rest[0].startswith("-"):
        if not _begins((*words, rest[0])):
            break
        words = (*words, rest.pop(0))
    return words, before + rest


def _begins(words: tuple[str, ...]) -> bool:
    return any(command[: len(words)] == words for command in COMMANDS)


def _guide(words: tuple[str, ...], rest: list[str]) -> int:
    if not words and "--version" in rest:
        print(f"edge {__version__}")
        return 0
    unknown = next((word for word in rest if not word.startswith("-")), None)
    if unknown is not None and not {"-h", "--help"} & set(rest):
        raise _unknown(words, unknown)
    if rest and not {"-h", "--help"} & set(rest):
        raise InvalidInputError(f"{rest[0]} is no option of `{' '.join(('edge', *words))}`", hint="See `edge --help`.")
    print(_listing(words))
    return 0 if rest or not words else InvalidInputError.exit_code


def _unknown(words: tuple[str, ...], unknown: str) -> InvalidInputError:
    import difflib  # noqa: PLC0415 - only when somebody mistyped

    known = sorted({command[len(words)] for command in COMMANDS if command[: len(words)] == words})
    near = difflib.get_close_matches(unknown, known, 1)
    prefix = " ".join(("edge", *words))
    hint = f"Did you mean `{prefix} {near[0]}`?" if near else f"`{prefix}` has: {', '.join(known)}."
    return InvalidInputError(f"there is no command `{prefix} {unknown}`", hint=hint)


def _listing(words: tuple[str, ...]) -> str:
    rows = [
        (" ".join(command), row.summary)
        for command, row in COMMANDS.items()
        # The long spelling is taken as well; listing it twice would not teach anything.
        if command[: len(words)] == words and (words or command[:2] != ("fleet", "device"))
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  edge {name.ljust(width)}  {summary}" for name, summary in rows]
    head = "Run containers on your own devices, the ECS way, over MQTT.\n\n" if not words else ""
    tail = f"\n{_EXAMPLES}" if not words else "\n"
    return (
        f"{head}Commands:\n{chr(10).join(lines)}\n{tail}`edge COMMAND --help` shows a command's options and examples."
    )


def _wants_json(arguments: list[str]) -> bool:
    return "--output=json" in arguments or any(pair == ("--output", "json") for pair in itertools.pairwise(arguments))


def _tell(error: EdgeError, *, as_json: bool) -> None:
    sys.stdout.flush()
    problems: tuple[tuple[str, str], ...] = getattr(error, "problems", ())
    if as_json:
        told = {
            "error": type(error).__name__,
            "message": str(error),
            "hint": error.hint,
            "problems": [{"path": path, "message": message} for path, message in problems],
        }
        print(json.dumps(told), file=sys.stderr)
        return
    print(f"edge: {error}", file=sys.stderr)
    for path, message in problems:
        print(f"  {path}: {message}" if path else f"  {message}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)
