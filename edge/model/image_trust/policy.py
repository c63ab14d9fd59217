"""What the owner of a device demands of an image, by where it comes from."""

import posixpath
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DOCKER_HUB: Final = "docker.io"
_HUB_NAMES: Final = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_DEFAULT_PORTS: Final = (":443", ":80")
ANY: Final = "*"


class Requirement(StrEnum):
    """What an image must have to be run."""

    ANYTHING = "anything"
    """Nothing more than that the signed desired state names it."""
    DIGEST = "digest"
    """Its reference names a digest: a tag may mean something else tomorrow."""
    SIGNATURE = "signature"
    DIGEST_AND_SIGNATURE = "digest-and-signature"


@dataclass(frozen=True, slots=True)
class ImageRule:
    """One rule.

    Attributes:
        scope: A registry, a registry with the beginning of a path, a repository; `*` is everything.
        keys: Public keys (PEM, SubjectPublicKeyInfo), one of which must have signed.
        fleet_keys: Or one of the trust bundle's keys for the role `image`.
        log_keys: Public keys (PEM) of transparency logs, one of which must have promised to log the signature.
        authorities: Certificates (PEM) of authorities for keyless signatures; then `identity`, `issuer` and
            `log_keys` are there too, and keys do not count.
        identity: The one name in the signer's certificate: an e-mail address or a URI.
        issuer: Who vouched for it, an OpenID Connect issuer's URL.
    """

    scope: str
    require: Requirement
    keys: tuple[bytes, ...] = ()
    fleet_keys: bool = False
    log_keys: tuple[bytes, ...] = ()
    authorities: tuple[bytes, ...] = ()
    identity: str = ""
    issuer: str = ""

    @property
    def wants_digest(self) -> bool:
        """A reference must name a digest."""
        return self.require in (Requirement.DIGEST, Requirement.DIGEST_AND_SIGNATURE)

    @property
    def wants_signature(self) -> bool:
        """The image must be signed."""
        return self.require in (Requirement.SIGNATURE, Requirement.DIGEST_AND_SIGNATURE)


_NO_RULE: Final = ImageRule(ANY, Requirement.ANYTHING)


@dataclass(frozen=True, slots=True)
class ImagePolicy:
    """All rules; the most specific scope that has an image's repository in it counts, alone."""

    rules: tuple[ImageRule, ...] = ()

    def rule_for(self, image: str) -> ImageRule:
        """Return the rule an image falls under; one that demands nothing where the owner said nothing."""
        repository = repository_of(image)
        fitting = [rule for rule in self.rules if rule.scope == ANY or is_below(repository, scope_of(rule.scope))]
        return max(fitting, key=lambda rule: -1 if rule.scope == ANY else len(scope_of(rule.scope)), default=_NO_RULE)

    def problem(self, image: str) -> str:
        """Say what is wrong with a reference before anything is fetched; empty when nothing is."""
        if not self.rules:
            return ""
        if not names_registry(image):
            # Podman's configuration may make anything of a short name, under whatever rule.
            return f"{image}, which names no registry (policy.images)"
        if self.rule_for(image).wants_digest and not _names_digest(image):
            return f"{image} without a digest, name@sha256:… (policy.images)"
        return ""


def names_registry(image: str) -> bool:
    """Say whether a reference begins with a registry, as Podman reads it."""
    first, slash, _ = image.partition("@")[0].partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def repository_of(image: str) -> str:
    """Return `registry/repository`, one text for all ways to write the same one.

    Without this a rule could be got round: `Registry.Example:443/app` is fetched from where `registry.example/app` is.
    """
    name = image.partition("@")[0]
    tag = name.rfind(":")
    if tag > name.rfind("/"):
        name = name[:tag]
    if not names_registry(f"{image}"):
        return f"{DOCKER_HUB}/{name if '/' in name else f'library/{name}'}"
    registry, _, path = posixpath.normpath(name).partition("/")
    registry = _host(registry)
    if registry == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return f"{registry}/{path}"


def scope_of(text: str) -> str:
    """Return a scope in the form of `repository_of`."""
    registry, slash, path = text.rstrip("/").partition("/")
    return f"{_host(registry)}{slash}{path}"


def is_below(path: str, folder: str) -> bool:
    """Say whether a path is a folder or in it, judged by names alone; `..` leads nowhere."""
    clean = posixpath.normpath(path)
    return clean == folder or clean.startswith(f"{folder.rstrip('/')}/")


def _host(registry: str) -> str:
    lower = registry.lower()
    for port in _DEFAULT_PORTS:
        lower = lower.removesuffix(port)
    return DOCKER_HUB if lower in _HUB_NAMES else lower


def _names_digest(image: str) -> bool:
    _, at, digest = image.partition("@")
    kind, _, value = digest.partition(":")
    return bool(at) and kind == "sha256" and len(value) == 64 and set(value) <= set("0123456789abcdef")  # noqa: PLR2004
