"""Starts from a profile and from a bundle, beside `podman pull && podman run` and the physical limit.

Each part measures one thing in a run of its own. `EDGE_BENCH_BUNDLE=short` measures the main workload alone.
"""

from typing import Any

from tests.bench import bundle_starts

NAME = "bundle"


def run(report: Any) -> None:
    """Measure it all."""
    bundle_starts.run(report)
