"""Is this the newest there is? A question at each connection, and an answer that nobody can have kept from before.

A broker in the wrong hands cannot make a device run anything; it can hold back what the fleet published, and let the
device run what is old for ever. So the device asks with a number of its own, once for each connection; the fleet's
controller signs the head: that number, the newest revision, the newest trust bundle, and what time it is.
"""

import logging
import secrets
from typing import Any

from edge.agent.engine.believing import Belief
from edge.agent.engine.reports import encode
from edge.errors import EdgeError
from edge.model.documents import Head, HeadQuestion

_log = logging.getLogger(__name__)


class Heads:
    """Only the engine's thread touches it."""

    def __init__(self, belief: Belief) -> None:
        self._belief = belief
        self._nonce = ""
        self._newest: Head | None = None

    def ask(self) -> bytes:
        """Return a new question; answers to the one before count no more."""
        self._nonce = secrets.token_hex(16)
        return encode(HeadQuestion(nonce=self._nonce).to_wire())

    def heard(self, answer: bytes) -> Head | None:
        """Return the head that an answer tells, or None when it is not to be believed."""
        try:
            head = self._belief.judge.head(answer, nonce=self._nonce)
        except EdgeError as error:
            _log.warning("what the newest revision is was not believed: %s", error)
            return None
        self._nonce = ""
        self._newest = head
        if problem := self.withheld():
            _log.warning("%s", problem)
        return head

    def withheld(self) -> str:
        """Return what there is and has not come; empty when nothing is known to be missing."""
        if self._newest is None:
            return ""
        revision, trust = self._newest.revision, self._newest.trust_version
        late = [
            *([f"revision {revision}"] if revision > self._belief.in_force else []),
            *([f"trust bundle {trust}"] if trust > self._belief.version else []),
        ]
        return f"{' and '.join(late)} exists and has not come: the broker holds it back, or lost it" if late else ""

    def describe(self) -> list[dict[str, Any]]:
        """Return what `reported` says of whom the device believes."""
        (told,) = self._belief.describe()
        if self._newest is not None:
            told["head"] = {"revision": self._newest.revision, "time": self._newest.time}
        problem = self.withheld()
        return [told | ({"problem": problem} if problem and "problem" not in told else {})]
