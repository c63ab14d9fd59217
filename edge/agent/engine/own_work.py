"""What the device does by itself, as one thing to the engine: services, schedules, and who stands before it."""

from typing import Any

from edge.agent.engine.audit_trail import AuditTrail
from edge.agent.engine.events import LocalAsked
from edge.agent.engine.local import Desk
from edge.agent.engine.ports import Clock
from edge.agent.engine.reconciler import Reconciler
from edge.agent.engine.reports import Reporter
from edge.agent.engine.schedules import META as SCHEDULE_META
from edge.agent.engine.schedules import Schedules
from edge.agent.engine.services import META as SERVICE_META
from edge.agent.engine.services import Services
from edge.agent.store.state import Change, StateStore
from edge.errors import EdgeError, StoreError
from edge.model.assignment import Assignment
from edge.model.documents import Problem


class OwnWork:
    """Only the engine's thread touches it."""

    def __init__(
        self,
        store: StateStore,
        reconciler: Reconciler,
        clock: Clock,
        reporter: Reporter,
        audit: AuditTrail,
    ) -> None:
        self._audit = audit
        identity = reporter.identity
        self._services = Services(
            store.meta_of(SERVICE_META),
            reconciler,
            clock,
            describe_event=reporter.service_event,
            cluster=identity.cluster,
        )
        self._schedules = Schedules(store.meta_of(SCHEDULE_META), reconciler, clock)
        self._desk = Desk(reconciler, clock, identity, describe_event=reporter.local_event, audit=audit.note)
        self._answers: list[tuple[LocalAsked, dict[str, Any]]] = []

    def assign(self, assignment: Assignment) -> None:
        """Bring a desired state into force."""
        self._services.assign(assignment)
        self._schedules.assign(assignment)
        self._desk.assign(assignment)

    def tend(self) -> None:
        """Do what is due."""
        self._services.tend()
        self._schedules.tend()

    def next_due(self) -> float | None:
        """Return the monotonic time at which `tend` has something to do without any new fact."""
        times = (self._services.next_due(), self._schedules.next_due())
        return min((time for time in times if time is not None), default=None)

    @property
    def settled(self) -> bool:
        """Every service has come to rest."""
        return self._services.settled

    def rolled_back(self) -> list[Problem]:
        """Return which services run something else than the desired state says, and why."""
        return self._services.rolled_back()

    def images_kept(self) -> frozenset[str]:
        """Return the ids of images that a roll-back would need."""
        return self._services.images_kept()

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """Return what is reported of it."""
        return {"services": self._services.describe(), "schedules": self._schedules.describe()}

    @staticmethod
    def is_in(change: Change) -> bool:
        """Say whether a change has something of it."""
        return any(key.startswith((SERVICE_META, SCHEDULE_META)) for key in change.meta)

    def asked(self, asked: LocalAsked) -> None:
        """Do what somebody at the device asks; answered by `answer`, once it is stored."""
        try:
            self._answers.append((asked, self._desk.answer(asked.request, asked.peer)))
        except EdgeError as error:
            who = {"user": asked.peer.name, "uid": asked.peer.uid}
            self._audit.note_refusal("local", action=asked.request.op, outcome="REFUSED", reason=str(error), **who)
            asked.answer(error)

    def answer(self, *, problem: str) -> None:
        """Answer whoever waits; `problem` says why it could not be stored, empty when it is."""
        answers, self._answers = self._answers, []
        for asked, result in answers:
            asked.answer(StoreError(f"it is done, and cannot be kept: {problem}") if problem else result)
