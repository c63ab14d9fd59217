import json

import pytest

from edge.model.documents import DesiredStatus
from tests.cli.bench import Bench

EXITED = {
    "lastStatus": "STOPPED",
    "stopCode": "EssentialContainerExited",
    "stoppedReason": "Essential container in task exited",
    "containers": [{"name": "app", "lastStatus": "STOPPED", "exitCode": 3, "reason": "OutOfMemoryError: killed"}],
}


def test_a_task_is_shown_through_its_life_until_it_runs(bench: Bench) -> None:
    bench.device()
    ran = bench.edge("task", "run", "app", "--device", "pi-1")
    assert ran.code == 0
    statuses = [line.split()[2] for line in ran.out.splitlines()]
    assert statuses == ["PROVISIONING", "PENDING", "RUNNING"]
    assert "pulling registry.example/app:1" in ran.out


def test_the_only_device_need_not_be_named(bench: Bench) -> None:
    device = bench.device()
    assert bench.edge("task", "run", "app").code == 0
    assert [task.task_definition for task in device.revisions[-1].tasks] == ["app:1"]


def test_a_task_that_stops_instead_fails_with_the_reason_of_each_container(bench: Bench) -> None:
    bench.device(life=({"lastStatus": "PENDING"}, EXITED))
    ran = bench.edge("task", "run", "app")
    assert ran.code == 1
    assert "EssentialContainerExited: Essential container in task exited" in ran.err
    assert "app: STOPPED, exit code 3, OutOfMemoryError: killed" in ran.err


def test_a_job_that_ran_to_its_end_is_no_failure(bench: Bench) -> None:
    done = EXITED | {"startedAt": "2026-01-01T00:00:01Z", "containers": [{"name": "app", "exitCode": 0}]}
    bench.device(life=({"lastStatus": "PENDING"}, done))
    assert bench.edge("task", "run", "app").code == 0


def test_a_refused_revision_is_told_and_withdrawn(bench: Bench) -> None:
    device = bench.device(refuse="privileged is not allowed by this device's policy")
    ran = bench.edge("task", "run", "app")
    assert ran.code == 5
    assert "privileged is not allowed" in ran.err
    [task_id] = bench.task_ids()
    assert "TaskFailedToStart" in bench.edge("task", "describe", task_id[:6]).out
    assert bench.desired(device).tasks == []
    device.refuse = ""
    assert bench.edge("task", "run", "app").code == 0
    assert len(device.revisions[-1].tasks) == 1


def test_what_is_not_running_in_time_is_told_with_the_last_that_was_known(bench: Bench) -> None:
    bench.device(life=({"lastStatus": "PENDING", "pendingReason": "registry.example does not answer"},))
    ran = bench.edge("task", "run", "app", "--timeout", "0.3")
    assert ran.code == 6
    assert "PENDING (registry.example does not answer)" in ran.err


def test_a_device_that_is_away_is_said_to_be_so_and_gets_the_task_when_it_comes(bench: Bench) -> None:
    bench.device().stop()
    ran = bench.edge("task", "run", "app", "--timeout", "0.2")
    assert ran.code == 6
    assert "pi-1 is OFFLINE, its last report is of 2026-01-01T00:00:00Z" in ran.err
    later = bench.device()
    assert bench.edge("task", "ls").out.count("RUNNING") == 2
    assert later.revision == 1


def test_without_waiting_the_ids_are_printed_once_the_broker_has_the_assignment(bench: Bench) -> None:
    ran = bench.edge("task", "run", "app", "--no-wait", "--count", "3")
    assert ran.code == 0
    assert sorted(ran.out.split()) == sorted(bench.task_ids())
    assert "edge/v1/shop/pi-1/desired" in bench.hub.retained


def test_json_has_the_tasks_as_ecs_describes_them(bench: Bench) -> None:
    ran = bench.edge("task", "run", "app", "--no-wait", "--output", "json")
    [task] = json.loads(ran.out)["tasks"]
    assert task["taskArn"] == f"arn:edge:ecs:::task/shop/{task['taskId']}"
    assert task["taskDefinitionArn"] == "arn:edge:ecs:::task-definition/app:1"


def test_a_broker_that_is_away_assigns_nothing(bench: Bench) -> None:
    bench.hub.up = False
    ran = bench.edge("task", "run", "app")
    assert ran.code == 4
    assert "cannot reach the broker at broker.example:8884" in ran.err
    assert bench.task_ids() == []


def test_a_broker_that_refuses_the_operator_says_so(bench: Bench) -> None:
    bench.hub.refusing = True
    ran = bench.edge("task", "run", "app")
    assert ran.code == 1
    assert "refuses this operator" in ran.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("app:9",), 3, "app:9 is not registered"),
        (("a/b",), 2, "not a task definition"),
        (("app", "--device", "pi-9"), 3, "there is no device pi-9"),
        (("app", "--count", "0"), 2, "--count is 1 to 10"),
        (("app", "--sooner"), 2, "--sooner"),
    ],
)
def test_wrong_words_are_told_with_their_own_exit_code(
    bench: Bench, words: tuple[str, ...], code: int, said: str
) -> None:
    ran = bench.edge("task", "run", *words)
    assert (ran.code, said in ran.err) == (code, True)


def test_a_folder_older_than_the_device_goes_on_where_the_device_is(bench: Bench) -> None:
    device = bench.device(revision=41)
    assert bench.edge("task", "run", "app").code == 0
    assert device.revision == 42


def test_a_task_is_stopped_and_then_leaves_the_desired_state(bench: Bench) -> None:
    device = bench.device()
    bench.edge("task", "run", "app")
    [task_id] = bench.task_ids()
    ran = bench.edge("task", "stop", task_id[:8], "--reason", "enough")
    assert ran.code == 0
    told = [task for state in device.revisions for task in state.tasks if task.desired_status is DesiredStatus.STOPPED]
    assert [task.stopped_reason for task in told] == ["enough"]
    assert "UserInitiated: enough" in ran.out
    assert bench.desired(device).tasks == []
    assert bench.edge("task", "stop", task_id).code == 0
