"""Whose log leaves the device, and under which name: pure."""

from collections.abc import Mapping
from typing import Final

from edge.agent.telemetry.log_lines import Source

SHIPPING_DRIVER: Final = "awslogs"
"""What an ECS user writes for "to the central place": there CloudWatch, here whoever keeps the fleet's telemetry."""


def source_of(task_id: str, container: str, driver: str, options: Mapping[str, str], whose: str) -> Source | None:
    """Return what is shipped of a container's log, or None when it stays on the device.

    Args:
        task_id: The task.
        container: The container's name in it.
        driver: `logConfiguration.logDriver`; `json-file` when there is none.
        options: `logConfiguration.options`.
        whose: What the device's owner allows: `asked`, `all` or `none`.
    """
    wanted = {"asked": {SHIPPING_DRIVER}, "all": {SHIPPING_DRIVER, "json-file"}}.get(whose, set())
    if driver not in wanted:
        return None
    prefix = options.get("awslogs-stream-prefix", "")
    # As the ECS agent names it: prefix/container/task; without a prefix Docker takes the container's id.
    stream = "/".join(part for part in (prefix, container, task_id) if part)
    group = options.get("awslogs-group", "")
    return Source(task_id, container, group, stream if group else "")
