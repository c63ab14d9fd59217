"""Everything real, on loopback, in one folder: fleet, Mosquitto with TLS and access list, Podman, an agent process."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from edge.cli import main
from edge.fleet.folder import Fleet, open_fleet
from edge.fleet.link import FleetLink, new_client_id
from edge.fleet.messages import RevisionJudged
from edge.model.documents import RevisionAck
from edge.model.topics import Topics
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.podman import IMAGE, PodmanService

T = TypeVar("T")
DEVICE = "pi-1"
WAIT_SECONDS = 30.0
STOP_SECONDS = 20.0


class Stack:
    """One fleet with one device; everything is started, killed and asked by methods of its own."""

    def __init__(self, folder: Path, podman: PodmanService) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.podman = podman
        self.fleet = folder / "fleet"
        self.device = folder / "device"
        device_port, operator_port = free_port(), free_port()
        self.edge("fleet", "init", "--broker", f"127.0.0.1:{device_port}", "--operator-port", str(operator_port))
        self.edge("fleet", "broker-config", str(folder / "broker"), "--address", "127.0.0.1", "--user", "root")
        self.edge("device", "add", DEVICE, "--out", str(self.device))
        toml = self.device / "agent.toml"
        default = 'socket = "/run/podman/podman.sock"'
        assert default in toml.read_text()
        toml.write_text(toml.read_text().replace(default, f'socket = "{podman.socket}"'))
        self.state_dir = self.device / "state"
        config = (folder / "broker" / "mosquitto.conf").read_text()
        self.broker = Mosquitto(folder / "broker", config, (device_port, operator_port))
        self._agent: subprocess.Popen[bytes] | None = None
        self.agent_log = folder / "agent.log"

    # --- the operator

    def edge(self, *arguments: str, expect: int | None = 0) -> str:
        """Run a command of the operator and return what it printed."""
        out, err = io.StringIO(), io.StringIO()
        before = os.environ.get("EDGE_FLEET")
        os.environ["EDGE_FLEET"] = str(self.fleet)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(arguments)
        finally:
            if before is None:
                os.environ.pop("EDGE_FLEET")
            else:
                os.environ["EDGE_FLEET"] = before
        if expect is not None and code != expect:
            raise AssertionError(
                f"edge {' '.join(arguments)} -> {code}\n{out.getvalue()}\n{err.getvalue()}{self.log()}"
            )
        return out.getvalue()

    def json(self, *arguments: str, expect: int | None = 0) -> Any:
        """Run a command with `--output json` and return the document."""
        return json.loads(self.edge(*arguments, "--output", "json", expect=expect))

    def register(self, *containers: dict[str, Any], family: str = "app", **fields: Any) -> str:
        """Register a task definition of busybox containers and return `family:revision`."""
        definition = {
            "family": family,
            "containerDefinitions": [{"image": IMAGE, "memory": 32, "stopTimeout": 2, **c} for c in containers],
            **fields,
        }
        path = self.folder / "definition.json"
        path.write_text(json.dumps(definition))
        registered = self.json("task-definition", "register", str(path))
        return f"{registered['taskDefinition']['family']}:{registered['taskDefinition']['revision']}"

    def run_task(self, definition: str, *options: str, expect: int | None = 0) -> str:
        """`edge task run`, which waits until it runs, and return the task's id."""
        lines = self.edge("task", "run", definition, *options, "--output", "json", expect=expect).splitlines()
        last = json.loads(lines[-1])
        return str(last["tasks"][0]["taskId"] if "tasks" in last else last["taskId"])

    @contextmanager
    def link(self) -> Iterator[tuple[Fleet, FleetLink]]:
        """The operator's own line to the broker, for what no command would send."""
        with contextlib.ExitStack() as stack:
            fleet = stack.enter_context(open_fleet(self.fleet))
            settings = fleet.folder.broker_settings(fleet.settings.operator, new_client_id())
            yield fleet, stack.enter_context(FleetLink(settings))

    def send_desired(self, payload: bytes) -> None:
        """Publish bytes as the device's desired state."""
        with self.link() as (_, link):
            link.publish(Topics("default", DEVICE).desired, payload, retain=True)

    def ack(self) -> RevisionAck:
        """The device's newest answer to a revision."""
        with self.link() as (_, link):
            topic = Topics("default", DEVICE).desired_ack
            answers = [m.ack for m in link.retained("default", [topic]) if isinstance(m, RevisionJudged)]
        return answers[-1]

    # --- the device

    def allow(self, policy: str) -> None:
        """Add a line to the device's policy; counts from the agent's next start on."""
        toml = self.device / "agent.toml"
        assert "[policy]\n" in toml.read_text()
        toml.write_text(toml.read_text().replace("[policy]\n", f"[policy]\n{policy}\n"))

    def start_agent(
        self, *, program: tuple[str, ...] = ("-m", "edge", "agent", "run"), environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the agent; the moment it is connected is for the caller to wait for."""
        assert self._agent is None
        command = [sys.executable, *program, "--config", str(self.device / "agent.toml")]
        with self.agent_log.open("ab") as log:
            self._agent = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # What `stop_agent` asks for when the agent does not end.
                env={**os.environ, "PYTHONFAULTHANDLER": "1", **(environment or {})},
            )

    def kill_agent(self) -> None:
        """kill -9."""
        if self._agent is not None:
            self._agent.send_signal(signal.SIGKILL)
            self._agent.wait()
            self._agent = None

    def stop_agent(self) -> int:
        """SIGTERM; returns the exit code. An agent that goes on must say where each of its threads is."""
        assert self._agent is not None
        self._agent.terminate()
        try:
            code = self._agent.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._agent.send_signal(signal.SIGABRT)
            self._agent.wait()
            log = "\n".join(self.log().splitlines()[-200:])
            raise AssertionError(f"the agent did not end within {STOP_SECONDS:.0f} s of SIGTERM\n{log}") from None
        self._agent = None
        return code

    def agent_ended(self) -> bool:
        """Whether the agent is gone by itself; it may be started again then."""
        if self._agent is not None and self._agent.poll() is not None:
            self._agent = None
        return self._agent is None

    def status(self) -> dict[str, Any]:
        """`edge agent status` on the device."""
        status: dict[str, Any] = self.json("agent", "status", "--config", str(self.device / "agent.toml"))
        return status

    def containers(self) -> dict[str, dict[str, Any]]:
        """What Podman itself says of all containers, by name."""
        listed = json.loads(self.podman.run_cli("ps", "--all", "--format", "json") or "[]")
        return {container["Names"][0]: container for container in listed}

    def task(self, task_id: str) -> dict[str, Any]:
        """The device's own view of a task; empty when it has none."""
        return next((task for task in self.status()["tasks"] if task["taskId"] == task_id), {})

    def wait_status(self, task_id: str, status: str) -> dict[str, Any]:
        """Wait until the device says that the task is there, and return it."""
        self.wait(f"{task_id} {status}", lambda: self.task(task_id).get("lastStatus") == status)
        return self.task(task_id)

    def running(self) -> dict[str, tuple[str, int]]:
        """Id and process of each running container, by name."""
        return {name: (c["Id"], c["Pid"]) for name, c in self.containers().items() if c["State"] == "running"}

    def wait(self, what: str, check: Callable[[], T], seconds: float = WAIT_SECONDS) -> T:
        """Return the first true value of `check`."""
        deadline = time.monotonic() + seconds
        while not (value := check()):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:.0f} s in vain for: {what}\n{self.status()}\n{self.log()}")
            time.sleep(0.02)
        return value

    def wait_connected(self) -> None:
        """Wait until the agent says that it is connected."""
        self.wait("the agent to connect", lambda: self.status()["connection"]["connected"])

    def log(self) -> str:
        """The agent's log."""
        return self.agent_log.read_text() if self.agent_log.exists() else ""


@contextmanager
def running_stack(folder: Path, podman: PodmanService) -> Iterator[Stack]:
    """A stack with its broker and its agent started, and everything of it gone afterwards."""
    stack = Stack(folder, podman)
    stack.broker.start()
    try:
        stack.start_agent()
        stack.wait_connected()
        yield stack
    finally:
        stack.kill_agent()
        stack.broker.kill()
        podman.run_cli("rm", "--all", "--force", "--time", "0", check=False)
        podman.run_cli("volume", "rm", "--all", "--force", check=False)
