"""Who signs OS images: a CA of its own, whose certificate every image carries as RAUC's keyring.

Not the fleet's CA: that one's certificates are on each device, and none of them may make an image. X.509 and CMS,
because that is what RAUC verifies (https://rauc.readthedocs.io/en/latest/basic.html#security).
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge.files import make_folder, write_atomically
from edge.fleet.authority import Authority, create_authority


@dataclass(frozen=True, slots=True)
class ImageKeys:
    """Files, PEM: what images carry, and what signs."""

    keyring: Path
    certificate: Path
    key: Path


def image_keys(fleet_folder: Path, fleet: str, moment: datetime) -> ImageKeys:
    """Return the fleet's, made when there are none yet.

    Raises:
        StoreError: They cannot be written.
    """
    folder = fleet_folder / "images"
    keys = ImageKeys(folder / "ca.crt", folder / "signer.crt", folder / "signer.key")
    if all(path.exists() for path in (keys.keyring, keys.certificate, keys.key)):
        return keys
    make_folder(folder)
    authority = create_authority(f"{fleet} images", moment)
    signer = Authority(authority.certificate, authority.key).issue_image_signer(moment)
    write_atomically(folder / "ca.key", authority.key)
    write_atomically(keys.key, signer.key)
    write_atomically(keys.certificate, signer.certificate, 0o644)
    write_atomically(keys.keyring, authority.certificate, 0o644)
    return keys
