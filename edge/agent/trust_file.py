"""The trust bundle as a file beside the configuration."""

from pathlib import Path
from typing import Final

from edge.errors import InvalidInputError
from edge.model.trust import TrustedSet

_MAXIMUM_BUNDLE_BYTES: Final = 256 * 1024


def load_trust(path: Path) -> TrustedSet:
    """Read the signed trust bundle.

    Raises:
        InvalidInputError: The file cannot be read.
        TrustError: It is not a trust bundle, or not signed by its own keys.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAXIMUM_BUNDLE_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(
            f"cannot read the trust bundle {path}: {error.strerror}",
            hint="It is written by `edge fleet device add`, beside agent.toml.",
        ) from error
    return TrustedSet.from_bundle(data)
