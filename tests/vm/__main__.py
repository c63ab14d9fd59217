"""`./dev vm-test [--arch arm64]`: a bare Debian becomes a device, on a booted (virtual) machine, and stays one.

Every phase asserts what is left; the seconds of each go to build/vm-test.json. Needs root for the image.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.bench.report import Report, host_facts
from tests.vm.image import CACHE, image
from tests.vm.machine import Machine
from tests.vm.operator import DEVICE, PLAY_LOG, ROOT, SUITE, Operator, offline_site

_CHECKED: Final = {"command": ["CMD", "true"], "interval": 10, "timeout": 30, "retries": 5}
_STATUS: Final = "/opt/edge/current/bin/edge agent status --output json"
_BOTH_RUN: Final = (
    f"{_STATUS} | python3 -c 'import json, sys;"
    ' sys.exit([task["lastStatus"] for task in json.load(sys.stdin)["tasks"]].count("RUNNING") < 2)\''
)
_CONNECTED: Final = f"{_STATUS} | grep -q '\"connected\": true'"


class VmTest:
    """The phases, in their order; each begins where the one before ended."""

    def __init__(self, machine: Machine, operator: Operator, folder: Path, report: Report) -> None:
        self._machine, self._operator, self._folder, self._report = machine, operator, folder, report
        self._architecture = machine.image.architecture

    def run(self) -> None:
        """All of them."""
        machine = self._machine
        with self._phase("boot to SSH"):
            machine.power_on()
            machine.until_ssh()
        first = offline_site(self._architecture, self._folder, "0.9.1")
        self._refused(first)
        self._provision(first)
        self._enroll(first)
        task = self._lazy_task()
        self._restarts(task)
        self._reboot(task)
        self._power_cut_in_mid_task()
        self._updates(task)
        self._doctor()

    # --- phases

    def _refused(self, site: Path) -> None:
        operator = self._operator
        with self._phase("a wrong variable stops the play"):
            inventory = operator.inventory(site, base_watchdog_seconds="often")
            done = operator.finish_play(operator.start_play("provision.yml", inventory))
            assert done.code != 0
            assert "base_watchdog_seconds" in done.text
            assert done.changed == 0
        with self._phase("too little space stops the play"):
            inventory = operator.inventory(site, base_free_mib=1_000_000)
            done = operator.finish_play(operator.start_play("provision.yml", inventory))
            assert done.code != 0
            assert "1000000 are needed" in done.text
            assert done.changed == 0

    def _provision(self, site: Path) -> None:
        inventory = self._operator.inventory(site)
        with self._phase("provision.yml, first run"):
            assert self._operator.play("provision.yml", inventory).changed > 0
        with self._phase("provision.yml, second run"):
            again = self._operator.play("provision.yml", inventory)
        self._report.figure(
            name="changed by the second run", value=again.changed, unit="tasks", goal="== 0", holds=again.changed == 0
        )

    def _enroll(self, site: Path) -> None:
        inventory = self._operator.inventory(site)
        with self._phase("enroll.yml"):
            self._operator.play("enroll.yml", inventory)
        assert self._operator.play("enroll.yml", inventory).changed == 0
        mode = self._machine.run("stat -c '%a %U' /etc/edge /etc/edge/device.key /etc/edge/agent.toml").split("\n")
        assert mode[:3] == ["700 root", "600 root", "600 root"], mode

    def _lazy_task(self) -> str:
        operator, machine = self._operator, self._machine
        image_name = operator.push_image("web", self._architecture)
        operator.register(
            "web",
            {"name": "web", "image": image_name, "memory": 64, "user": "1000", "healthCheck": _CHECKED,
             "stopTimeout": 5, "portMappings": [{"containerPort": 8080, "hostPort": 8080}]},
        )  # fmt: skip
        with self._phase("lazy task: signed to RUNNING"):
            operator.edge("task", "run", "web", "--device", DEVICE, "--timeout", "1500", seconds=1800)
        self._serves()
        machine.run("mountpoint -q /var/lib/edge/images/store/overlay")
        with self._phase("health check by the runtime, inside the agent's sandbox"):
            machine.until(f'{_STATUS} | grep -q \'"healthStatus": "HEALTHY"\'', "the task is healthy", seconds=900)
        return self._container()

    def _restarts(self, container: str) -> None:
        machine = self._machine
        for what in (
            "systemctl restart edge-agent", "systemctl restart edge-images", "systemctl restart podman.socket",
            "systemctl kill -s KILL edge-agent", "systemctl kill -s KILL edge-images",
        ):  # fmt: skip
            with self._phase(f"{what}, under the container"):
                machine.run(what)
                machine.until("systemctl is-active edge-agent edge-images podman.socket", what)
                machine.until(_CONNECTED, "the agent is at the broker again", seconds=900)
                self._serves()
            assert self._container() == container, f"{what} ended the container"

    def _reboot(self, container: str) -> None:
        with self._phase("reboot to SSH"):
            self._machine.reboot()
        with self._phase("SSH to the task RUNNING again"):
            self._serves(seconds=1800)
        assert self._container() != container
        self._machine.until(_CONNECTED, "the agent is at the broker again", seconds=900)

    def _power_cut_in_mid_task(self) -> None:
        operator, machine = self._operator, self._machine
        image_name = operator.push_image("sensor", self._architecture)
        operator.register("sensor", {"name": "sensor", "image": image_name, "memory": 64, "stopTimeout": 5})
        operator.edge("task", "run", "sensor", "--device", DEVICE, "--no-wait")
        machine.until(f"{_STATUS} | grep -q sensor", "the device has the task", seconds=900)
        machine.cut()
        with self._phase("power cut in mid-task: power on to both tasks RUNNING"):
            machine.power_on()
            machine.until_ssh()
            self._serves(seconds=1800)
            machine.until(_BOTH_RUN, "both run", seconds=1800)

    def _updates(self, _: str) -> None:
        operator, machine = self._operator, self._machine
        second = operator.inventory(offline_site(self._architecture, self._folder, "0.9.2"))
        play = operator.start_play("update.yml", second)
        machine.until("test -d /opt/edge/versions/0.9.2", "the update has begun", seconds=1800)
        machine.cut()
        cut = operator.finish_play(play)
        assert cut.code != 0
        assert cut.unreachable or cut.failed
        with self._phase("power cut in mid-update: power on to the task RUNNING, on the former version"):
            machine.power_on()
            machine.until_ssh()
            self._serves(seconds=1800)
        assert self._version() == "0.9.1"
        container = self._container()
        machine.until(_CONNECTED, "the agent is at the broker again", seconds=900)
        with self._phase("update.yml, finishing what was cut"):
            operator.play("update.yml", second)
        assert self._version() == "0.9.2"
        assert self._container() == container, "the update ended the container"
        third = operator.inventory(
            offline_site(self._architecture, self._folder, "0.9.3", broken=True), edge_health_seconds=60
        )
        with self._phase("update.yml with a broken version, and back"):
            done = operator.finish_play(operator.start_play("update.yml", third))
            assert done.code != 0
            assert "0.9.2 runs again" in done.text, done.text[-3000:]
            machine.until(_CONNECTED, "the former version is at the broker", seconds=900)
        assert self._version() == "0.9.2"
        assert self._container() == container, "going back ended the container"

    def _doctor(self) -> None:
        done = self._machine.try_run("/opt/edge/current/bin/edge doctor --output json", seconds=600)
        found = json.loads(done.stdout)
        ill = [one for one in found["findings"] if one["severity"] == "problem"]
        assert (done.returncode, ill) == (0, []), ill

    # --- what is looked at

    def _serves(self, seconds: float = 900.0) -> None:
        fetch = "python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:8080/\", timeout=60)'"
        self._machine.until(fetch, "the task serves", seconds=seconds)

    def _container(self) -> str:
        """The web container's id and the process in it: a restart of either shows."""
        return self._machine.run("podman ps --filter name=web --format '{{.ID}} {{.Pid}}'").strip()

    def _version(self) -> str:
        return self._machine.run("readlink /opt/edge/current").strip().removeprefix("versions/")

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._report.figure(name=name, value=time.monotonic() - began, unit="s")


def main(arguments: list[str]) -> int:
    """Run it; 0 when every phase held, 3 when a goal was missed, and an exception's traceback otherwise."""
    parser = argparse.ArgumentParser(prog="./dev vm-test", description=__doc__)
    parser.add_argument("--arch", choices=("amd64", "arm64"), default="amd64", help="default: %(default)s")
    args = parser.parse_args(arguments)
    report = Report(say=_say)
    began = time.monotonic()
    base = image(args.arch, SUITE)
    report.figure(name="image (cached or made)", value=time.monotonic() - began, unit="s")
    (ROOT / "build").mkdir(exist_ok=True)
    PLAY_LOG.write_text("")
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
    machine = Machine(base, folder / "machine")
    try:
        with Operator(folder, machine) as operator:
            VmTest(machine, operator, folder, report).run()
    finally:
        machine.cut()
        shutil.rmtree(folder, ignore_errors=True)
        report.write(ROOT / "build" / "vm-test.json", {**host_facts(), "guest": f"{SUITE} {args.arch}, qemu tcg"})
        _say(report.table())
    return 3 if report.falls_short else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
