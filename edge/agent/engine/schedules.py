"""The schedules of this device: what they start, and what is remembered of them.

Only the engine's thread touches it. That a time was handled and the task it began are one transaction, so that no power
cut makes a time count twice, or not at all.
"""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from edge.agent.engine.ports import Clock
from edge.agent.engine.reconciler import Reconciler
from edge.errors import InvalidInputError
from edge.model.assignment import AcceptedDefinition, Assignment, device_task
from edge.model.schedule import Due, ScheduleRecord, begin, due, parse_time
from edge.model.service_records import describe_schedule, schedule_from_bytes, schedule_to_bytes
from edge.model.task import Origin, Task, TaskStatus

_log = logging.getLogger(__name__)

META: Final = "schedule:"
"""Begins the keys of schedules in the store."""
LOOK_SECONDS: Final = 60.0
"""The wall clock is looked at so often at least: it may be set while we sleep."""


@dataclass(slots=True)
class _Kept:
    record: ScheduleRecord
    definition: AcceptedDefinition | None = None
    following: datetime | None = None


class Schedules:
    """Starts tasks at their times."""

    def __init__(self, stored: Mapping[str, bytes], reconciler: Reconciler, clock: Clock) -> None:
        """Take them up; nothing fires before `assign` brought their task definitions."""
        self._reconciler = reconciler
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._due: float | None = None
        for name, data in stored.items():
            try:
                self._kept[name] = _Kept(schedule_from_bytes(data))
            except (ValueError, KeyError, TypeError) as error:
                _log.error("the stored schedule %s cannot be read by this version: %s", name, error)

    def assign(self, assignment: Assignment) -> None:
        """Bring a desired state's schedules into force; tasks that were started go on."""
        named = {desired.name: desired for desired in assignment.schedules}
        for name in set(self._kept) - set(named):
            del self._kept[name]
            self._reconciler.change.meta[META + name] = None
        for name, desired in named.items():
            definition = assignment.definitions[desired.task_definition]
            known = self._kept.get(name)
            if known is None or known.record.desired.schedule_expression != desired.schedule_expression:
                record = begin(desired, parse_time(self._clock.now()))
            else:
                record = replace(known.record, desired=desired)
            changed = known is None or known.record != record
            self._kept[name] = _Kept(record, definition)
            if changed:
                self._write(record)

    def tend(self) -> None:
        """Start what is due."""
        now, moment = self._clock.monotonic(), parse_time(self._clock.now())
        self._due = None
        for kept in self._kept.values():
            if kept.definition is None:
                continue
            try:
                found = due(kept.record, moment, clock_is_good=self._clock.is_synchronized())
            except InvalidInputError as error:
                # It was judged when it came: the machine has lost its time zones since.
                _log.error("schedule %s cannot be read: %s", kept.record.desired.name, error)
                continue
            kept.following = found.next
            if not self._reconciler.adopted:
                # Whether an earlier task still runs is not known yet; being told so brings the next turn.
                continue
            self._fire(kept, kept.definition, found)
            if found.next is not None:
                wait = min((found.next - moment).total_seconds(), LOOK_SECONDS)
                self._due = min(now + wait, self._due or now + wait)

    def next_due(self) -> float | None:
        """Return the monotonic time at which `tend` should look again."""
        return self._due

    def describe(self) -> list[dict[str, Any]]:
        """Return what is known of each."""
        return [
            describe_schedule(kept.record, kept.following.isoformat() if kept.following else "")
            for kept in self._kept.values()
        ]

    def _fire(self, kept: _Kept, definition: AcceptedDefinition, found: Due) -> None:
        desired = kept.record.desired
        missed = found.missed
        for time in found.fire:
            if desired.overlap == "SKIP" and self._runs(desired.name):
                missed += 1
                continue
            for _ in range(desired.task_count):
                task = device_task(
                    Origin.SCHEDULE,
                    secrets.token_hex(16),
                    desired.task_definition,
                    definition,
                    group=f"schedule:{desired.name}",
                    started_by=f"schedule/{time:%Y%m%dT%H%M%SZ}",
                    now=self._clock.now(),
                )
                self._reconciler.begin(task)
        record = replace(kept.record, missed=kept.record.missed + missed)
        if found.fire or missed or parse_time(record.handled) > found.handled:
            # A look that found nothing is not worth a write: it finds nothing again.
            record = replace(record, handled=found.handled.isoformat())
            kept.record = record
            self._write(record)

    def _runs(self, name: str) -> bool:
        return any(_is_of(task, name) for task in self._reconciler.tasks.values())

    def _write(self, record: ScheduleRecord) -> None:
        self._reconciler.change.meta[META + record.desired.name] = schedule_to_bytes(record)


def _is_of(task: Task, name: str) -> bool:
    ours = task.origin is Origin.SCHEDULE and task.group == f"schedule:{name}"
    return ours and task.last_status is not TaskStatus.STOPPED
