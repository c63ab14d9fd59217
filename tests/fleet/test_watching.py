from typing import Any

from edge.fleet.messages import EventHappened, Reported
from edge.fleet.watching import TaskWatch, container_line, ran_to_its_end, reason_of
from edge.model.topics import Topics

DEVICE = Topics("shop", "pi-1")


def event(status: str, version: int = 1, **more: Any) -> EventHappened:
    return EventHappened(DEVICE, "task", {"detail": {"taskId": "t1", "lastStatus": status, "version": version, **more}})


def report(*details: dict[str, Any]) -> Reported:
    return Reported(DEVICE, {"tasks": list(details)})


def test_each_change_is_told_once_whichever_way_it_comes() -> None:
    watch = TaskWatch(["t1"])
    assert [update.status for update in watch.feed(event("PENDING", 1))] == ["PENDING"]
    assert watch.feed(report({"taskId": "t1", "lastStatus": "PENDING", "version": 1})) == []
    assert watch.feed(event("PENDING", 1)) == []
    assert [
        update.status for update in watch.feed(report({"taskId": "t1", "lastStatus": "RUNNING", "version": 2}))
    ] == ["RUNNING"]


def test_a_new_reason_is_told_while_the_status_stays() -> None:
    watch = TaskWatch(["t1"])
    watch.feed(event("PENDING", 1, pendingReason="pulling"))
    [update] = watch.feed(event("PENDING", 2, pendingReason="registry away"))
    assert update.text == "registry away"


def test_an_older_version_does_not_take_anything_back() -> None:
    watch = TaskWatch(["t1"])
    watch.feed(event("RUNNING", 5))
    assert watch.feed(event("PENDING", 4)) == []
    assert watch.status("t1") == "RUNNING"


def test_a_late_running_event_does_not_revive_a_stopped_task() -> None:
    watch = TaskWatch(["t1"])
    watch.feed(event("STOPPED", 5))
    assert watch.feed(event("RUNNING", 9)) == []
    assert watch.all_in("STOPPED")


def test_other_tasks_and_rubbish_are_passed_over() -> None:
    watch = TaskWatch(["t1"])
    for message in (
        EventHappened(DEVICE, "task", {}),
        EventHappened(DEVICE, "task", {"detail": []}),
        EventHappened(DEVICE, "agent", {"detail": {"taskId": "t1", "lastStatus": "STOPPED"}}),
        report({"taskId": "t2", "lastStatus": "RUNNING"}),
        Reported(DEVICE, {"tasks": "none"}),
    ):
        assert watch.feed(message) == []
    assert watch.status("t1") == ""
    assert not watch.all_in("RUNNING", "STOPPED")


def test_a_reason_is_why_it_stopped_or_why_it_does_not_get_on() -> None:
    assert reason_of({"lastStatus": "STOPPED", "stopCode": "UserInitiated", "stoppedReason": "x"}) == "UserInitiated: x"
    assert reason_of({"lastStatus": "STOPPED", "stoppedReason": "x"}) == "x"
    assert reason_of({"lastStatus": "PENDING", "pendingReason": "pulling"}) == "pulling"
    assert reason_of({"lastStatus": "RUNNING", "pendingReason": None}) == ""


def test_a_container_is_told_with_what_there_is_to_tell() -> None:
    assert container_line({"name": "a", "lastStatus": "RUNNING"}) == "a: RUNNING"
    assert container_line({"name": "a", "lastStatus": "STOPPED", "exitCode": 0}) == "a: STOPPED, exit code 0"
    assert container_line({}) == "?: "


def test_only_what_began_and_ended_with_0_everywhere_ran_to_its_end() -> None:
    began = {"startedAt": "2026-01-01T00:00:00Z"}
    assert ran_to_its_end(began | {"containers": [{"exitCode": 0}, {"exitCode": 0}]})
    assert not ran_to_its_end(began | {"containers": [{"exitCode": 0}, {"exitCode": 1}]})
    assert not ran_to_its_end(began | {"containers": []})
    assert not ran_to_its_end({"containers": [{"exitCode": 0}]})
