"""Whose word counts on this device: the trust bundle in force, and how far each key has counted.

Every signed document has a number. The store keeps, for each key, the highest one that it signed and that came into
force; a document counts only above the highest of all keys that are still trusted. So nothing comes back, whoever
signed it. When a key is retired its count goes with it: a thief who signed the highest number there is has not locked
the device for ever (TUF's fast-forward attack, specification §5.3.11).
"""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from edge.agent.engine.intake import Judge
from edge.agent.store.state import Change, StateStore
from edge.errors import TrustError
from edge.model.trust import Role, TrustedSet
from edge.model.trust_chain import follow_chain

_log = logging.getLogger(__name__)
_BUNDLE: Final = "trust"
_HANDED_OVER: Final = "trust_handed_over"
"""Digest of the bundle beside the configuration that the stored one follows from."""
_COUNTS: Final = "counts"


class Belief:
    """Only the engine's thread touches it.

    Attributes:
        judge: Judges by the trust bundle in force.
        problem: Why the newest chain of trust bundles was not followed; empty when it was.
    """

    def __init__(self, store: StateStore, judge: Judge, revision: int) -> None:
        """Begin with the stored bundle, unless another one was handed over since: that one is meant.

        Args:
            store: Where both are kept.
            judge: With the bundle that was handed over.
            revision: In force, whoever signed it: the count of a store older than these counts.

        Raises:
            StoreError: The store cannot be read.
        """
        self._store = store
        self.problem = ""
        self.judge = judge
        self._handed_over = hashlib.sha256(judge.trust.bundle).hexdigest().encode()
        stored = store.meta(_BUNDLE)
        if stored is not None and store.meta(_HANDED_OVER) == self._handed_over:
            self._take_up(stored)
        counts = store.meta(_COUNTS)
        keys = self.judge.trust.key_ids(Role.DESIRED_STATE)
        self._counts: dict[str, int] = dict.fromkeys(keys, revision) if counts is None else json.loads(counts)

    @property
    def version(self) -> int:
        """Of the trust bundle in force."""
        return self.judge.trust.version

    def describe(self) -> list[dict[str, Any]]:
        """Return what `reported` says of it."""
        told: dict[str, Any] = {"version": self.version}
        return [told | ({"problem": self.problem} if self.problem else {})]

    @property
    def in_force(self) -> int:
        """The highest number that a trusted key has signed here: a desired state must be above it."""
        keys = self.judge.trust.key_ids(Role.DESIRED_STATE)
        return max((count for key, count in self._counts.items() if key in keys), default=0)

    def counted(self, key_ids: Iterable[str], revision: int) -> dict[str, bytes | None]:
        """Return what the store must know once these keys have signed a revision that comes into force."""
        keys = self.judge.trust.key_ids(Role.DESIRED_STATE)
        kept = {key: count for key, count in self._counts.items() if key in keys}
        return {_COUNTS: json.dumps(kept | dict.fromkeys(key_ids, revision)).encode()}

    def count(self, key_ids: Iterable[str], revision: int) -> None:
        """The store knows it."""
        self._counts |= dict.fromkeys(key_ids, revision)

    def follow(self, chain: bytes) -> bool:
        """Follow a chain of trust bundles; the newest is stored before it counts. Returns whether it led anywhere.

        Raises:
            StoreError: It cannot be stored: nothing has changed.
        """
        try:
            newer = follow_chain(self.judge.trust, chain)
        except TrustError as error:
            self.problem = f"a chain of trust bundles was refused: {error}"
            _log.warning("%s", self.problem)
            return False
        self.problem = ""
        if newer.version == self.version:
            return False
        self._store.commit(Change(meta={_BUNDLE: newer.bundle, _HANDED_OVER: self._handed_over}))
        _log.info("trust bundle %d is in force, after %d", newer.version, self.version)
        self.judge = replace(self.judge, trust=newer)
        return True

    def _take_up(self, stored: bytes) -> None:
        try:
            trusted = TrustedSet.from_bundle(stored)
        except TrustError as error:
            _log.error("the stored trust bundle cannot be read by this version: %s", error)
            return
        self.judge = replace(self.judge, trust=trusted)
