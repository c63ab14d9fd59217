from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InvalidInputError
from edge.fleet.assignments import TaskRecord, after_rejection, after_report, compose, over, stopping
from edge.model.documents import MAXIMUM_TASKS, DesiredState, DesiredStatus

DEFINITIONS: dict[str, dict[str, Any]] = {"app:1": {"family": "app"}, "app:2": {"family": "app", "cpu": "256"}}


def record(number: int = 1, **changes: Any) -> TaskRecord:
    task = TaskRecord(f"{number:032x}", "shop", "pi-1", "app:1", "family:app", "", "2026-01-01T00:00:00Z", 3, 3)
    return replace(task, **changes)


def composed(*tasks: TaskRecord, revision: int = 5) -> DesiredState:
    return compose("shop", "pi-1", revision, issued_at="now", tasks=tasks, definitions=DEFINITIONS)


def test_a_desired_state_has_every_task_and_just_the_definitions_they_need() -> None:
    state = composed(record(1), record(2))
    assert [task.task_id for task in state.tasks] == [record(1).task_id, record(2).task_id]
    assert list(state.task_definitions) == ["app:1"]


def test_a_task_that_should_stop_stays_in_until_it_has() -> None:
    stopped = stopping(record(), 6, "enough")
    [task] = composed(stopped).tasks
    assert (task.desired_status, task.stopped_reason) == (DesiredStatus.STOPPED, "enough")
    reported = {stopped.task_id: {"lastStatus": "STOPPED", "stopCode": "UserInitiated"}}
    assert composed(after_report(stopped, 6, reported)).tasks == []


def test_a_task_that_ended_by_itself_is_not_started_again() -> None:
    ended = after_report(record(), 3, {record().task_id: {"lastStatus": "STOPPED", "exitCode": 0}})
    assert ended.is_over
    assert composed(ended).tasks == []


def test_a_late_running_report_does_not_revive_a_stopped_task() -> None:
    ended = over(record(), "UserInitiated", "enough")
    assert after_report(ended, 9, {ended.task_id: {"lastStatus": "RUNNING"}}) == ended


def test_a_task_that_was_stopped_before_the_device_heard_of_it_is_over() -> None:
    stopped = stopping(record(), 6, "too late")
    assert not after_report(stopped, 5, {}).is_over
    assert after_report(stopped, 6, {}).is_over


def test_a_running_task_that_the_device_does_not_mention_is_not_given_up() -> None:
    assert composed(after_report(record(), 9, {})).tasks


def test_stopping_twice_keeps_the_first_reason_and_revision() -> None:
    once = stopping(record(), 6, "first")
    assert stopping(once, 7, "second") == once


def test_a_rejection_ends_what_came_with_it_and_spares_what_runs() -> None:
    running, fresh, later = record(1, created_revision=2), record(2, created_revision=4), record(3, created_revision=6)
    known = {running.task_id: {"lastStatus": "RUNNING"}}
    judged = [after_rejection(task, 5, 3, known, "no privileged") for task in (running, fresh, later)]
    assert [task.is_over for task in judged] == [False, True, False]
    assert judged[1].reported["stopCode"] == "TaskFailedToStart"


def test_a_rejection_spares_what_the_device_has_or_had_agreed_to() -> None:
    known, agreed = record(1, created_revision=5), record(2, created_revision=3)
    reported = {known.task_id: {"lastStatus": "PENDING"}}
    assert [after_rejection(task, 5, 3, reported, "no") for task in (known, agreed)] == [known, agreed]


def test_a_reason_is_cut_where_ecs_cuts_it() -> None:
    assert len(composed(stopping(record(), 6, "x" * 1000)).tasks[0].stopped_reason) == 255


def test_more_tasks_than_a_document_may_have_are_refused() -> None:
    tasks = [record(number) for number in range(MAXIMUM_TASKS + 1)]
    assert len(composed(*tasks[1:]).tasks) == MAXIMUM_TASKS
    with pytest.raises(InvalidInputError, match="256 is the most"):
        composed(*tasks)


REPORTS = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.dictionaries(
            st.sampled_from([record(number).task_id for number in range(3)]),
            st.fixed_dictionaries({"lastStatus": st.sampled_from(["PENDING", "RUNNING", "STOPPED"])}),
        ),
    ),
    max_size=8,
)


@given(REPORTS)
def test_whatever_is_reported_a_task_is_over_once_and_for_all(reports: list[tuple[int, dict[str, Any]]]) -> None:
    task = stopping(record(1), 4, "enough")
    was_over = False
    for revision, tasks in reports:
        task = after_report(task, revision, tasks)
        assert task.is_over or not was_over
        was_over = task.is_over
        assert bool(composed(task).tasks) is not was_over
