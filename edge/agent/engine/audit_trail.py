"""The device's own audit trail: composed on the engine's thread, kept with what it tells of, handed to the outbox.

A record is stored in the same transaction as the change it is about, and with it where the trail stands. Only then it
goes to the outbox; what was stored and not handed over when the agent died goes again. So the trail goes on where it
was after a restart, a reboot and a power cut, and a record may come twice, the same to the byte.
"""

import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from edge.agent.store.state import Change, StateStore
from edge.errors import EdgeError
from edge.model.audit import BEGINNING, Head, next_record

_log = logging.getLogger(__name__)

META: Final = "audit/"
_HEAD: Final = "audit_head"
_REFUSALS: Final = 20
_REFUSAL_SECONDS: Final = 6.0
"""Refusals are told 20 at once, then one each 6 s: whoever sends nonsense must not wash the trail out."""


class AuditTrail:
    """Only the engine's thread touches it.

    Args:
        store: Keeps the trail's end, and what was not handed over.
        monotonic: Seconds of the boot.
        hand_over: Takes records for the outbox.
    """

    def __init__(
        self, store: StateStore, monotonic: Callable[[], float], hand_over: Callable[[Sequence[bytes]], None]
    ) -> None:
        self._monotonic = monotonic
        self._hand_over = hand_over
        stored = store.meta(_HEAD)
        self._head = Head(**json.loads(stored)) if stored else Head(secrets.token_hex(8), 0, BEGINNING)
        self._before = self._head
        self._waiting = {f"{META}{key}": record for key, record in store.meta_of(META).items()}
        self._unstored: dict[str, bytes] = {}
        self._done: list[str] = []
        self._allowance, self._allowed_at = float(_REFUSALS), monotonic()
        self._untold = 0

    @property
    def head(self) -> Head:
        """Where the trail stands."""
        return self._head

    def note(self, what: str, **fields: Any) -> None:
        """Take up a record; it is stored with the next change."""
        self._before = self._head
        record, self._head = next_record(self._head, int(self._monotonic() * 1000), what, _camel(fields))
        self._unstored[_key(self._head)] = record

    def note_refusal(self, what: str, **fields: Any) -> None:
        """Take up a record of something that was refused, unless there were too many: those are counted."""
        now = self._monotonic()
        self._allowance = min(_REFUSALS, self._allowance + (now - self._allowed_at) / _REFUSAL_SECONDS)
        self._allowed_at = now
        if self._allowance < 1:
            self._untold += 1
            return
        self._allowance -= 1
        untold, self._untold = self._untold, 0
        self.note(what, **fields, not_recorded=untold or None)

    def withdraw(self) -> None:
        """The newest record, not stored yet, tells of something that did not come about."""
        del self._unstored[_key(self._head)]
        self._head = self._before

    def stamped(self, change: Change) -> Change:
        """Return a change with what is not stored yet, and without what was handed over.

        Another one each time: of a change that could not be stored, the trail's end must not come later.
        """
        meta: dict[str, bytes | None] = dict.fromkeys(self._done)
        if self._unstored:
            head = {"chain": self._head.chain, "count": self._head.count, "hash": self._head.hash}
            meta |= {**self._unstored, _HEAD: json.dumps(head).encode()}
        return replace(change, meta={**change.meta, **meta})

    def stored(self) -> None:
        """The change that was stamped is stored."""
        self._done = []
        self._waiting |= self._unstored
        self._unstored = {}

    @property
    def has_news(self) -> bool:
        """There is something that no change holds yet."""
        return bool(self._unstored)

    def pass_on(self) -> None:
        """Hand over what is stored."""
        if not self._waiting:
            return
        keys = sorted(self._waiting)
        try:
            self._hand_over([self._waiting[key] for key in keys])
        except EdgeError as error:
            _log.warning("the audit trail waits: %s", error)
            return
        self._done += keys
        self._waiting = {}

    def describe(self) -> list[dict[str, Any]]:
        """Return what `reported` says of it."""
        return [{"chain": self._head.chain, "records": self._head.count, "hash": self._head.hash}]


def _key(head: Head) -> str:
    return f"{META}{head.count:016d}"


def _camel(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "".join(part.capitalize() if index else part for index, part in enumerate(name.split("_"))): value
        for name, value in fields.items()
    }
