"""The outbox: how fast records come in, what flash it costs, and how fast they leave."""

import importlib.util
from typing import Any

from tests.bench import outbox_store

NAME = "outbox"


def run(report: Any) -> None:
    """Measure, and report."""
    outbox_store.run(report)
    if importlib.util.find_spec("tests.bench.outbox_drain") is not None:
        importlib.import_module("tests.bench.outbox_drain").run(report)
