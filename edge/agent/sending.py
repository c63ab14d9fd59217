"""Where telemetry is wired: the outbox, what fills it and what empties it."""

import hashlib
import string
from collections.abc import Callable, Sequence
from typing import Any, Final

from edge.agent.adapters.clock import SystemClock
from edge.agent.collecting import Collecting, start_collecting
from edge.agent.config import AgentConfig
from edge.agent.store.outbox.outbox import Outbox
from edge.agent.telemetry.boot_clocks import BootClocks
from edge.agent.telemetry.drain import Drain, DrainSettings
from edge.agent.telemetry.reporting import describe_streams
from edge.model.records import AUDIT, STREAMS
from edge.model.topics import Topics
from edge.mqtt.broker import Broker, BrokerEvent

_BOOT_DIGITS: Final = 32


def boot_digits(boot_id: str) -> str:
    """Return a boot's id as records name it, 32 hexadecimal digits: the kernel's without dashes, else a digest of it.

    >>> boot_digits("bad152c8-eca1-4156-9f92-dd869eabd904")
    'bad152c8eca141569f92dd869eabd904'
    """
    digits = boot_id.replace("-", "").lower()
    if len(digits) == _BOOT_DIGITS and set(digits) <= set(string.hexdigits):
        return digits
    return hashlib.sha256(boot_id.encode()).hexdigest()[:_BOOT_DIGITS]


class Sending:
    """The telemetry of an agent, from its start to its end."""

    def __init__(self, config: AgentConfig, boot_id: str, clock: SystemClock, broker: Broker) -> None:
        boot = boot_digits(boot_id)
        folder = config.state_dir / "outbox"
        self._outbox = Outbox(folder, STREAMS, boot, clock.monotonic)
        self._clocks = BootClocks(folder / "boots.json", boot, clock)
        topics = Topics(config.cluster, config.device)
        settings = DrainSettings(keep_unsubscribed=config.telemetry.keep_unsubscribed)
        self._drain = Drain(self._outbox, broker, topics, self._clocks, settings=settings)
        self._outbox.changed = self._drain.wake
        self.collecting: Collecting = start_collecting(config.telemetry, config.state_dir, self._outbox, clock)
        self._drain.start()

    @property
    def hear(self) -> Callable[[BrokerEvent], bool]:
        """Takes what the broker's thread says, and says whether it was for telemetry alone."""
        return self._drain.hear

    def audit(self, records: Sequence[bytes]) -> None:
        """Take records of the audit trail. Raises as `Outbox.put`."""
        self._outbox.put(AUDIT.name, records)

    def describe(self) -> list[dict[str, Any]]:
        """Return how each stream stands, for `reported`."""
        return describe_streams(self._outbox.facts(), self._clocks.known, self._drain.problem)

    def close(self) -> None:
        """End: what is known is on the disk afterwards."""
        self.collecting.close()
        self._drain.close()
        self._outbox.close()
