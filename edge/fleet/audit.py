"""The devices' audit trails as they were collected, held against what the devices say they have come to."""

from collections.abc import Mapping
from typing import Any

from edge.fleet.telemetry_store import TelemetryStore
from edge.model.audit import Arrived, Head, Verified, verify_trail
from edge.model.records import AUDIT


def verify_device(
    store: TelemetryStore, cluster: str, device: str, report: Mapping[str, Any] | None = None
) -> Verified:
    """Judge a device's trail; `report` is what it reported last, if anybody knows."""
    arrived = [Arrived(*line) for line in store.lines(cluster, device, AUDIT.name)]
    return verify_trail(arrived, store.lost(cluster, device, AUDIT.name), told_head=told_head(report or {}))


def told_head(report: Mapping[str, Any]) -> Head | None:
    """Return where a device says that its trail stands; None when it says nothing that can be read."""
    told = report.get("audit")
    one = told[0] if isinstance(told, list) and told else None
    if not isinstance(one, Mapping):
        return None
    chain, count, hashed = one.get("chain"), one.get("records"), one.get("hash")
    if not (isinstance(chain, str) and isinstance(count, int) and isinstance(hashed, str)):
        return None
    return Head(chain, count, hashed)
