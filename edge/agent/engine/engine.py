"""The engine: one thread, one inbox, one writer. Facts in; decisions, commits and messages out.

The order that keeps promises: verify, persist, PUBACK, plan, act, report. Nothing is acknowledged before it is stored,
and no step that follows from a revision begins before the revision is.
"""

import hashlib
import logging
import uuid
from typing import Final, assert_never

from edge.agent.engine.audit_trail import AuditTrail
from edge.agent.engine.backoff import Backoff
from edge.agent.engine.believing import Belief
from edge.agent.engine.clock_floor import ClockFloor
from edge.agent.engine.commands import Commands
from edge.agent.engine.events import (
    BirthChanged,
    BrokerReported,
    CommandEnded,
    ContainerEvent,
    ContainerExited,
    ContainerInspected,
    ContainersListed,
    Event,
    HealthChecked,
    ImagesSeen,
    ListingFailed,
    LocalAsked,
    ProfilesSeen,
    PullBegan,
    StepFailed,
    StepSucceeded,
    StopRequested,
    Witnessed,
)
from edge.agent.engine.heads import Heads
from edge.agent.engine.health_checks import HealthChecks
from edge.agent.engine.inbox import Inbox
from edge.agent.engine.intake import ExpiredError, revision_of
from edge.agent.engine.own_work import OwnWork
from edge.agent.engine.parts import Parts
from edge.agent.engine.reconciler import Reconciler
from edge.agent.engine.uplink import REFUSED, Uplink
from edge.agent.store.state import Change, StoredCommand
from edge.errors import EdgeError, InvalidInputError, SecretUnavailableError, StoreError, SupersededError
from edge.model.assignment import Assignment
from edge.model.describe import applied
from edge.model.documents import (
    CommandResult,
    CommandStatus,
    ConnectionState,
    Problem,
    RevisionAck,
    RevisionOutcome,
)
from edge.model.plan import StartContainer, Step
from edge.model.secrets import secrets_of
from edge.model.topics import parse_command, parse_device
from edge.mqtt.broker import (
    BrokerEvent,
    Connected,
    Disconnected,
    MessageReceived,
    Publication,
    PublicationAcknowledged,
    Subscribed,
    Will,
)

_log = logging.getLogger(__name__)

READY_SECONDS: Final = 10.0
"""How long a container without a health check runs until its start is taken to be over."""
IDLE_SECONDS: Final = 30.0
"""After so long without an event the memory of the last work is given back."""


class Engine:
    """The mind of a device."""

    def __init__(self, parts: Parts, inbox: Inbox) -> None:
        self._parts = parts
        self._inbox = inbox
        self._store = parts.store
        self._clock = parts.clock
        self._topics = parts.reporter.topics
        self._boot_id = parts.reporter.facts.boot_id
        self._audit = AuditTrail(self._store, self._clock.monotonic, parts.audit)
        self._revision = int(self._store.meta("revision") or 0)
        self._belief = Belief(self._store, parts.judge, self._revision)
        parts.trusts(self._belief.judge.trust)
        self._heads = Heads(self._belief)
        self._floor = ClockFloor(self._clock, parts.time_passed)
        self._envelope_digest = self._store.meta("envelope_digest") or b""
        self._acked = RevisionOutcome((self._store.meta("outcome") or b"ACCEPTED").decode())
        self._reported_version = int(self._store.meta("reported_version") or 0)
        self._problem = ""
        self._protected: frozenset[str] | None = None
        self._started: frozenset[str] = frozenset()
        self._session = ""
        self._secrets: dict[str, int] = {}
        self._engine_version = ""
        self._stopping = False
        self._turned_at = self._clock.monotonic()
        self._unstored: dict[str, MessageReceived] = {}
        self._store_retries: Backoff[str] = Backoff(1.0, 60.0)
        self._reconciler = Reconciler(
            self._store.tasks(),
            boot_id=self._boot_id,
            previous_boot_id=(self._store.meta("boot_id") or b"").decode(),
            clock=self._clock,
            hands=parts.hands,
            cleanup_seconds=parts.cleanup_seconds,
            describe_event=parts.reporter.event,
            has_assignment=self._revision > 0,
        )
        self._health = HealthChecks(self._reconciler, self._clock, parts.hands)
        self._own = OwnWork(self._store, self._reconciler, self._clock, parts.reporter, self._audit)
        self._uplink = Uplink(parts.broker, self._topics, self._store, self._reported)
        identity = parts.reporter.identity
        self._commands = Commands(
            self._store, self._reconciler, parts.hands, (identity.cluster, identity.device), self._command_answered
        )
        self._audit.note("agentStarted", version=parts.reporter.agent_version, boot_id=self._boot_id)
        self._resume()

    def run(self) -> None:
        """Work until `StopRequested`; containers are left as they are."""
        self._parts.broker.start(self._hear, self._new_will())
        idle = False
        while not self._stopping:
            self._turn()
            self._parts.alive()
            event = self._inbox.get(self._patience(idle=idle))
            if event is None and not idle:
                self._parts.idle()
            idle = event is None
            while event is not None:
                self._handle(event)
                event = self._inbox.get(0)
        self._turn()
        self._parts.streams.close()
        farewell = self._parts.reporter.status(ConnectionState.OFFLINE, self._session, "agent stopped")
        self._parts.broker.stop(Publication(self._topics.status, farewell, 0, retain=True))

    def _hear(self, event: BrokerEvent) -> None:
        """Pass on what the broker's thread says; the next will is set before that thread can connect again."""
        if not self._parts.heard(event):
            self._inbox.put(BrokerReported(event, self._session))
        if isinstance(event, Disconnected):
            self._parts.broker.set_will(self._new_will())

    def _turn(self) -> None:
        """Act on what is known, then make it last, then say it."""
        self._turned_at = self._clock.monotonic()
        if not self._stopping:
            self._own.tend()
            self._health.tend()
            self._reconciler.dispatch()
            self._protect_images()
            self._tell_started()
        self._take_up_unstored()
        stored = self._commit()
        if stored:
            self._acknowledge_applied()
            self._audit.pass_on()
        self._own.answer(problem="" if stored else self._problem)
        self._uplink.pump(stored=stored)

    def _protect_images(self) -> None:
        needed = self._reconciler.images_needed() | self._own.images_kept()
        if needed != self._protected and self._reconciler.adopted:
            self._protected = needed
            self._parts.hands.protect_images(needed)

    def _tell_started(self) -> None:
        """What an image's start reads ends when it is first healthy; without a health check, soon after it runs."""
        healthy, running = self._reconciler.images_started()
        for image_ids, seconds in ((healthy, 0.0), (running, READY_SECONDS)):
            if new := image_ids - self._started:
                self._parts.hands.images_started(new, seconds)
        # Of an image that no container runs any more, the next start is another one.
        self._started = healthy | running

    def _patience(self, *, idle: bool) -> float | None:
        now = self._clock.monotonic()
        # As of the last turn: what became due since must not be slept over.
        times = [
            self._reconciler.next_due(),
            self._own.next_due(),
            self._health.next_due(),
            self._store_retries.next_due(self._turned_at),
        ]
        due = [max(0.001, t - now) for t in times if t is not None]
        if self._parts.alive_seconds is not None:
            due.append(self._parts.alive_seconds)
        return min([*due, *([] if idle else [IDLE_SECONDS])], default=None)

    # --- facts ------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        match event:
            case BrokerReported():
                self._broker_said(event.event, event.session)
            case CommandEnded():
                change = self._reconciler.change
                self._commands.ended(event.command_id, event.status, event.result, event.reason, change)
            case ContainerExited():
                self._parts.hands.inspect(event.runtime_id)
            case BirthChanged():
                self._uplink.birth_changed(self._parts.reporter.birth(self._engine_version))
            case Witnessed():
                self._audit.note(event.what, **event.fields)
            case LocalAsked():
                self._own.asked(event)
            case ProfilesSeen():
                self._uplink.profiles_changed(event.profiles)
            case StopRequested():
                self._stopping = True
            case _:
                self._containers_said(event)

    def _containers_said(self, event: ContainerEvent) -> None:
        match event:
            case StepSucceeded():
                self._note_secrets(event.step)
                self._reconciler.step_succeeded(event.step, event.outcome)
            case StepFailed():
                self._note_secrets(event.step, event.error)
                self._reconciler.step_failed(event.step, event.error)
            case ImagesSeen():
                self._reconciler.images_seen(event.arrivals)
            case PullBegan():
                self._reconciler.pull_began(event.task_id, event.container)
            case HealthChecked():
                self._health.checked((event.task_id, event.container), event.runtime_id, passed=event.passed)
            case ContainerInspected(answered=True):
                self._reconciler.inspected(event.runtime_id, event.found)
            case ContainerInspected():
                self._reconciler.exit_unclear(event.runtime_id)
            case ContainersListed():
                self._reconciler.listed(event.found)
                self._floor.note(self._reconciler.change)
                self._learn_version(event.engine_version)
                self._parts.containers_found()
            case ListingFailed():
                self._reconciler.listing_failed(event.error)
            case _:
                assert_never(event)

    def _broker_said(self, event: BrokerEvent, session: str) -> None:
        match event:
            case Connected():
                topics = self._topics
                state = (topics.trust, topics.desired, topics.head, topics.commands)
                self._parts.broker.subscribe((*((topic, 1) for topic in state), (topics.streams_in, 0)))
                status = self._parts.reporter.status(ConnectionState.ONLINE, session)
                birth = self._parts.reporter.birth(self._engine_version)
                self._uplink.connection_made(event, status, birth)
                self._uplink.ask(self._heads.ask())
                self._parts.connection_changed("")
            case Disconnected():
                self._uplink.connection_lost()
                self._parts.connection_changed(event.reason)
            case MessageReceived():
                self._message(event)
            case PublicationAcknowledged():
                self._uplink.acknowledged(event, self._reconciler.change)
            case Subscribed():
                refused = [f for f, code in zip(event.filters, event.reason_codes, strict=False) if code >= REFUSED]
                if refused:
                    _log.error("the broker refuses our subscriptions to %s: look at its access list", refused)
            case _:
                assert_never(event)

    def _message(self, message: MessageReceived) -> None:
        try:
            if message.topic == self._topics.desired:
                self._desired(message)
            elif message.topic == self._topics.trust:
                self._trust(message)
            elif message.topic == self._topics.head:
                self._head(message)
            elif (command := parse_command(message.topic)) is not None:
                self._command(message, *command)
            elif (parsed := parse_device(message.topic)) is not None and parsed[1].startswith("stream/"):
                self._parts.streams.heard(parsed[1].split("/")[1], message.payload)
        except StoreError as error:
            # Not stored, so not acknowledged; of two desired states only the newer one matters.
            self._unstored[message.topic] = message
            self._store_failed("message", error)
            return
        self._unstored.pop(message.topic, None)
        if message.qos:
            self._parts.broker.acknowledge(message)

    def _take_up_unstored(self) -> None:
        if self._unstored and "message" not in self._store_retries.waiting(self._clock.monotonic()):
            for message in list(self._unstored.values()):
                self._message(message)
            if not self._unstored:
                self._store_retries.succeeded("message")

    def _note_secrets(self, step: Step, error: EdgeError | None = None) -> None:
        task = self._reconciler.tasks.get(step.task_id)
        if task is None or not isinstance(step, StartContainer):
            return
        where = {"task": step.task_id, "container": step.container}
        if isinstance(error, SecretUnavailableError):
            self._audit.note_refusal("secrets", outcome="NOT_OPENED", reason=str(error), **where)
        elif error is None and (names := sorted(set(secrets_of(task.definition, step.container).values()))):
            told = [f"{name} version {self._secrets.get(name, 0)}" for name in names]
            self._audit.note("secrets", outcome="OPENED", names=told, **where)

    def _trust(self, message: MessageReceived) -> None:
        before = self._belief.problem
        if self._belief.follow(message.payload):
            self._audit.note("trust", version=self._belief.version, outcome="FOLLOWED")
            self._parts.trusts(self._belief.judge.trust)
            # What was refused because of its keys may count now: the broker gives it again.
            self._parts.broker.subscribe(((self._topics.desired, 1),))
        elif before == self._belief.problem:
            return
        elif self._belief.problem:
            self._audit.note_refusal("trust", outcome="REFUSED", reason=self._belief.problem)
        self._uplink.tasks_changed()

    def _head(self, message: MessageReceived) -> None:
        head = self._heads.heard(message.payload)
        if head is not None:
            self._floor.learned(head.time, self._reconciler.change)
            self._uplink.tasks_changed()

    # --- desired state ----------------------------------------------------------------------------------------

    def _desired(self, message: MessageReceived) -> None:
        digest = hashlib.sha256(message.payload).hexdigest().encode()
        if digest == self._envelope_digest:
            # The broker gives a retained message with every subscription: answered again, done once.
            self._answer_revision(self._revision, self._acked)
            return
        try:
            judged = self._belief.judge.desired_state(
                message.payload, in_force=self._belief.in_force, tasks=self._reconciler.tasks
            )
        except EdgeError as error:
            self._refuse_revision(revision_of(message.payload), error)
            return
        revision = judged.assignment.revision
        meta: dict[str, bytes | None] = {
            "revision": str(revision).encode(),
            "desired": judged.payload,
            "envelope_digest": digest,
            "outcome": RevisionOutcome.ACCEPTED.value.encode(),
            **self._belief.counted(judged.key_ids, revision),
        }
        self._audit.note("revision", revision=revision, outcome="ACCEPTED", keys=list(judged.key_ids))
        self._write(Change(meta=meta))
        self._belief.count(judged.key_ids, revision)
        self._revision, self._envelope_digest = revision, digest
        self._acked = RevisionOutcome.ACCEPTED
        self._assign(judged.assignment)
        self._uplink.tasks_changed()
        self._answer_revision(revision, RevisionOutcome.ACCEPTED)

    def _write(self, change: Change) -> None:
        """Store a change that the newest record of the audit trail is about; raises as the store does."""
        try:
            self._store.commit(self._audit.stamped(change))
        except StoreError:
            self._audit.withdraw()
            raise
        self._audit.stored()

    def _assign(self, assignment: Assignment) -> None:
        self._secrets = {one.name: one.version for one in assignment.secrets}
        self._parts.hands.know_secrets(assignment.secrets)
        self._reconciler.assign(assignment)
        self._own.assign(assignment)

    def _refuse_revision(self, revision: int | None, error: EdgeError) -> None:
        outcome = RevisionOutcome.SUPERSEDED if isinstance(error, SupersededError) else RevisionOutcome.REJECTED
        problems = error.problems if isinstance(error, InvalidInputError) else ()
        errors = [Problem(path=path, message=text) for path, text in problems] or [Problem(path="", message=str(error))]
        told = "; ".join(e.message for e in errors)
        self._audit.note_refusal("revision", revision=revision, outcome=outcome.value, reason=told)
        _log.warning("desired state refused (%s): %s", outcome.value, told)
        self._uplink.acknowledge_revision(RevisionAck(revision=revision, outcome=outcome, errors=errors))

    def _answer_revision(self, revision: int, outcome: RevisionOutcome) -> None:
        errors = self._own.rolled_back() if outcome is RevisionOutcome.ROLLED_BACK else []
        self._uplink.acknowledge_revision(RevisionAck(revision=revision, outcome=outcome, errors=errors))

    def _acknowledge_applied(self) -> None:
        """Say what became of the revision once everything has come to rest."""
        if self._acked is not RevisionOutcome.ACCEPTED or not self._revision:
            return
        if self._own.settled and applied(self._reconciler.tasks.values()):
            back = self._own.rolled_back()
            self._acked = RevisionOutcome.ROLLED_BACK if back else RevisionOutcome.APPLIED
            self._reconciler.change.meta["outcome"] = self._acked.value.encode()
            self._audit.note("revision", revision=self._revision, outcome=self._acked.value)
            self._commit()
            self._answer_revision(self._revision, self._acked)

    # --- commands ---------------------------------------------------------------------------------------------

    def _command(self, message: MessageReceived, op: str, command_id: str) -> None:
        known = self._commands.known(command_id)
        if known is not None:
            self._uplink.answer(known)
            return
        try:
            command, key_ids = self._belief.judge.command(
                message.payload,
                op=op,
                command_id=command_id,
                now=self._clock.now(),
                clock_is_good=self._clock.is_synchronized(),
            )
            stored = self._commands.accept(command, message.response_topic, message.correlation)
        except StoreError:
            raise
        except EdgeError as error:
            status = CommandStatus.EXPIRED if isinstance(error, ExpiredError) else CommandStatus.REJECTED
            _log.warning("command %s/%s refused: %s", op, command_id, error)
            self._audit.note_refusal("command", op=op, id=command_id, outcome=status.value, reason=str(error))
            self._uplink.refuse(CommandResult(id=command_id, op=op, status=status, reason=str(error)))
            return
        self._audit.note("command", op=op, id=command_id, outcome="ACCEPTED", keys=list(key_ids))
        self._write(Change(commands={stored.id: stored}))
        self._commands.begin(stored, self._reconciler.change)

    def _command_answered(self, command: StoredCommand) -> None:
        if command.status is not CommandStatus.RUNNING:
            reason = command.reason
            self._audit.note("command", op=command.op, id=command.id, outcome=command.status.value, reason=reason)
        self._uplink.answer(command)

    # --- store and link ---------------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Take up where an agent before us was: its revision may be stored and not yet in its tasks."""
        change = self._reconciler.change
        change.meta["boot_id"] = self._boot_id.encode()
        payload = self._store.meta("desired")
        if payload is not None:
            try:
                assignment = self._belief.judge.read(payload, in_force=0, tasks=self._reconciler.tasks)
            except EdgeError as error:
                _log.error("the stored revision %d cannot be read by this version: %s", self._revision, error)
            else:
                self._assign(assignment)
            self._answer_revision(self._revision, self._acked)
        self._commands.resume(change)

    def _commit(self) -> bool:
        """Write what changed; on a full disk it is kept in memory, and tried again."""
        change = self._reconciler.change
        if not change and not self._audit.has_news:
            return True
        self._floor.note(change, 60.0)
        if "commit" in self._store_retries.waiting(self._clock.monotonic()):
            return False
        if change.tasks or self._own.is_in(change):
            self._reported_version += 1
            change.meta["reported_version"] = str(self._reported_version).encode()
            self._uplink.tasks_changed()
        try:
            self._store.commit(self._audit.stamped(change))
        except StoreError as error:
            self._store_failed("commit", error)
            return False
        self._audit.stored()
        self._store_retries.succeeded("commit")
        self._set_problem("")
        self._reconciler.change = Change()
        return True

    def _store_failed(self, what: str, error: StoreError) -> None:
        self._store_retries.failed(what, self._clock.monotonic(), str(error))
        _log.warning("cannot store a %s; trying again: %s", what, error)
        self._set_problem(str(error))

    def _set_problem(self, problem: str) -> None:
        """Tell the operator what is wrong with the agent itself; shown beside its tasks."""
        if problem != self._problem:
            self._problem = problem
            self._uplink.tasks_changed()

    def _learn_version(self, version: str) -> None:
        if version != self._engine_version:
            self._engine_version = version
            self._uplink.birth_changed(self._parts.reporter.birth(version))

    def _reported(self, maximum_bytes: int) -> bytes:
        return self._parts.reporter.reported(
            self._reconciler.tasks.values(),
            revision=self._revision,
            version=self._reported_version,
            dropped_events=self._store.events_dropped(),
            problem=self._problem,
            maximum_bytes=maximum_bytes,
            arrivals=self._reconciler.arrivals,
            own={
                **self._own.describe(),
                "telemetry": self._parts.telemetry(),
                "trust": self._heads.describe(),
                "audit": self._audit.describe(),
            },
        )

    def _new_will(self) -> Will:
        """Every connection has its own session, and its own will: an old one cannot speak for a new one.

        Called by the engine's thread before the broker starts, and by the broker's thread from then on.
        """
        self._session = uuid.uuid4().hex
        payload = self._parts.reporter.status(ConnectionState.OFFLINE, self._session, "connection lost")
        return Will(self._topics.status, payload)
