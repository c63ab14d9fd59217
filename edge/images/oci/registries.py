"""Which server an image is fetched from: `registries.conf`, its mirrors, and `certs.d`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.errors import InvalidInputError, RefusedError
from edge.images.oci.references import ImageReference

_CONFIGURATION: Final = Path("/etc/containers/registries.conf")
_DISTRIBUTIONS_OWN: Final = Path("/usr/share/containers/registries.conf")
_CERTIFICATES: Final = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
_DOCKER_HUB_SERVER: Final = "registry-1.docker.io"
_PULLED_FROM_MIRROR: Final = frozenset({"", "all", "digest-only", "tag-only"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server to ask.

    Attributes:
        server: Host and port.
        repository: As that server names it.
        insecure: Plain HTTP, or HTTPS with any certificate, is allowed.
    """

    server: str
    repository: str
    insecure: bool


@dataclass(frozen=True, slots=True)
class _Mirror:
    location: str
    insecure: bool
    pulled: str

    def serves(self, *, by_digest: bool) -> bool:
        return self.pulled != ("tag-only" if by_digest else "digest-only")


@dataclass(frozen=True, slots=True)
class _Entry:
    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[_Mirror, ...]

    def rest_of(self, reference: ImageReference) -> str | None:
        """What follows the prefix in the reference's name; None where it is about others."""
        if self.prefix.startswith("*."):
            host = reference.registry.partition(":")[0]
            return reference.name[len(host) :] if host.endswith(self.prefix[1:]) else None
        text = str(reference)
        fits = text.startswith(self.prefix) and text[len(self.prefix) :][:1] in ("", "/", ":", "@")
        return reference.name[len(self.prefix) :] if fits else None


class Registries:
    """The configuration of one host.

    Args:
        paths: The files; later ones replace a prefix of earlier ones. Missing ones are nothing.
        certificates: Folders with a folder for each server (containers-certs.d(5)), the first that has one counts.

    Raises:
        InvalidInputError: A file cannot be used; nothing of it is guessed.
    """

    def __init__(self, paths: tuple[Path, ...], certificates: tuple[Path, ...] = _CERTIFICATES) -> None:
        self._certificates = certificates
        self._entries = {entry.prefix: entry for path in paths for entry in _load(path)}

    @classmethod
    def of_host(cls, environment: Mapping[str, str]) -> "Registries":
        """Read the files Podman reads (containers-registries.conf(5), containers-registries.conf.d(5))."""
        home = Path(environment.get("HOME", "/root"))
        own = Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers"
        certificates = (own / "certs.d", *_CERTIFICATES)
        if named := environment.get("CONTAINERS_REGISTRIES_CONF"):
            return cls((Path(named),), certificates)
        more = sorted((own / "registries.conf.d").glob("*.conf"))
        if (own / "registries.conf").exists():
            return cls((own / "registries.conf", *more), certificates)
        main = _CONFIGURATION if _CONFIGURATION.exists() else _DISTRIBUTIONS_OWN
        return cls((main, *sorted(Path(f"{_CONFIGURATION}.d").glob("*.conf")), *more), certificates)

    def endpoints(self, reference: ImageReference) -> tuple[Endpoint, ...]:
        """Return the servers to ask, in order: mirrors first, the registry itself last.

        Raises:
            RefusedError: The registry is blocked.
        """
        fitting = [(entry, rest) for entry in self._entries.values() if (rest := entry.rest_of(reference)) is not None]
        if not fitting:
            return (_endpoint(reference.name, insecure=False),)
        entry, rest = max(fitting, key=lambda one: len(one[0].prefix))
        if entry.blocked:
            raise RefusedError(f"registry {entry.prefix} is blocked in registries.conf")
        own = entry.location + rest if entry.location else reference.name
        mirrors = [
            _endpoint(mirror.location + rest, insecure=mirror.insecure)
            for mirror in entry.mirrors
            if mirror.serves(by_digest=bool(reference.digest))
        ]
        return (*mirrors, _endpoint(own, insecure=entry.insecure))

    def certificates(self, server: str) -> Path | None:
        """Return the folder with the certificates for a server, if there is one."""
        return next((folder / server for folder in self._certificates if (folder / server).is_dir()), None)


def _endpoint(location: str, *, insecure: bool) -> Endpoint:
    server, _, repository = location.partition("/")
    return Endpoint(_DOCKER_HUB_SERVER if server == "docker.io" else server, repository, insecure)


def _load(path: Path) -> list[_Entry]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        if "registries" in document:
            raise InvalidInputError(
                f"{path} is of version 1, which is not supported", hint="Write [[registry]] tables instead."
            )
        return [_entry(table) for table in _tables(document, "registry")]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot use {path}: {error}", hint="See containers-registries.conf(5).") from error


def _entry(table: Mapping[str, Any]) -> _Entry:
    prefix, location = _location(table, "prefix"), _location(table, "location")
    if not location and not prefix.startswith("*."):
        raise ValueError(f"the registry {prefix or 'without prefix'} has no location")
    everything = "digest-only" if _flag(table, "mirror-by-digest-only") else ""
    mirrors = tuple(_mirror(one, everything) for one in _tables(table, "mirror"))
    return _Entry(prefix or location, location, _flag(table, "insecure"), _flag(table, "blocked"), mirrors)


def _mirror(table: Mapping[str, Any], pulled: str) -> _Mirror:
    location, own = _location(table, "location"), table.get("pull-from-mirror", "")
    if not location:
        raise ValueError("a mirror has no location")
    if own not in _PULLED_FROM_MIRROR:
        raise ValueError(f"pull-from-mirror of {location} is {own!r}")
    return _Mirror(location, _flag(table, "insecure"), pulled or own)


def _tables(table: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"{key} is no list of tables ([[{key}]])")
    return found


def _location(table: Mapping[str, Any], key: str) -> str:
    found = table.get(key, "")
    if not isinstance(found, str) or "://" in found:
        raise ValueError(f"{key} is {found!r}, not host[:port][/path]")
    return found.rstrip("/")


def _flag(table: Mapping[str, Any], key: str) -> bool:
    found = table.get(key, False)
    if not isinstance(found, bool):
        raise ValueError(f"{key} is {found!r}, not true or false")  # noqa: TRY004 - one class for all of a file's faults
    return found
