"""Between a task and its image: what the owner's rules demand is proven before the image is used, and again later.

An image whose rule demands a signature goes this way. What there is of signatures is fetched (`Proofs.gather`), one of
them is proven, and from then on the image is the manifest that was proven and nothing else: it is fetched by that
digest, and what the engine then has under it must have the proven image id. So a registry that answers the second
question otherwise than the first gains nothing. What was fetched is kept: without a network, and after a restart, the
same is proven from the same bytes. Keys that count are asked for each time: a signature by a retired key is none.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.agent.engine.ports import ContainerEngine, Image, Proofs
from edge.errors import EngineError, ImageTrustError, TrustError
from edge.model.image_trust.evidence import read_evidence
from edge.model.image_trust.policy import ImagePolicy, ImageRule, repository_of
from edge.model.image_trust.verify import ProvenImage, prove

_log = logging.getLogger(__name__)

_REMEMBERED: Final = 256
_HINT: Final = (
    "Sign the image (docs/image-trust.md), or change policy.images in agent.toml; `edge image verify` says more."
)


@dataclass(frozen=True, slots=True)
class _Question:
    """What was proven: again only when one of these is another."""

    rule: ImageRule
    keys: tuple[bytes, ...]
    repository: str
    image_id: str


class ImageGate:
    """Usable from any thread.

    Args:
        engine: Where images come from and are.
        policy: The owner's rules.
        proofs: Fetches and keeps what there is of signatures.
        fleet_keys: The trust bundle's keys for images (PEM), as they are now.
    """

    def __init__(
        self,
        engine: ContainerEngine,
        policy: ImagePolicy,
        proofs: Proofs | None = None,
        fleet_keys: Callable[[], tuple[bytes, ...]] = tuple,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._proofs = proofs
        self._fleet_keys = fleet_keys
        self._proven: dict[_Question, None] = {}

    def local(self, reference: str, architecture: str) -> Image | None:
        """Return the image if the local store has it and it may be used; asks no registry.

        Raises:
            EngineError: As the engine's `image` and `pull`.
        """
        rule = self._policy.rule_for(reference)
        if not rule.wants_signature:
            image = self._engine.image(reference)
            return image if image is not None and image.architecture == architecture else None
        for data in self._proofs.kept(reference) if self._proofs is not None else ():
            try:
                proven = self._prove(data, rule, reference)
            except TrustError as error:
                _log.info("what is kept of the signatures of %s does not count any more: %s", reference, error)
                continue
            image = self._engine.image(_pinned(reference, proven))
            if image is not None and (image.image_id, image.architecture) == (proven.image_id, architecture):
                # Already here; the engine sees that it is what its manifest says from the first byte on.
                return self._fetch(reference, proven, rule, architecture)
        return None

    def pull(self, reference: str, architecture: str) -> Image:
        """Fetch an image that may be used.

        Raises:
            ImageTrustError: No signature of it will do.
            EngineError: As the engine's `pull`.
        """
        rule = self._policy.rule_for(reference)
        if not rule.wants_signature:
            return self._engine.pull(reference, architecture)
        if self._proofs is None:
            raise ImageTrustError(f"{reference} must be signed, and nothing here can find signatures", hint=_HINT)
        data = self._proofs.gather(reference, architecture)
        try:
            proven = self._prove(data, rule, reference)
        except TrustError as error:
            raise _refused(reference, error) from error
        image = self._fetch(reference, proven, rule, architecture)
        self._proofs.keep(reference, image.image_id, data)
        _log.info("%s is signed by %s: %s", reference, proven.signer, proven.digest)
        return image

    def check(self, reference: str, image_id: str, architecture: str) -> None:
        """See that an image may still be used: before a container is made of it, and before one starts.

        Raises:
            ImageTrustError: No signature of it will do.
            EngineError: As `Proofs.gather`, for an image that was never proven here.
        """
        rule = self._policy.rule_for(reference)
        if problem := self._policy.problem(reference):
            raise ImageTrustError(f"this device's policy does not allow {problem}", hint=_HINT)
        if not rule.wants_signature:
            return
        if self._question(rule, reference, image_id) in self._proven:
            return
        if self._proofs is None:
            raise ImageTrustError(f"{reference} must be signed, and nothing here can find signatures", hint=_HINT)
        for data in self._proofs.kept(reference):
            try:
                if self._prove(data, rule, reference).image_id == image_id:
                    self._remember(rule, reference, image_id)
                    return
            except TrustError as error:
                _log.info("what is kept of the signatures of %s does not count any more: %s", reference, error)
        data = self._proofs.gather(reference, architecture)
        try:
            proven = self._prove(data, rule, reference)
        except TrustError as error:
            raise _refused(reference, error) from error
        if proven.image_id != image_id:
            raise ImageTrustError(
                f"{reference}: image {image_id[:12]} is here, and {proven.image_id[:12]} is the one that is signed",
                hint="Stop the task, and run it again: it then gets the image that is signed.",
            )
        self._proofs.keep(reference, image_id, data)
        self._remember(rule, reference, image_id)

    def _fetch(self, reference: str, proven: ProvenImage, rule: ImageRule, architecture: str) -> Image:
        image = self._engine.pull(_pinned(reference, proven), architecture, proven=True)
        if image.image_id != proven.image_id:
            raise ImageTrustError(
                f"{reference}: the engine has image {image.image_id[:12]} under the digest of {proven.image_id[:12]}",
                hint="Remove that image from the device: `podman rmi`, `edge image rm`.",
            )
        self._remember(rule, reference, image.image_id)
        return image

    def _prove(self, data: bytes, rule: ImageRule, reference: str) -> ProvenImage:
        return prove(read_evidence(data), rule, self._fleet_keys(), reference)

    def _question(self, rule: ImageRule, reference: str, image_id: str) -> _Question:
        keys = self._fleet_keys() if rule.fleet_keys else ()
        return _Question(rule, keys, repository_of(reference), image_id)

    def _remember(self, rule: ImageRule, reference: str, image_id: str) -> None:
        while len(self._proven) >= _REMEMBERED:
            self._proven.pop(next(iter(self._proven)), None)
        self._proven[self._question(rule, reference, image_id)] = None


def _pinned(reference: str, proven: ProvenImage) -> str:
    name = reference.partition("@")[0]
    tag = name.rfind(":")
    return f"{name[:tag] if tag > name.rfind('/') else name}@{proven.digest}"


def _refused(reference: str, error: TrustError) -> EngineError:
    return ImageTrustError(f"{reference}: {error}", hint=_HINT)
