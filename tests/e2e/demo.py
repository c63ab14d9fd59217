"""`./dev demo`: the main job on this host, told as a timeline; only public commands, and nothing stays behind."""

import json
import os
import signal
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from tests.e2e.stage import DEVICE, ROOT, Stage, StageError

_EXAMPLE: Final = ROOT / "docs" / "examples" / "shop.json"
_LARGE_EXAMPLE: Final = ROOT / "docs" / "examples" / "numpy.json"
_MEGABITS: Final = 20
_EXAMPLE_REGISTRY: Final = "127.0.0.1:5000"


class Timeline:
    """Prints what happens, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def tell(self, text: str) -> None:
        """One event."""
        _print(f"[{time.monotonic() - self._start:5.1f} s] {text}")

    def show(self, command: str, output: str) -> None:
        """A command somebody could have typed, and what it said."""
        self.tell(f"$ edge {command}")
        for line in output.strip().splitlines():
            _print(f"            {line}".rstrip())


def main() -> int:
    """Run the story; 0 when each step did what it should and nothing was left behind."""
    if os.geteuid() != 0:
        _print("the demo starts containers: run it as root (./dev demo does)")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    timeline = Timeline()
    stage = Stage()
    failure = ""
    try:
        with stage:
            _story(stage, timeline)
            timeline.tell("ending everything")
    except StageError as error:
        failure = str(error)
    left = stage.left_behind()
    for one in left:
        timeline.tell(f"LEFT BEHIND: {one}")
    if failure:
        timeline.tell(f"FAILED: {failure}")
    if failure or left:
        return 1
    timeline.tell("nothing is left: no process, no container, no mount, no network namespace, no file")
    return 0


def _story(stage: Stage, timeline: Timeline) -> None:
    _set_the_stage(stage, timeline)
    task_id = _run_a_task(stage, timeline)
    _look_at_it(stage, timeline, task_id)
    _kill_the_agent(stage, timeline, task_id)
    timeline.show(f"task stop {task_id[:8]}", stage.edge("task", "stop", task_id))
    stage.until("Podman runs no container", lambda: not stage.containers())
    stopped = _describe(stage, task_id)
    _expect("the stopped task", stopped["lastStatus"], "STOPPED")
    timeline.tell(f"the task is STOPPED: {stopped['stoppedReason']}; Podman runs nothing any more")
    lazily = _start_before_it_has_arrived(stage, timeline)
    _start_as_podman_does(stage, timeline, lazily)


def _set_the_stage(stage: Stage, timeline: Timeline) -> None:
    timeline.tell(f"a registry listens on {stage.registry.address}; everything of this demo is in {stage.folder}")
    stage.build_images("sensor", "web")
    stage.build_images("numpy-app", registry=stage.slow.registry)
    timeline.tell("built the images sensor, web and numpy-app, and pushed them")
    stage.make_fleet()
    timeline.tell(
        f"edge fleet init, edge fleet broker-config, edge device add {DEVICE}: keys, certificates, access list"
    )
    stage.start_broker()
    timeline.tell("Mosquitto runs with TLS, client certificates and that access list")
    stage.start_device()
    timeline.tell(f"edge up: agent (process {stage.agent_pid()}) and Podman's service; {DEVICE} is online")


def _start_before_it_has_arrived(stage: Stage, timeline: Timeline) -> float:
    """Run a large image over a slow link; returns the seconds from `task run` to the program's first line."""
    image = f"{stage.slow.registry.address}/numpy-app:1"
    timeline.show(f"image index push {image}", stage.edge("image", "index", "push", image, registries=True))
    stage.slow.shape(_MEGABITS)
    timeline.tell(f"from now on the link to this registry carries {_MEGABITS} Mbit/s")
    _register(stage, timeline, _LARGE_EXAMPLE, stage.slow.registry.address)
    began = time.monotonic()
    timeline.show("task run numpy", stage.edge("task", "run", "numpy"))
    task_id: str = next(
        task["taskId"] for task in stage.edge_json("task", "ls")["tasks"] if task["lastStatus"] == "RUNNING"
    )
    lines: list[str] = []

    def ready() -> bool:
        lines[:] = stage.edge("task", "logs", task_id, "--tail", "1").splitlines()
        return bool(lines)

    stage.until("NumPy computes", ready)
    took = time.monotonic() - began
    timeline.tell(f"NumPy computes, {took:.1f} s after task run: {lines[-1].strip()}")
    socket = ("--socket", str(stage.images_socket))
    timeline.show("image ls", stage.edge("image", "ls", *socket))
    timeline.tell("the container runs, and its image is still arriving")
    stage.edge("task", "stop", task_id)
    stage.until("Podman runs no container", lambda: not stage.containers())
    timeline.show(f"image rm {image}", stage.edge("image", "rm", "--force", image, *socket))
    return took


def _start_as_podman_does(stage: Stage, timeline: Timeline, lazily: float) -> None:
    image = f"{stage.slow.registry.address}/numpy-app:1"
    timeline.tell(f"now the same over the same link, as Podman does it: podman pull && podman run {image}")
    took = stage.podman_from_nothing(image, '"ready"')
    timeline.tell(f"NumPy computes {took:.1f} s after podman pull: {took / lazily:.1f} times as long")
    if took < lazily:
        raise StageError("the lazy start took longer than an ordinary one")


def _register(stage: Stage, timeline: Timeline, example: Path, registry: str) -> None:
    definition = stage.folder / example.name
    definition.write_text(example.read_text().replace(_EXAMPLE_REGISTRY, registry))
    shown = example.relative_to(ROOT)
    timeline.show(f"task-definition register {shown}", stage.edge("task-definition", "register", str(definition)))


def _run_a_task(stage: Stage, timeline: Timeline) -> str:
    _register(stage, timeline, _EXAMPLE, stage.registry.address)
    timeline.show("task run shop", stage.edge("task", "run", "shop"))
    task_id: str = stage.edge_json("task", "ls")["tasks"][0]["taskId"]
    return task_id


def _look_at_it(stage: Stage, timeline: Timeline, task_id: str) -> None:
    port = next(
        binding["hostPort"]
        for container in _describe(stage, task_id)["containers"]
        for binding in container["networkBindings"]
    )
    reading = _newest_reading(stage, port)
    timeline.tell(f"web serves on port {port}, chosen by the device; through the shared volume it has the sensor's")
    timeline.tell(f"  newest reading: {reading}")
    timeline.show(f"task logs {task_id[:8]} --tail 3", stage.edge("task", "logs", task_id, "--tail", "3"))
    timeline.show(f"task describe {task_id[:8]}", stage.edge("task", "describe", task_id))


def _newest_reading(stage: Stage, port: int) -> str:
    found: list[str] = []

    def read() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readings/latest.json", timeout=5) as answer:
                text = answer.read().decode().strip()
            json.loads(text)
        except (OSError, ValueError):
            return False
        found.append(text)
        return True

    stage.until(f"http://127.0.0.1:{port}/readings/latest.json answers", read, 20)
    return found[-1]


def _kill_the_agent(stage: Stage, timeline: Timeline, task_id: str) -> None:
    before, agent = stage.containers(), stage.agent_pid()
    os.kill(agent, signal.SIGKILL)
    timeline.tell(f"kill -9 {agent}: the agent is dead")
    _expect("containers while the agent is dead", stage.containers(), before)
    stage.until("another agent runs", lambda: stage.agent_pid() not in (0, agent) and _lives(stage.agent_pid()))
    timeline.tell(f"a new agent runs as process {stage.agent_pid()}")
    task = json.loads(stage.edge("task", "describe", task_id, "--live", "--output", "json", allowed=(0,)))["tasks"][0]
    _expect("the task the new agent reports", task["lastStatus"], "RUNNING")
    reported = {one["runtimeId"] for one in task["containers"]}
    _expect("the container ids it reports", reported, {runtime_id for runtime_id, _ in before.values()})
    _expect("containers afterwards", stage.containers(), before)
    for name, (runtime_id, pid) in before.items():
        timeline.tell(f"  {name}: still container {runtime_id[:12]}, still process {pid}")
    timeline.tell("it found them by their labels, and reports the task as RUNNING")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _describe(stage: Stage, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = stage.edge_json("task", "describe", task_id)["tasks"][0]
    return task


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise StageError(f"{what}: {found!r}, and not {wanted!r}")


if __name__ == "__main__":
    sys.exit(main())
