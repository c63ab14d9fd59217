"""`edge agent run`: the agent in the foreground."""

import argparse
import logging
import os
from pathlib import Path

HELP = "run the agent of this device in the foreground, until SIGTERM"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("/etc/edge/agent.toml"),
        metavar="FILE",
        help="the device's configuration, as `edge fleet device add` wrote it (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run until told to stop; containers go on."""
    from edge.agent.config import load_config  # noqa: PLC0415 - imported when it runs

    config = load_config(args.config)
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    from edge.agent import app  # noqa: PLC0415 - the device's large imports, after the configuration is known good
    from edge.sd_notify import ServiceManager  # noqa: PLC0415

    app.run(config, manager=ServiceManager.taken_from(os.environ))
    return 0
