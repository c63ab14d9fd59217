"""Keys for tests: a signer that lives in memory, and trust bundles made of such."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.model.envelope import Signer, key_id_of
from edge.model.trust import BundleRole, Role, TrustBundle, bundle_key, make_bundle


@dataclass(frozen=True)
class MemorySigner:
    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        return key_id_of(self.public)

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message)


def trust_bundle(
    root: Sequence[MemorySigner],
    *,
    threshold: int = 1,
    version: int = 1,
    clusters: Sequence[str] = ("shop",),
    assignments: Sequence[MemorySigner] | None = None,
) -> TrustBundle:
    signers = root if assignments is None else assignments
    rules = {Role.ROOT: root, Role.DESIRED_STATE: signers, Role.COMMAND: signers}
    return TrustBundle(
        version=version,
        clusters=list(clusters),
        issued_at="2026-01-01T00:00:00Z",
        keys={key.key_id: bundle_key(key.public) for key in (*root, *signers)},
        roles={
            name: BundleRole(key_ids=[key.key_id for key in keys], threshold=threshold if name is Role.ROOT else 1)
            for name, keys in rules.items()
        },
    )


def sealed_bundle(root: Sequence[MemorySigner], signers: Sequence[Signer] | None = None, version: int = 1) -> bytes:
    return make_bundle(trust_bundle(root, version=version), root if signers is None else signers)
