"""Credentials from Podman's `auth.json`, and the tokens that registries give for them."""

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.errors import InvalidInputError

_MAXIMUM_FILE: Final = 1024 * 1024
_DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a secret, or (`identity_token`) a token to trade for others."""

    user: str
    secret: str = field(repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """Return the value of an `Authorization` header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()


def credential_files(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where credentials are looked for, in order (containers-auth.json(5), "FILES")."""
    if named := environment.get("REGISTRY_AUTH_FILE"):
        return (Path(named),)
    home = Path(environment.get("HOME", "/root"))
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    run = Path(runtime) / "containers/auth.json" if "XDG_RUNTIME_DIR" in environment else Path(runtime) / "auth.json"
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return (run, config / "containers/auth.json", home / ".docker/config.json")


def find_credentials(name: str, environment: Mapping[str, str]) -> Credentials | None:
    """Return the credentials for `registry/repository`: the longest key that is a prefix of it, in the first file.

    Keys that are addresses (`https://index.docker.io/v1/`, as Docker writes them) stand for their host.

    Raises:
        InvalidInputError: A file that counts is unreadable, or leaves it to a credential helper.
    """
    host, slash, repository = name.partition("/")
    name = f"{_host(host)}{slash}{repository}"
    for path in credential_files(environment):
        document = _load(path)
        if found := _find(document, name, path):
            return found
        _refuse_helper(document, name, path)
    return None


def _find(document: Mapping[str, Any], name: str, path: Path) -> Credentials | None:
    entries = document.get("auths")
    if not isinstance(entries, dict):
        return None
    by_host = {_host(key): key for key in reversed(entries)}
    for key in (*_keys(name), by_host.get(name.partition("/")[0], "")):
        entry = entries.get(key)
        if isinstance(entry, dict) and (found := _credentials(entry, path, key)):
            return found
    return None


def _keys(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition("/")[0]


def _host(key: str) -> str:
    """The host a key stands for; empty for one that is about a part of a registry."""
    _, is_address, rest = key.rpartition("://")
    host, slash, _ = rest.partition("/")
    if slash and not is_address:
        return ""
    return "docker.io" if host in _DOCKER_HUB else host


def _refuse_helper(document: Mapping[str, Any], name: str, path: Path) -> None:
    registry = name.partition("/")[0]
    helpers, entries = document.get("credHelpers"), document.get("auths")
    named = isinstance(helpers, dict) and registry in helpers
    # `docker login` leaves an empty entry where a helper keeps the secret.
    stored = isinstance(entries, dict) and registry in map(_host, entries) and document.get("credsStore")
    if named or stored:
        raise InvalidInputError(
            f"{path} leaves {registry} to a credential helper, which is not supported",
            hint="Use `podman login`, which stores the credentials in the file.",
        )


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAXIMUM_FILE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MAXIMUM_FILE:
        raise InvalidInputError(f"{path} is larger than {_MAXIMUM_FILE} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not JSON: {error}") from error
    return document if isinstance(document, dict) else {}


def _credentials(entry: Mapping[str, Any], path: Path, key: str) -> Credentials | None:
    try:
        user, _, secret = base64.b64decode(entry.get("auth", ""), validate=True).decode().partition(":")
    except (ValueError, TypeError) as error:
        raise InvalidInputError(
            f"{path}: the entry for {key} is not base64 of user:password",
            hint="Write it anew with `podman login`.",
        ) from error
    token = str(entry.get("identitytoken") or "")
    return Credentials(user, secret.rstrip("\0"), token) if user or token else None
