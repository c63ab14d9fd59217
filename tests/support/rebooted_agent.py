"""The real agent on a machine that says it has booted anew: `EDGE_TEST_BOOT_ID` is its boot id."""

import argparse
import dataclasses
import logging
import os
from pathlib import Path

from edge.agent import app
from edge.agent.adapters.host import LinuxHost
from edge.agent.config import load_config
from edge.agent.engine.ports import HostFacts


class RebootedHost(LinuxHost):
    def facts(self) -> HostFacts:
        return dataclasses.replace(super().facts(), boot_id=os.environ["EDGE_TEST_BOOT_ID"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    logging.basicConfig(level="INFO")
    app.run(load_config(parser.parse_args().config), make_host=RebootedHost)
