import json
from collections.abc import Sequence

from edge.model.documents import Command, CommandResult, CommandStatus
from tests.cli.bench import Bench
from tests.fakes.device import GOOD_LIFE, FakeDevice, succeeded


def running(bench: Bench, device: FakeDevice) -> str:
    assert bench.edge("task", "run", "app").code == 0
    assert device.tasks
    return bench.task_ids()[-1]


def test_tasks_are_listed_with_what_holds_them_up(bench: Bench) -> None:
    bench.device(life=({"lastStatus": "PENDING", "pendingReason": "no space left on device"},))
    bench.edge("task", "run", "app", "--timeout", "0.1")
    header, row = bench.edge("task", "ls").out.splitlines()
    assert header.split()[:3] == ["TASK", "DEVICE", "TASK"]
    assert row.split()[:5] == [bench.task_ids()[0][:12], "pi-1", "app:1", "PENDING", "RUNNING"]
    assert row.endswith("no space left on device")


def test_stopped_tasks_are_listed_only_when_asked_for(bench: Bench) -> None:
    task_id = running(bench, bench.device())
    bench.edge("task", "stop", task_id)
    assert len(bench.edge("task", "ls").out.splitlines()) == 1
    assert "STOPPED" in bench.edge("task", "ls", "--all").out


def test_a_broker_that_is_away_leaves_what_was_known_before(bench: Bench) -> None:
    running(bench, bench.device())
    bench.edge("task", "ls")
    bench.hub.kill(keep_sessions=True)
    ran = bench.edge("task", "ls")
    assert ran.code == 0
    assert "RUNNING" in ran.out
    assert "this is what was known before" in ran.err


def test_a_device_cannot_steer_the_terminal(bench: Bench) -> None:
    bench.device(life=({"lastStatus": "PENDING", "pendingReason": "\x1b[2J\nwiped"},))
    assert "\x1b" not in bench.edge("task", "run", "app", "--timeout", "0.1").out
    assert "\x1b" not in bench.edge("task", "ls").out
    assert "\x1b" not in bench.edge("task", "describe", bench.task_ids()[0]).out


def test_a_description_says_where_the_reason_is_looked_for(bench: Bench) -> None:
    container = {
        "name": "app",
        "image": "registry.example/app:1",
        "lastStatus": "STOPPED",
        "exitCode": 137,
        "reason": "OutOfMemoryError: Container killed due to memory usage",
        "networkBindings": [{"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 32768, "protocol": "tcp"}],
    }
    stopped = {"lastStatus": "STOPPED", "stopCode": "EssentialContainerExited", "stoppedReason": "it ended"}
    bench.device(life=(*GOOD_LIFE, stopped | {"containers": [container]}))
    bench.edge("task", "run", "app")
    out = bench.edge("task", "describe", bench.task_ids()[0]).out
    for expected in ("EssentialContainerExited: it ended", "137", "OutOfMemoryError", "32768->80/tcp", "pi-1 (ONLINE)"):
        assert expected in out


def test_a_description_in_json_has_ecs_shape(bench: Bench) -> None:
    task_id = running(bench, bench.device())
    described = json.loads(bench.edge("task", "describe", task_id, "--output", "json").out)
    assert described["failures"] == []
    [task] = described["tasks"]
    assert (task["lastStatus"], task["desiredStatus"], task["group"]) == ("RUNNING", "RUNNING", "family:app")
    assert task["containers"][0]["name"] == "app"


def test_a_live_description_comes_from_the_device_itself(bench: Bench) -> None:
    def answer(command: Command, device: FakeDevice) -> Sequence[CommandResult]:
        task = device.tasks[command.parameters["taskId"]] | {"pendingReason": "asked just now"}
        return [succeeded(command, {"tasks": [task | {"lastStatus": "PENDING"}]})]

    task_id = running(bench, bench.device(on_command=answer))
    assert "asked just now" in bench.edge("task", "describe", "--live", task_id).out


def test_an_ambiguous_or_unknown_id_is_told(bench: Bench) -> None:
    bench.edge("task", "run", "app", "--no-wait", "--count", "10")
    with bench.fleet() as fleet, fleet.database.transaction():
        for index, task_id in enumerate(bench.task_ids()[:2]):
            fleet.database.change("UPDATE tasks SET task_id = ? WHERE task_id = ?", (f"00ff{index:028x}", task_id))
    ran = bench.edge("task", "describe", "00ff")
    assert (ran.code, "beginning of 2 tasks" in ran.err) == (2, True)
    assert bench.edge("task", "describe", "xyz").code == 3
    assert bench.edge("task", "describe", "").code == 3


LINES = [
    {"container": "app", "stream": "stdout", "time": "2026-01-01T00:00:01Z", "text": "hello"},
    {"container": "app", "stream": "stderr", "time": "2026-01-01T00:00:02Z", "text": "oh"},
]


def test_logs_keep_stdout_and_stderr_apart(bench: Bench) -> None:
    asked: list[Command] = []

    def answer(command: Command, _: FakeDevice) -> Sequence[CommandResult]:
        asked.append(command)
        return [succeeded(command, {"lines": LINES, "truncated": True})]

    task_id = running(bench, bench.device(on_command=answer))
    ran = bench.edge("task", "logs", "--tail", "5", "-t", task_id, "app")
    assert ran.out == "2026-01-01T00:00:01Z hello\n"
    assert "2026-01-01T00:00:02Z oh\n" in ran.err
    assert "left out" in ran.err
    assert asked[0].parameters == {"taskId": task_id, "tail": 5, "follow": False, "container": "app"}


def test_logs_that_the_device_cannot_give_fail_with_its_reason(bench: Bench) -> None:
    def answer(command: Command, _: FakeDevice) -> Sequence[CommandResult]:
        status = CommandStatus.FAILED
        return [CommandResult(id=command.id, op=command.op, status=status, reason="NoSuchContainerError: no such x")]

    task_id = running(bench, bench.device(on_command=answer))
    ran = bench.edge("task", "logs", task_id)
    assert (ran.code, "NoSuchContainerError" in ran.err) == (1, True)


def test_a_followed_log_shows_gaps_acknowledges_and_ends(bench: Bench) -> None:
    count = 200

    def answer(command: Command, device: FakeDevice) -> Sequence[CommandResult]:
        out = device.topics.stream_out(command.id)
        running_now = CommandResult(id=command.id, op=command.op, status=CommandStatus.RUNNING)
        device.publish(device.topics.result(command.op, command.id), running_now.to_wire())
        for seq in (*range(10), 9, 3, *range(13, count)):
            frame = {"seq": seq, "container": "app", "stream": "stdout", "time": "", "text": f"line {seq}"}
            device.publish(out, {"frames": [frame]}, qos=0)
        device.publish(out, {"frames": [], "end": "the task stopped"}, qos=0)
        return [succeeded(command, {})]

    device = bench.device(on_command=answer)
    task_id = running(bench, device)
    ran = bench.edge("task", "logs", "-f", task_id)
    assert ran.code == 0
    assert [line for line in ran.out.splitlines() if line.startswith("app | line")] == [
        f"app | line {seq}" for seq in (*range(10), *range(13, count))
    ]
    assert "3 lines were lost" in ran.err
    assert "the end: the task stopped" in ran.err


def test_a_follower_acknowledges_at_least_each_64_frames(bench: Bench) -> None:
    count = 128

    def answer(command: Command, device: FakeDevice) -> Sequence[CommandResult]:
        for seq in range(count):
            frame = {"seq": seq, "container": "app", "stream": "stdout", "time": "", "text": str(seq)}
            device.publish(device.topics.stream_out(command.id), {"frames": [frame]}, qos=0)
        device.stream = device.topics.stream_out(command.id)
        return [CommandResult(id=command.id, op=command.op, status=CommandStatus.RUNNING)]

    class Ending(FakeDevice):
        """Ends the stream when the window was acknowledged."""

        def hear(self, topic: str, document: dict[str, object]) -> None:
            super().hear(topic, document)
            if document.get("ack") == count - 1:
                self.publish(self.stream, {"frames": [], "end": "acknowledged"}, qos=0)

    device = bench.device(Ending, on_command=answer)
    task_id = running(bench, device)
    assert "the end: acknowledged" in bench.edge("task", "logs", "-f", task_id).err
    assert [document for _, document in device.said] == [{"ack": 63}, {"ack": 127}]


def test_a_follower_whose_command_is_refused_says_why(bench: Bench) -> None:
    def answer(command: Command, _: FakeDevice) -> Sequence[CommandResult]:
        return [CommandResult(id=command.id, op=command.op, status=CommandStatus.REJECTED, reason="unknown key: 12")]

    task_id = running(bench, bench.device(on_command=answer))
    ran = bench.edge("task", "logs", "-f", task_id)
    assert (ran.code, "unknown key: 12" in ran.err) == (5, True)
