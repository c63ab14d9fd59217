"""What comes out of a `ContainerSpec` on real Podman: asked inside the container, because Podman drops what it does
not know without a word."""

import http.client
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.agent.adapters.host import LinuxHost
from edge.agent.adapters.podman import PodmanEngine
from edge.agent.engine.ports import EngineStatus, FoundContainer
from edge.errors import EngineError
from edge.model.container_spec import ContainerSpec, Device, LogSettings, Mount, PortMapping, Ulimit, VolumeSpec
from tests.support.mosquitto import free_port
from tests.support.oci_layout import busybox_image
from tests.support.podman import IMAGE, PodmanService, podman_service
from tests.support.registry import Registry

pytestmark = pytest.mark.podman

_LABELS = (("edge.device", "test/one"),)
_PATIENCE_SECONDS = 30


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanService]:
    with podman_service(tmp_path_factory.mktemp("podman")) as running:
        yield running


@pytest.fixture
def engine(service: PodmanService) -> Iterator[PodmanEngine]:
    podman = PodmanEngine(service.socket)
    yield podman
    for container in podman.list_labelled(*_LABELS[0]):
        podman.remove(container.runtime_id)
    podman.close()


def spec(engine: PodmanEngine, script: str, **fields: object) -> ContainerSpec:
    image = engine.image(IMAGE)
    assert image is not None
    base = {"network_mode": "none", "command": ("/bin/sh", "-c", script)}
    name = str(fields.pop("name", "one"))
    return ContainerSpec(name, image.image_id, _LABELS, **base | fields)  # type: ignore[arg-type]


def run(engine: PodmanEngine, wanted: ContainerSpec) -> FoundContainer:
    """Run a container to its end."""
    started = engine.start(engine.create(wanted))
    ended = threading.Event()
    engine.watch_exit(started, lambda _: ended.set())
    assert ended.wait(_PATIENCE_SECONDS)
    found = engine.inspect(started.runtime_id)
    assert found is not None
    return found


@pytest.fixture
def output(engine: PodmanEngine) -> Callable[..., list[str]]:
    """What a script prints in a container of these fields."""

    def of(script: str, **fields: object) -> list[str]:
        found = run(engine, spec(engine, script, **fields))
        lines = [line.text for line in engine.logs(found.runtime_id, tail=None, follow=False)]
        engine.remove(found.runtime_id)
        return lines

    return of


Output = Callable[..., list[str]]


def test_command_entry_point_directory_environment_user_and_host_name(output: Output) -> None:
    script = 'pwd; echo "$GREETING"; id -u; id -g; hostname; echo "$0 $1"'
    lines = output(
        "ignored",
        entrypoint=("/bin/sh", "-c", script),
        command=("first", "second"),
        working_directory="/var",
        environment=(("GREETING", "grüß dich = so"),),
        user="1000:1001",
        hostname="shop-1",
    )
    assert lines == ["/var", "grüß dich = so", "1000", "1001", "shop-1", "first second"]


def test_a_command_of_its_own_replaces_the_images_and_none_keeps_it(engine: PodmanEngine) -> None:
    wanted = spec(engine, "")
    kept = ContainerSpec("kept", wanted.image_id, _LABELS, network_mode="none")
    container = engine.start(engine.create(kept))
    assert Path(f"/proc/{container.pid}/cmdline").read_bytes() == b"sleep\x001000\x00"


def test_host_names_and_name_servers(output: Output) -> None:
    lines = output(
        "cat /etc/hosts /etc/resolv.conf",
        network_mode="bridge",
        extra_hosts=(("till", "10.1.2.3"),),
        dns_servers=("192.0.2.53",),
    )
    text = "\n".join(line.replace("\t", " ") for line in lines)
    assert "10.1.2.3 till" in text
    assert "nameserver 192.0.2.53" in text


def test_a_host_network_is_the_hosts_and_none_is_none(output: Output) -> None:
    assert output("ls /sys/class/net", network_mode="none") == ["lo"]
    here = sorted(path.name for path in Path("/sys/class/net").iterdir())
    assert sorted(output("ls /sys/class/net", network_mode="host")) == here


def test_published_ports_answer_tcp(engine: PodmanEngine) -> None:
    port = free_port()
    wanted = spec(
        engine,
        "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp",
        network_mode="bridge",
        ports=(PortMapping(8080, port),),
    )
    engine.start(engine.create(wanted))
    assert _get(port) == b"hello\n"


def _get(port: int) -> bytes:
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/index.html")
            return connection.getresponse().read()
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)
        finally:
            connection.close()


def test_a_missing_host_path_is_made_and_a_read_only_one_is_read_only(output: Output, tmp_path: Path) -> None:
    missing = tmp_path / "not" / "there"
    mounts = (Mount("bind", str(missing), "/data"), Mount("bind", str(tmp_path), "/fixed", read_only=True))
    assert (
        output("echo kept > /data/file; touch /fixed/new 2>/dev/null || echo refused", mounts=mounts)[-1] == "refused"
    )
    assert (missing / "file").read_text() == "kept\n"


def test_a_host_path_that_cannot_be_made_is_told(engine: PodmanEngine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mount = Mount("bind", str(tmp_path / "file" / "below"), "/data")
    with pytest.raises(EngineError, match="cannot make the host path") as caught:
        engine.create(spec(engine, "true", mounts=(mount,)))
    assert caught.value.reason == "CannotCreateContainerError"


def test_a_volume_outlives_its_containers_and_is_shared(engine: PodmanEngine, output: Output) -> None:
    engine.create_volume(VolumeSpec("edge-shared", labels=_LABELS))
    mounts = (Mount("volume", "edge-shared", "/data"),)
    output("echo kept > /data/file", mounts=mounts)
    read_only = (Mount("volume", "edge-shared", "/data", read_only=True),)
    assert output("cat /data/file; touch /data/x 2>/dev/null || echo refused", mounts=read_only) == [
        "kept",
        "refused",
    ]
    first = engine.create(spec(engine, "true", name="first", mounts=mounts))
    lines = output("cat /data/file; touch /data/x 2>/dev/null || echo refused", volumes_from=((first, True),))
    assert lines == ["kept", "refused"]
    engine.remove(first)
    engine.remove_volume("edge-shared")


def test_tmpfs_and_shared_memory_have_their_sizes(output: Output) -> None:
    lines = output(
        "df -k /scratch /dev/shm",
        mounts=(Mount("tmpfs", "", "/scratch", options=("size=16m", "noexec")),),
        shm_bytes=8 * 1024 * 1024,
    )
    sizes = {line.split()[-1]: int(line.split()[1]) for line in lines[1:]}
    assert sizes == {"/scratch": 16 * 1024, "/dev/shm": 8 * 1024}


def test_a_read_only_root_has_no_writable_corner(output: Output) -> None:
    script = "for f in / /tmp /run /var; do touch $f/x 2>/dev/null && echo $f; done; echo end"
    assert output(script, read_only_root=True) == ["end"]


def test_capabilities_are_exactly_the_list(output: Output) -> None:
    script = "grep CapEff /proc/self/status"
    assert output(script, capabilities=()) == ["CapEff:\t0000000000000000"]
    # CAP_CHOWN is bit 0, CAP_NET_BIND_SERVICE bit 10 (linux/capability.h).
    assert output(script, capabilities=("CHOWN", "NET_BIND_SERVICE")) == ["CapEff:\t0000000000000401"]


def test_ulimits_are_given_and_capped_by_the_hosts(output: Output) -> None:
    script = "ulimit -n; ulimit -c"
    lines = output(script, ulimits=(Ulimit("nofile", 1000, 2000), Ulimit("core", 0, 0)))
    assert lines == ["1000", "0"]
    (most,) = output("ulimit -n", ulimits=(Ulimit("nofile", -1, -1),))
    assert int(most) > 1000


def test_init_reaps_and_passes_signals_on(output: Output) -> None:
    (name,) = output("cat /proc/1/comm", init=True)
    assert name in {"catatonit", "podman-init"}


def test_a_device_is_there_with_its_permissions(output: Output) -> None:
    devices = (Device("/dev/null", "/dev/void", "rw"),)
    assert output("echo x > /dev/void && echo written", devices=devices) == ["written"]


def test_cpu_shares_and_memory_limits_reach_the_kernel(engine: PodmanEngine) -> None:
    host = LinuxHost()
    parent = host.limit_task("0" * 32, cpu_units=512, memory_mib=256)
    wanted = spec(
        engine,
        "sleep 100",
        cpu_shares=512,
        memory_bytes=64 * 1024 * 1024,
        memory_reservation_bytes=32 * 1024 * 1024,
        cgroup_parent=parent,
    )
    container = engine.start(engine.create(wanted))
    groups = _groups(container.pid)
    assert any(f"edge/{'0' * 32}/" in path for path in groups.values()), groups
    memory = _first(groups, "memory", ("memory.limit_in_bytes", "memory.max"))
    assert memory == str(64 * 1024 * 1024)
    assert _first(groups, "memory", ("memory.soft_limit_in_bytes", "memory.low")) == str(32 * 1024 * 1024)
    assert _first(groups, "memory", ("../memory.limit_in_bytes", "../memory.max")) == str(256 * 1024 * 1024)
    # 512 shares are weight 20 by the kernel's conversion: 1 + (shares - 2) * 9999 / 262142.
    assert _first(groups, "cpu", ("cpu.shares", "cpu.weight")) in {"512", "20"}
    assert _first(groups, "cpu", ("../cpu.cfs_quota_us", "../cpu.max")).split()[0] == "50000"
    engine.remove(container.runtime_id)
    host.release_task("0" * 32)
    assert not [*Path("/sys/fs/cgroup").glob(f"*/edge/{'0' * 32}"), *Path("/sys/fs/cgroup").glob(f"edge/{'0' * 32}")]


def _groups(pid: int) -> dict[str, str]:
    """Controller to cgroup path; the unified hierarchy under an empty name."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {name: line.split(":", 2)[2] for line in lines for name in line.split(":", 2)[1].split(",")}


def _first(groups: dict[str, str], controller: str, names: tuple[str, str]) -> str:
    legacy = Path("/sys/fs/cgroup") / controller / groups.get(controller, "").lstrip("/") / names[0]
    unified = Path("/sys/fs/cgroup") / groups.get("", "").lstrip("/") / names[1]
    return (legacy if controller in groups else unified).read_text().strip()


def test_a_container_that_needs_too_much_memory_is_killed_and_said_so(engine: PodmanEngine) -> None:
    # A tmpfs counts as the memory of whoever fills it.
    mounts = (Mount("tmpfs", "", "/scratch", options=("size=256m",)),)
    script = "cat /dev/zero > /scratch/file"
    found = run(engine, spec(engine, script, mounts=mounts, memory_bytes=16 * 1024 * 1024))
    assert (found.status, found.exit_code) == (EngineStatus.EXITED, 137)
    assert found.oom_killed


def test_a_kill_for_want_of_memory_is_told_though_nobody_watched(engine: PodmanEngine) -> None:
    mounts = (Mount("tmpfs", "", "/scratch", options=("size=256m",)),)
    script = "if [ -e /again ]; then exec sleep 1000; fi; touch /again; cat /dev/zero > /scratch/file"
    runtime_id = engine.create(spec(engine, script, mounts=mounts, memory_bytes=64 * 1024 * 1024))
    engine.start(runtime_id)
    assert _ended(engine, runtime_id).oom_killed
    # The next run ends by SIGKILL too, but not by the kernel's. Podman's clock and the kernel's are 2 s apart at most.
    time.sleep(3)
    engine.start(runtime_id)
    engine.stop(runtime_id, 0)
    again = _ended(engine, runtime_id)
    assert (again.exit_code, again.oom_killed) == (137, False)


def _ended(engine: PodmanEngine, runtime_id: str) -> FoundContainer:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (found := engine.inspect(runtime_id)) is not None and found.status is not EngineStatus.EXITED:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert found is not None
    return found


def test_privileged_has_everything(output: Output) -> None:
    (line,) = output("grep CapBnd /proc/self/status", privileged=True)
    own = next(text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("CapBnd"))
    assert line == own


def test_a_json_file_log_stays_below_its_size(engine: PodmanEngine, service: PodmanService) -> None:
    limit = 64 * 1024
    script = "for n in $(seq 1 20000); do echo line $n of a log that is longer than its limit; done"
    found = run(engine, spec(engine, script, log=LogSettings("json-file", limit)))
    path = Path(service.run_cli("inspect", "--format", "{{.HostConfig.LogConfig.Path}}", found.runtime_id))
    # conmon starts the file anew once a write went past the limit.
    assert path.stat().st_size < 2 * limit
    last = list(engine.logs(found.runtime_id, tail=1, follow=False))
    assert last[0].text.startswith("line 20000 ")


def test_an_images_own_health_check_and_restart_policy_do_not_run(
    engine: PodmanEngine, service: PodmanService, tmp_path: Path
) -> None:
    with Registry(tmp_path / "registry") as registry:
        service.allow_insecure(registry.address)
        health = {"Test": ["CMD-SHELL", "echo checked >> /tmp/checked"], "Interval": 1_000_000_000}
        reference = busybox_image(registry, "checked", ["sleep", "1000"], Healthcheck=health)
        image = engine.pull(reference, "amd64" if os.uname().machine == "x86_64" else "arm64")
    wanted = ContainerSpec("one", image.image_id, _LABELS, network_mode="none", command=("sleep", "1000"))
    container = engine.start(engine.create(wanted))
    checks = service.run_cli("inspect", "--format", "{{json .Config.Healthcheck}}", container.runtime_id)
    assert "checked" not in checks
    policy = service.run_cli("inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", container.runtime_id)
    assert policy in {"", "no"}


def test_a_stop_signal_is_heard_and_a_deaf_container_is_killed(engine: PodmanEngine) -> None:
    polite = engine.start(engine.create(spec(engine, "trap 'exit 7' TERM; while :; do sleep 0.1; done", name="polite")))
    deaf = engine.start(engine.create(spec(engine, "trap '' TERM; while :; do sleep 0.1; done", name="deaf")))
    engine.stop(polite.runtime_id, 20)
    engine.stop(deaf.runtime_id, 1)
    codes = [found.exit_code for one in (polite, deaf) if (found := engine.inspect(one.runtime_id)) is not None]
    assert codes == [7, 137]


def test_a_command_that_is_not_there_fails_to_start_with_the_runtimes_words(engine: PodmanEngine) -> None:
    with pytest.raises(EngineError) as caught:
        engine.start(engine.create(spec(engine, "", command=("/no/such/program",))))
    assert caught.value.reason == "CannotStartContainerError"
    assert "/no/such/program" in str(caught.value)


def test_the_monitor_and_the_service_killed_together_leave_a_container_that_has_ended(
    engine: PodmanEngine, service: PodmanService
) -> None:
    container = engine.start(engine.create(spec(engine, "sleep 1000")))
    monitor = int(service.run_cli("inspect", "--format", "{{.State.ConmonPid}}", container.runtime_id))
    service.kill()
    os.kill(monitor, 9)
    os.kill(container.pid, 9)
    service.start()
    found = engine.inspect(container.runtime_id)
    assert found is not None
    assert (found.status, found.exit_code) == (EngineStatus.EXITED, None), "nobody knows how it ended"
    assert engine.start(container.runtime_id).pid != container.pid
