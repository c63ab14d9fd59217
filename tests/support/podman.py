"""A real Podman with a store of its own in a temporary folder; never the host's."""

import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

from edge.podman_host import choose_podman_flags, choose_ulimits, read_facts

IMAGE = "localhost/edge-test/busybox:1"
START_SECONDS = 30.0
ORPHAN_SECONDS = 3.0


class PodmanService:
    """`podman system service` on a socket in `folder`; killed and started again as a test wants.

    `image_stores` are additional, read-only ones (containers-storage.conf(5), additionalimagestores).
    """

    def __init__(self, folder: Path, *image_stores: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.socket = folder / "podman.sock"
        self._process: subprocess.Popen[bytes] | None = None
        root, runroot, temporary = folder / "root", folder / "run", folder / "tmp"
        store = ("--root", str(root), "--runroot", str(runroot), "--tmpdir", str(temporary))
        stores = (f"--storage-opt=overlay.imagestore={path}" for path in image_stores)
        self.flags = (*store, *stores, *choose_podman_flags(read_facts()))
        registries = folder / "registries.conf"
        registries.write_text(
            'unqualified-search-registries = []\n[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n'
        )
        self.environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(registries)}
        self.environment.pop("CONTAINERS_STORAGE_CONF", None)

    def allow_insecure(self, registry: str) -> None:
        """Let this Podman talk plain HTTP to a registry on loopback."""
        with (self.folder / "registries.conf").open("a") as file:
            file.write(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the service and wait until it answers."""
        self.socket.unlink(missing_ok=True)
        command = ["podman", *self.flags, "system", "service", "--time", "0", f"unix://{self.socket}"]
        with (self.folder / "service.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(f"podman's service did not start: {(self.folder / 'service.log').read_text()}")
            time.sleep(0.02)

    def died(self) -> bool:
        """Whether the service was running and was killed by somebody else; it may be started again then."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        return self._process is None

    def kill(self) -> None:
        """SIGKILL the service; containers go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End the service, remove every container and all it mounted."""
        if self._process is None:
            self.start()
        self.run_cli("rm", "--all", "--force", "--time", "0", check=False)
        self.run_cli("volume", "rm", "--all", "--force", check=False)
        self.kill()
        self._wait_for_helpers()
        for line in Path("/proc/self/mounts").read_text().splitlines()[::-1]:
            if line.split()[1].startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", line.split()[1]], check=False)

    def _wait_for_helpers(self) -> None:
        """Wait for what still works on the store: conmon calls `podman container cleanup` at a container's end.

        Each of them mounts the store's folder on itself, however late it comes. A conmon whose Podman was killed while
        it made the container waits for ever.
        """
        own = os.fsencode(self.folder / "root")
        orphaned_at = time.monotonic() + ORPHAN_SECONDS
        deadline = time.monotonic() + START_SECONDS
        while left := [(pid, command) for pid, command in _commands() if own in command]:
            assert time.monotonic() < deadline, f"these still work on {self.folder}: {left}"
            for pid, command in left:
                if time.monotonic() > orphaned_at and b"conmon" in command.partition(b"\0")[0]:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def run_cli(self, *arguments: str, check: bool = True, data: bytes | None = None) -> str:
        """Run `podman` on the same store and return what it printed."""
        done = subprocess.run(
            ["podman", *self.flags, *arguments], check=False, capture_output=True, input=data, env=self.environment
        )
        if check and done.returncode:
            raise AssertionError(f"podman {' '.join(arguments)}: {done.stderr.decode()}")
        return done.stdout.decode().strip()

    def ulimit_flags(self) -> tuple[str, ...]:
        """What `podman run` needs on a host that may not raise its limits."""
        return tuple(
            part for name, most in choose_ulimits(read_facts()) for part in ("--ulimit", f"{name}={most}:{most}")
        )

    def load_busybox(self, reference: str = IMAGE) -> str:
        """Put a one-layer busybox image into the store and return its id."""
        return self.run_cli("import", "--change", 'CMD ["sleep","1000"]', "-", reference, data=busybox_tar())

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(5)
                probe.connect(str(self.socket))
                probe.sendall(b"GET /v4.0.0/libpod/_ping HTTP/1.0\r\nHost: d\r\n\r\n")
                return b"200" in probe.recv(64)
        except OSError:
            return False


def _commands() -> Iterator[tuple[int, bytes]]:
    """Yield process id and command line of every other process of this host."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and entry.name != str(os.getpid()):
            with suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes()


@contextmanager
def podman_service(folder: Path, *image_stores: Path) -> Iterator[PodmanService]:
    """Run a service in `folder`, with the test image loaded."""
    assert shutil.which("podman"), "podman is not installed: ./dev test installs it"
    service = PodmanService(folder, *image_stores)
    service.start()
    try:
        service.load_busybox()
        yield service
    finally:
        service.stop()


def busybox_tar() -> bytes:
    """A root file system of one static busybox with its usual names."""
    binary = Path("/bin/busybox").read_bytes()
    names = (
        "sh", "sleep", "echo", "cat", "ls", "id", "true", "false", "mount", "hostname", "httpd", "wget", "date",
        "touch", "grep", "stat", "df", "env", "pwd", "printf", "seq", "kill",
    )  # fmt: skip
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev", "data", "var", "run"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(binary), 0o755
        tar.addfile(entry, BytesIO(binary))
        for name in names:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        passwd = b"root:x:0:0:root:/:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, BytesIO(passwd))
    return out.getvalue()
