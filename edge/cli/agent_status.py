"""`edge agent status`."""

import argparse
from pathlib import Path
from typing import Any

from edge.cli.output import print_fields, print_json, print_table

HELP = """\
Show what the agent of this device does: whether it runs, whether the broker is there, which revision is in force,
and its tasks. Reads the agent's own files: needs no network, and works when the agent does not run."""
EXAMPLES = """\
examples:
  edge agent status
  edge agent status --config ./device/agent.toml --output json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", type=Path, default=Path("/etc/edge/agent.toml"), metavar="FILE", help="agent.toml")


def run(args: argparse.Namespace) -> int:
    """Read and show."""
    from edge.agent.config import load_config  # noqa: PLC0415 - imported when it runs
    from edge.agent.local_status import local_status  # noqa: PLC0415

    status = local_status(load_config(args.config))
    if args.output == "json":
        print_json(status)
        return 0
    connection = status["connection"]
    link = "connected" if connection.get("connected") else f"not connected: {connection.get('reason', '')}"
    print_fields(
        [
            ("device", f"{status['cluster']}/{status['device']}"),
            ("agent", f"running, process {status['pid']}" if status["running"] else "not running"),
            ("broker", f"{link} since {connection['since']}" if connection.get("since") else link),
            ("revision", f"{status['revision']} {status['outcome']}".strip()),
        ]
    )
    if status["tasks"]:
        print_table(("TASK", "DEFINITION", "LAST", "DESIRED", "WHY"), [_row(task) for task in status["tasks"]])
    return 0


def _row(task: dict[str, Any]) -> tuple[str, ...]:
    definition = str(task["taskDefinitionArn"]).rpartition("/")[2]
    why = str(task.get("pendingReason") or task.get("stoppedReason") or "")
    return str(task["taskId"])[:12], definition, str(task["lastStatus"]), str(task["desiredStatus"]), why
