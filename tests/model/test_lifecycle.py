from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge.model import lifecycle
from edge.model.documents import DesiredStatus
from edge.model.task import ContainerStatus, StopCode, Task, TaskStatus, task_from_json, task_to_json
from tests.support.tasks import LATER, NOW, container_definition, make_task

RUNTIME_ID = "f" * 64


def started(task: Task, name: str = "app") -> Task:
    task = lifecycle.pulled(task, name, "a" * 64, "sha256:" + "b" * 64)
    task = lifecycle.created(task, name, RUNTIME_ID, "boot-1")
    return lifecycle.running(task, name, RUNTIME_ID, "boot-1", NOW)


def test_a_task_is_running_when_its_slowest_container_is() -> None:
    task = make_task(container_definition("app"), container_definition("side", essential=False))
    task = started(task, "app")
    assert task.last_status is TaskStatus.PENDING
    task = started(task, "side")
    assert task.last_status is TaskStatus.RUNNING
    assert task.started_at == NOW


def test_the_exit_of_an_essential_container_stops_its_task() -> None:
    task = started(started(make_task(container_definition("app"), container_definition("side"))), "side")
    task = lifecycle.exited(task, "app", exit_code=3, oom_killed=False, finished_at=LATER, now=LATER)
    assert task.desired_status is DesiredStatus.STOPPED
    assert task.stop_code is StopCode.ESSENTIAL_CONTAINER_EXITED
    assert task.stopped_reason == "Essential container in task exited"
    assert task.container("app").exit_code == 3
    assert task.last_status is TaskStatus.RUNNING, "the other container still runs and must be stopped"
    task = lifecycle.stopped(task, "side", LATER, exit_code=143)
    assert task.last_status is TaskStatus.STOPPED
    assert task.stopped_at == LATER


def test_the_exit_of_a_container_that_is_not_essential_leaves_the_task_running() -> None:
    task = make_task(container_definition("app"), container_definition("init", essential=False))
    task = started(started(task, "app"), "init")
    task = lifecycle.exited(task, "init", exit_code=0, oom_killed=False, finished_at=LATER, now=LATER)
    assert (task.desired_status, task.last_status) == (DesiredStatus.RUNNING, TaskStatus.RUNNING)


def test_a_container_killed_for_memory_says_so_in_ecs_words() -> None:
    task = lifecycle.exited(started(make_task()), "app", exit_code=137, oom_killed=True, finished_at=LATER, now=LATER)
    assert task.container("app").reason == "OutOfMemoryError: Container killed due to memory usage"


def test_a_late_running_event_does_not_revive_a_container_that_exited() -> None:
    task = make_task(container_definition("app"), container_definition("init", essential=False))
    task = started(started(task, "app"), "init")
    task = lifecycle.exited(task, "init", exit_code=0, oom_killed=False, finished_at=LATER, now=LATER)
    assert lifecycle.running(task, "init", RUNTIME_ID, "boot-1", LATER) == task


def test_a_container_that_runs_though_its_task_was_stopped_is_seen_and_must_be_stopped() -> None:
    task = lifecycle.stop(make_task(), NOW, StopCode.USER_INITIATED, "enough")
    assert task.last_status is TaskStatus.STOPPED
    task = lifecycle.running(task, "app", RUNTIME_ID, "boot-1", LATER)
    assert task.container("app").status is ContainerStatus.RUNNING


def test_a_task_that_is_stopped_before_anything_was_made_is_stopped_at_once() -> None:
    task = lifecycle.stop(make_task(), NOW, StopCode.USER_INITIATED, "enough")
    assert (task.last_status, task.stopped_at) == (TaskStatus.STOPPED, NOW)


def test_the_first_reason_to_stop_stays() -> None:
    task = lifecycle.stop(started(make_task()), NOW, StopCode.USER_INITIATED, "first")
    task = lifecycle.stop(task, LATER, StopCode.ESSENTIAL_CONTAINER_EXITED, "second")
    assert (task.stopped_reason, task.stop_code, task.stopping_at) == ("first", StopCode.USER_INITIATED, NOW)


def test_a_failure_that_no_retry_helps_ends_the_task_before_it_began() -> None:
    task = lifecycle.failed(make_task(), "app", "CannotPullContainerError: manifest unknown", NOW)
    assert task.stop_code is StopCode.TASK_FAILED_TO_START
    assert task.stopped_reason == "CannotPullContainerError: manifest unknown"
    assert task.container("app").reason == "CannotPullContainerError: manifest unknown"
    assert task.last_status is TaskStatus.STOPPED


def test_what_waits_says_why_and_forgets_it_when_it_gets_on() -> None:
    task = lifecycle.waiting(make_task(), "app", "registry away")
    assert task.pending_reason == "registry away"
    assert started(task).pending_reason == ""


def test_a_running_container_that_vanished_counts_as_exited() -> None:
    task = lifecycle.vanished(started(make_task()), "app", LATER)
    assert task.container("app").reason.startswith("ContainerVanishedError")
    assert task.stop_code is StopCode.ESSENTIAL_CONTAINER_EXITED


def test_a_created_container_that_vanished_is_made_again() -> None:
    task = lifecycle.created(lifecycle.pulled(make_task(), "app", "a", "b"), "app", RUNTIME_ID, "boot-1")
    task = lifecycle.vanished(task, "app", LATER)
    assert task.container("app").status is ContainerStatus.NONE
    assert task.desired_status is DesiredStatus.RUNNING


def test_after_a_reboot_what_ran_is_to_be_started_again() -> None:
    task = lifecycle.rebooted(started(make_task()), "app", still_there=True)
    assert task.container("app").status is ContainerStatus.CREATED
    assert task.last_status is TaskStatus.PENDING


def test_after_a_reboot_what_is_gone_is_made_again() -> None:
    task = lifecycle.rebooted(started(make_task()), "app", still_there=False)
    assert task.container("app").status is ContainerStatus.NONE
    assert task.container("app").runtime_id == ""


def test_a_container_that_exited_before_a_reboot_stays_stopped() -> None:
    task = make_task(container_definition("app"), container_definition("init", essential=False))
    task = started(started(task, "app"), "init")
    task = lifecycle.exited(task, "init", exit_code=0, oom_killed=False, finished_at=LATER, now=LATER)
    task = lifecycle.rebooted(task, "init", still_there=True)
    assert task.container("init").status is ContainerStatus.STOPPED


def test_a_long_reason_is_cut_where_ecs_cuts_it() -> None:
    task = lifecycle.failed(make_task(), "app", "x" * 1000, NOW)
    assert len(task.container("app").reason) == 255


HAPPENINGS: dict[str, Callable[[Task, str], Task]] = {
    "pulled": lambda task, name: lifecycle.pulled(task, name, "a", "b"),
    "created": lambda task, name: lifecycle.created(task, name, RUNTIME_ID, "boot-1"),
    "running": lambda task, name: lifecycle.running(task, name, RUNTIME_ID, "boot-1", LATER),
    "exited": lambda task, name: lifecycle.exited(
        task, name, exit_code=0, oom_killed=False, finished_at=LATER, now=LATER
    ),
    "vanished": lambda task, name: lifecycle.vanished(task, name, LATER),
    "rebooted": lambda task, name: lifecycle.rebooted(task, name, still_there=True),
    "rebooted and lost": lambda task, name: lifecycle.rebooted(task, name, still_there=False),
    "failed": lambda task, name: lifecycle.failed(task, name, "no", LATER),
    "stop": lambda task, _: lifecycle.stop(task, LATER, StopCode.USER_INITIATED, "enough"),
    "stopped": lambda task, name: (
        lifecycle.stopped(task, name, LATER) if task.desired_status is DesiredStatus.STOPPED else task
    ),
    "again": lifecycle.again,
    "discarded": lambda task, name: lifecycle.again(task, name, discard=True),
    "removed": lifecycle.removed,
}
FACTS = st.lists(st.tuples(st.sampled_from(sorted(HAPPENINGS)), st.sampled_from(["app", "side"])), max_size=25)


@given(FACTS)
def test_whatever_happens_in_whatever_order_a_task_stays_consistent(facts: list[tuple[str, str]]) -> None:
    task = make_task(container_definition("app"), container_definition("side", essential=False))
    for fact, name in facts:
        before = task
        task = HAPPENINGS[fact](task, name)
        if before.desired_status is DesiredStatus.STOPPED:
            assert task.desired_status is DesiredStatus.STOPPED, "a task told to stop never runs again by itself"
            assert (task.stop_code, task.stopped_reason) == (before.stop_code, before.stopped_reason)
        if task.last_status is TaskStatus.STOPPED:
            assert task.desired_status is DesiredStatus.STOPPED
            assert task.stopped_at
            assert task.stop_code
        if task.container("app").status is ContainerStatus.STOPPED:
            assert task.desired_status is DesiredStatus.STOPPED, "an essential container that is over ends the task"


@given(FACTS)
def test_a_task_comes_back_from_the_store_as_it_was(facts: list[tuple[str, str]]) -> None:
    task = make_task(container_definition("app"), container_definition("side", essential=False))
    for fact, name in facts:
        task = HAPPENINGS[fact](task, name)
    assert task_from_json(task_to_json(task)) == replace(task, definition=dict(task.definition))
