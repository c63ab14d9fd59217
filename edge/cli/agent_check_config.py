"""`edge agent check-config`: is this a configuration an agent would start with?"""

import argparse
from pathlib import Path

HELP = "check a configuration file and everything it names, and say what is wrong"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the configuration, such as /etc/edge/agent.toml")


def run(args: argparse.Namespace) -> int:
    """Read the file, and the files it names; the first thing wrong is raised, all problems of the file together."""
    from edge.agent.check import check_config  # noqa: PLC0415 - imported when it runs

    config = check_config(args.file)
    print(f"{args.file}: good, for device {config.device} of cluster {config.cluster}")
    return 0
