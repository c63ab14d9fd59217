"""What an engine is made of, and what it has done for it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from edge.agent.engine.commands import Bench
from edge.agent.engine.health_checks import Checkers
from edge.agent.engine.intake import Judge
from edge.agent.engine.log_streams import LogStreams
from edge.agent.engine.ports import Clock
from edge.agent.engine.reconciler import Hands
from edge.agent.engine.reports import Reporter
from edge.agent.store.state import StateStore
from edge.model.secrets import DesiredSecret
from edge.model.trust import TrustedSet
from edge.mqtt.broker import Broker, BrokerEvent

CLEANUP_SECONDS: Final = 3 * 3600.0
"""How long a stopped task's containers are kept to be looked at; the ECS agent's default."""


class Inspector(Hands, Bench, Checkers, Protocol):
    """Everything that is done on workers."""

    def inspect(self, runtime_id: str) -> None:
        """Look at a container; answered by `ContainerInspected`."""
        ...

    def protect_images(self, image_ids: frozenset[str]) -> None:
        """Say which images are needed; no answer."""
        ...

    def images_started(self, image_ids: frozenset[str], after_seconds: float) -> None:
        """Say of which images a container is ready, or will be in so many seconds; no answer."""
        ...

    def know_secrets(self, secrets: Iterable[DesiredSecret]) -> None:
        """Say which secrets are in force; no answer."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What an engine is made of; `agent.app` wires the real ones, a test its own.

    Attributes:
        connection_changed: Told why there is no connection, or nothing when there is, for who looks at the device.
        idle: Called once after each time of quiet.
        heard: Is told what the broker's thread says, on that thread; true when it was nothing for the engine.
        telemetry: How the outbox's streams stand.
        time_passed: Told a time that has passed, while the clock is in doubt.
        trusts: Told the keys in force, at the beginning and whenever they change.
        containers_found: Called each time all containers were seen and taken up.
        alive: Called after each turn of the loop, and at least every `alive_seconds` (None: only then).
        audit: Takes records of the audit trail for the outbox.
    """

    store: StateStore
    broker: Broker
    clock: Clock
    judge: Judge
    reporter: Reporter
    hands: Inspector
    streams: LogStreams
    connection_changed: Callable[[str], None] = lambda _problem: None
    idle: Callable[[], None] = lambda: None
    cleanup_seconds: float = CLEANUP_SECONDS
    heard: Callable[[BrokerEvent], bool] = lambda _event: False
    telemetry: Callable[[], list[dict[str, Any]]] = list
    time_passed: Callable[[str], None] = lambda _time: None
    trusts: Callable[[TrustedSet], None] = lambda _trusted: None
    containers_found: Callable[[], None] = lambda: None
    alive: Callable[[], None] = lambda: None
    alive_seconds: float | None = None
    audit: Callable[[Sequence[bytes]], None] = lambda _records: None
