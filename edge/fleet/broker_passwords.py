"""Mosquitto's password file, for the activations: everybody else has a certificate.

A line is `user:$7$iterations$salt$hash`: PBKDF2 with HMAC-SHA512, a salt of 12 bytes, a hash of 64, both in base64; as
`mosquitto_passwd` writes it since 2.0 (https://mosquitto.org/man/mosquitto_passwd-1.html; format by
src/password_mosq.c of Mosquitto 2.0.11, which takes no other length).
"""

import base64
import hashlib
import secrets
from collections.abc import Iterable
from typing import Final

_ITERATIONS: Final = 101
"""Mosquitto's own number. More would cost the broker time at each connection and gain nothing: our passwords are
256 bits that nobody chose."""
_SALT_BYTES: Final = 12


def password_hash(password: str) -> str:
    """Return what Mosquitto keeps of a password; another one each time."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def password_file(users: Iterable[tuple[str, str]]) -> str:
    """Return the file's text for pairs of user and hash. Without any, nobody has a password."""
    return "".join(f"{user}:{digest}\n" for user, digest in users)
