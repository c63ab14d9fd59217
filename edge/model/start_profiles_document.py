"""The `profiles` document: what a device's images read when they start, in the size of an MQTT document."""

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from edge.errors import InvalidInputError
from edge.model.start_profile import MAX_PROFILE_BYTES, StartProfile, read_profile

MOST_TOLD: Final = 64
_LEVEL: Final = 9


def encode_profiles(profiles: Iterable[StartProfile], most: int) -> bytes:
    """Return the document, of at most `most` bytes: the profiles that come first, as many as fit."""
    told: list[dict[str, Any]] = []
    for profile in profiles:
        data = base64.b64encode(zlib.compress(profile.encode(), _LEVEL)).decode()
        one = {"image": profile.image, "imageId": profile.image_id, "platform": profile.platform, "data": data}
        if len(told) >= MOST_TOLD or len(_encode([*told, one])) > most:
            break
        told.append(one)
    return _encode(told)


def _encode(told: list[dict[str, Any]]) -> bytes:
    return json.dumps({"schemaVersion": 1, "profiles": told}, separators=(",", ":")).encode()


def decode_profiles(document: Mapping[str, Any]) -> tuple[StartProfile, ...]:
    """Return the document's profiles; one that cannot be read is left out, since a device may say anything.

    Raises:
        InvalidInputError: It is no such document.
    """
    told = document.get("profiles")
    if document.get("schemaVersion") != 1 or not isinstance(told, list):
        raise InvalidInputError("it is no document of start profiles")
    return tuple(found for one in told[:MOST_TOLD] if (found := _decode(one)) is not None)


def _decode(told: object) -> StartProfile | None:
    data = told.get("data") if isinstance(told, Mapping) else None
    if not isinstance(data, str):
        return None
    try:
        unpacker = zlib.decompressobj()
        found = unpacker.decompress(base64.b64decode(data, validate=True), MAX_PROFILE_BYTES + 1)
        return read_profile(found)
    except (binascii.Error, ValueError, zlib.error, InvalidInputError):
        return None
