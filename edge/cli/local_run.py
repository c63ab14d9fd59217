"""`edge local run`."""

import argparse
import time

from edge.cli.local_socket import add_config, ask_agent, show_tasks
from edge.cli.session import read_json_object
from edge.errors import DeadlineError, EdgeError

HELP = """\
Start tasks on this device without the fleet: of a task definition the device has, or of a file. The device's policy
holds as for any other; the fleet is told as soon as it can hear it. Waits until they run."""
EXAMPLES = """\
examples:
  edge local run app
  edge local run app:3 --count 2
  edge local run ./probe.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("what", metavar="FAMILY[:REVISION]|FILE.json", help="what to start; a file ends in .json")
    parser.add_argument("--count", type=int, default=1, metavar="N", help="how many tasks, up to 10 (default: 1)")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="how long to wait (120)")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Start them."""
    given = args.what == "-" or args.what.endswith(".json")
    what = {"definition": read_json_object(args.what)} if given else {"taskDefinition": args.what}
    ids = [task["taskId"] for task in ask_agent(args, op="run", count=args.count, **what)["tasks"]]
    deadline = time.monotonic() + args.timeout
    while True:
        tasks = [ask_agent(args, op="describe", taskId=task_id)["tasks"][0] for task_id in ids]
        if all(task["lastStatus"] != "PENDING" for task in tasks):
            break
        if time.monotonic() > deadline:
            reasons = "; ".join(str(task.get("pendingReason") or task["lastStatus"]) for task in tasks)
            raise DeadlineError(f"not running after {args.timeout:g} s: {reasons}", hint="It goes on trying.")
        time.sleep(0.2)
    show_tasks(args, tasks)
    failed = [task for task in tasks if task.get("stopCode") == "TaskFailedToStart"]
    if failed:
        raise EdgeError(str(failed[0].get("stoppedReason") or "the task failed to start"))
    return 0
