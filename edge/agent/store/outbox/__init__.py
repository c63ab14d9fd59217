"""Where records wait until the broker has them."""

from edge.agent.store.outbox.facts import StreamFacts
from edge.agent.store.outbox.outbox import Outbox

__all__ = ["Outbox", "StreamFacts"]
