"""Clients for the tests of this folder: configured by files, as a device's is; they wait for nothing."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import Descriptor, digest_of
from edge.images.oci.http import Patience
from edge.images.oci.references import ImageReference, parse_reference
from edge.images.oci.registries import Registries
from tests.support.fault_registry import FaultRegistry

LAYER = bytes(range(256)) * 4096
BLOB = Descriptor("", digest_of(LAYER), len(LAYER))
HALF = len(LAYER) // 2


@dataclass(slots=True)
class Device:
    """A device's configuration in `folder`, and the pauses its client made."""

    folder: Path
    pauses: list[float] = field(default_factory=list)
    clock: float = 0.0
    clients: list[RegistryClient] = field(default_factory=list)

    def registries(self, text: str) -> None:
        """Write `registries.conf`."""
        (self.folder / "registries.conf").write_text(text)

    def insecure(self, *registries: FaultRegistry) -> None:
        """Allow plain HTTP to these alone."""
        self.registries("".join(f'[[registry]]\nlocation = "{one.address}"\ninsecure = true\n' for one in registries))

    def log_in(self, logins: Mapping[str, str]) -> None:
        """Write `auth.json`: `user:password` by registry."""
        auths = {name: {"auth": base64.b64encode(login.encode()).decode()} for name, login in logins.items()}
        (self.folder / "auth.json").write_text(json.dumps({"auths": auths}))

    def trust(self, registry: FaultRegistry, files: Mapping[str, Path]) -> None:
        """Put files into the registry's folder of `certs.d`."""
        folder = self.folder / "certs.d" / registry.address
        folder.mkdir(parents=True)
        for name, path in files.items():
            (folder / name).write_bytes(path.read_bytes())

    def client(self, attempts: int = 3, read_seconds: float = 10.0) -> RegistryClient:
        """A client that starts now."""
        registries = Registries((self.folder / "registries.conf",), (self.folder / "certs.d",))
        environment = {"REGISTRY_AUTH_FILE": str(self.folder / "auth.json")}
        patience = Patience(attempts, self.pauses.append, read_seconds, lambda: self.clock)
        self.clients.append(RegistryClient(registries, environment, patience))
        return self.clients[-1]


def named(registry: FaultRegistry, rest: str = "app:1") -> ImageReference:
    return parse_reference(f"{registry.address}/{rest}")


def read(client: RegistryClient, reference: ImageReference, offset: int = 0, size: int = len(LAYER)) -> bytes:
    return b"".join(client.chunks(reference, BLOB, offset, size))


def paths(registry: FaultRegistry, on: str = "/v2/") -> Sequence[str]:
    return [one.path for one in registry.asked(on)]
