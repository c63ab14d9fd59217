"""Where the commands `edge local …` find this device's agent, and what they show."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.ask import ask
from edge.cli.output import print_json, print_table

_ANSWER_SECONDS = 3600.0


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare `--config`."""
    parser.add_argument("--config", type=Path, default=Path("/etc/edge/agent.toml"), metavar="FILE", help="agent.toml")


def ask_agent(args: argparse.Namespace, progress: Callable[[Any], None] = lambda _: None, /, **asked: Any) -> Any:
    """Ask the agent of this device; raises as `edge.ask.ask`."""
    from edge.agent.config import load_config  # noqa: PLC0415 - imported when it runs

    return ask(
        load_config(args.config).local_socket,
        asked,
        who="the agent",
        hint="`edge agent status` tells whether it runs. It answers root, and the members of local.group.",
        seconds=_ANSWER_SECONDS,
        progress=progress,
    )


def show_tasks(args: argparse.Namespace, tasks: list[dict[str, Any]]) -> int:
    """Print tasks."""
    if args.output == "json":
        print_json({"tasks": tasks})
    else:
        print_table(("TASK", "DEFINITION", "STATUS", "DESIRED", "BEGUN BY", "WHY"), [_row(task) for task in tasks])
    return 0


def _row(task: dict[str, Any]) -> tuple[str, ...]:
    definition = str(task["taskDefinitionArn"]).rpartition("/")[2]
    begun_by = str(task.get("startedBy") or task.get("origin") or "the fleet")
    why = str(task.get("pendingReason") or task.get("stoppedReason") or "")
    return str(task["taskId"])[:12], definition, str(task["lastStatus"]), str(task["desiredStatus"]), begun_by, why
