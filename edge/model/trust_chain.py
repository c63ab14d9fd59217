"""How a device that was away follows the keys: every trust bundle since the first, in order, in one message.

Each bundle takes its place only by the threshold of the one before it (`TrustedSet.replace`), so a device that missed
several must see them all. The message itself is not signed: leaving out, reordering or adding bundles gains nobody a
key.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from edge.errors import InvalidInputError, TrustError
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES
from edge.model.envelope import MAXIMUM_SEALED_BYTES, malformed, parse_json
from edge.model.trust import TrustedSet

MAXIMUM_BUNDLES: Final = 64
"""In one chain. A fleet that changed its keys more often hands over the newest ones; a device older than these is
given the newest bundle by hand."""


def write_chain(bundles: Sequence[bytes]) -> bytes:
    """Return the message of sealed bundles, oldest first; of too many the newest that fit.

    Raises:
        InvalidInputError: The newest alone does not fit.
    """
    for first in range(max(0, len(bundles) - MAXIMUM_BUNDLES), len(bundles)):
        document = {"schemaVersion": 1, "bundles": [one.decode() for one in bundles[first:]]}
        data = json.dumps(document, separators=(",", ":")).encode()
        if len(data) <= MAXIMUM_SEALED_BYTES:
            return data
    raise InvalidInputError("the trust bundle does not fit into one message", hint="Retire keys that nobody uses.")


def follow_chain(trusted: TrustedSet, data: bytes) -> TrustedSet:
    """Return the trusted set that a chain leads to; `trusted` itself when it has nothing newer.

    Raises:
        TrustError: It is malformed, or a bundle in it was not signed by the one in force before it. What came before
            that one is not taken either.
    """
    for number, bundle in enumerate(_read(data)):
        version = TrustedSet.version_of(bundle)
        if version <= trusted.version:
            continue
        try:
            trusted = trusted.replace(bundle)
        except TrustError as error:
            raise TrustError(f"trust bundle {version} (number {number} of the chain): {error}") from error
    return trusted


def _read(data: bytes) -> list[bytes]:
    if len(data) > MAXIMUM_DOCUMENT_BYTES:
        raise malformed(f"the chain of trust bundles has {len(data)} bytes, more than {MAXIMUM_DOCUMENT_BYTES}")
    document: Any = parse_json(data)
    if not isinstance(document, dict) or set(document) != {"schemaVersion", "bundles"}:
        raise malformed("the chain of trust bundles is not an object of schemaVersion and bundles")
    bundles = document["bundles"]
    if document["schemaVersion"] != 1 or not isinstance(bundles, list) or len(bundles) > MAXIMUM_BUNDLES:
        raise malformed(f"the chain of trust bundles is not a list of up to {MAXIMUM_BUNDLES} in version 1")
    if not all(isinstance(one, str) for one in bundles):
        raise malformed("a trust bundle of the chain is not a text")
    return [one.encode() for one in bundles]
