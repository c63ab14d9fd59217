"""Image references: `registry/repository:tag@digest`, taken apart as Podman does it."""

import re
from dataclasses import dataclass, replace
from typing import Final

from edge.errors import InvalidInputError

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_MAXIMUM_NAME: Final = 255
_DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io"})


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A full reference; grammar: github.com/distribution/reference.

    Attributes:
        registry: Host, and port if it was named; `docker.io` for Docker Hub.
        tag: Empty when only a digest was given.
        digest: `sha256:…`, or empty.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """`registry/repository`."""
        return f"{self.registry}/{self.repository}"

    @property
    def wanted(self) -> str:
        """What a registry is asked for: the digest, or else the tag."""
        return self.digest or self.tag

    def at(self, digest: str) -> "ImageReference":
        """Return the same image pinned to a digest."""
        return replace(self, tag="", digest=digest)

    def __str__(self) -> str:
        """Return it in full."""
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> ImageReference:
    """Take a reference apart; without tag and digest it means `latest`.

    A name without a registry is refused, as Podman's strict short-name mode does on a device without a terminal.

    Raises:
        InvalidInputError: It is no reference, or names no registry.
    """
    rest, _, digest = text.partition("@")
    head, slash, tail = rest.rpartition("/")
    last, colon, tag = tail.partition(":")
    path = f"{head}{slash}{last}"
    registry, slash, repository = path.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        raise InvalidInputError(
            f"{text} names no registry", hint="Write the reference in full: registry.example/name:tag."
        )
    good = (
        len(path) <= _MAXIMUM_NAME
        and _REGISTRY.fullmatch(registry)
        and _REPOSITORY.fullmatch(repository)
        and (not colon or _TAG.fullmatch(tag))
        and (not digest or DIGEST.fullmatch(digest))
        and (digest or "@" not in text)
    )
    if not good:
        raise InvalidInputError(f"{text} is no image reference", hint="registry.example/name:tag, or …/name@sha256:….")
    if registry in _DOCKER_HUB:
        registry, repository = "docker.io", repository if "/" in repository else f"library/{repository}"
    return ImageReference(registry, repository, tag if tag or digest else "latest", digest)
