"""Signed bundles of small files that only look like wheels, and a device that is not there."""

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import NotFoundError
from edge.files import make_folder, write_atomically
from edge.firmware.bundle_file import RuntimeBundle, write_bundle
from edge.firmware.runtimes import MANIFEST, Runtimes
from edge.firmware.spool import Spool
from edge.firmware.updater import Updater, World
from edge.model.runtime_bundle import BundleFile, Place, RuntimeManifest
from edge.model.runtime_update import AgentSeen, BundleReference, UpdateRequest, UpdateResult
from edge.model.trust import Role, TrustBundle, TrustedSet, bundle_key, make_bundle
from tests.model.signers import MemorySigner

OLD, NEW = "0.1.0", "0.2.0"
OWNER = MemorySigner()


def trusting(*signers: MemorySigner, threshold: int = 1) -> TrustedSet:
    """A trust bundle in which these sign firmware, and the owner everything else."""
    everybody = {one.key_id: one for one in (OWNER, *signers)}
    owner = {"key_ids": [OWNER.key_id], "threshold": 1}
    roles: dict[str, Any] = {role.value: owner for role in Role}
    roles["firmware"] = {"key_ids": [one.key_id for one in signers or (OWNER,)], "threshold": threshold}
    bundle = TrustBundle.model_validate(
        {
            "version": 1,
            "clusters": ["default"],
            "issued_at": "2026-01-01T00:00:00Z",
            "keys": {key: bundle_key(one.public) for key, one in everybody.items()},
            "roles": roles,
        }
    )
    return TrustedSet.from_bundle(make_bundle(bundle, [OWNER]))


def make_wheels(folder: Path, version: str) -> tuple[Path, ...]:
    """Two files: of edge, and of something it needs."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"edge-{version}-py3-none-any.whl": version.encode() * 50, "other-1.0-py3-none-any.whl": b"other" * 900}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return tuple(sorted(folder / name for name in files))


def describe(wheels: Sequence[Path]) -> list[BundleFile]:
    """What a manifest says of them."""
    return [
        BundleFile(name=one.name, sha256=hashlib.sha256(one.read_bytes()).hexdigest(), size=one.stat().st_size)
        for one in wheels
    ]


def make_runtime_bundle(
    folder: Path, version: str = NEW, signers: Sequence[MemorySigner] = (OWNER,), **fields: Any
) -> Path:
    """A good bundle, save for `fields` of its manifest."""
    wheels = make_wheels(folder / f"wheels-{version}", version)
    values = {"version": version, "architecture": "arm64", "python": "3.11", "issued_at": "2026-01-01T00:00:00Z"}
    manifest = RuntimeManifest.model_validate({**values, "files": describe(wheels), **fields})
    path = folder / f"edge-{version}.bundle"
    path.unlink(missing_ok=True)
    write_bundle(path, manifest, wheels, signers)
    return path


def rewritten(bundle: Path, change: dict[str, bytes], more: dict[str, bytes] | None = None) -> Path:
    """The same tar with other contents under some names, and more at its end."""
    with tarfile.open(bundle) as tar:
        files = {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar.getmembers()}
    with tarfile.open(bundle, "w:", format=tarfile.GNU_FORMAT) as tar:
        for name, content in {**files, **change, **(more or {})}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return bundle


class QuickRuntimes(Runtimes):
    """The real folder and links; a version is one file instead of a venv."""

    def install(self, bundle: RuntimeBundle) -> None:
        path = self.path(bundle.manifest.version)
        self.remove(bundle.manifest.version)
        make_folder(path / "bin")
        write_atomically(path / "bin" / "edge", bundle.manifest.version.encode())
        write_atomically(path / MANIFEST, bundle.envelope)


@dataclass
class PlayedDevice:
    """A device whose agent is what `current` leads to, from its restart on.

    Attributes:
        unwell: Versions whose agent never gets ready.
        connected: Whether the broker is there.
        deaf: Versions that do not find the broker.
    """

    folder: Path
    unwell: frozenset[str] = frozenset()
    deaf: frozenset[str] = frozenset()
    connected: bool = True
    trust: TrustedSet = field(default_factory=trusting)
    boards: tuple[str, ...] = ()
    restarts: int = 0
    now: float = 0.0
    running: str = OLD
    stopped: bool = False
    _pid: int = 100

    def __post_init__(self) -> None:
        self.runtimes = QuickRuntimes(self.folder / "opt")
        self.spool = Spool(self.folder / "state" / "update")
        make_folder(self.runtimes.path(OLD) / "bin")
        self.runtimes.switch(OLD)

    def updater(self) -> Updater:
        world = World(
            trust=lambda: self.trust,
            place=lambda: Place("0.0.0", "0.0.0", "arm64", "3.11", self.boards),
            fetch=self._fetch,
            look=self.look,
            restart=self.restart,
            sleep=self._sleep,
            monotonic=lambda: self.now,
        )
        return Updater(self.runtimes, self.spool, world)

    def update(self, bundle: Path, **fields: Any) -> UpdateResult:
        """Ask, and have it done."""
        self.ask(bundle, **fields)
        result = self.updater().carry_on()
        assert result is not None
        return result

    def ask(self, bundle: Path, **fields: Any) -> None:
        self.spool.ask(UpdateRequest.model_validate({"id": "one", "file": str(bundle), "window_seconds": 60, **fields}))

    def boot(self) -> None:
        """Everything that ran is gone; what `current` leads to starts."""
        self.restart()

    def restart(self) -> None:
        self.restarts += 1
        self._pid += 1
        self.running = self.runtimes.current()

    def look(self) -> AgentSeen | None:
        if self.stopped:
            return None
        ready = self.running not in self.unwell
        return AgentSeen(self._pid, self.running, ready, self.connected and self.running not in self.deaf)

    def versions(self) -> list[str]:
        return sorted(path.name for path in (self.runtimes.base / "versions").iterdir())

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _fetch(self, ref: BundleReference, path: Path) -> None:
        raise NotFoundError(f"{ref.url} is not there, nor is {path.name}")
