"""Fleet secrets: how they are named, and what a device is given of one.

A container definition names a secret where ECS has it (`secrets[].valueFrom`); its value travels in the desired state,
sealed to the one device (`edge.model.sealing`), and becomes an environment variable when the container starts.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from edge.errors import InvalidInputError
from edge.model.document import Document

NAME_OF_A_SECRET: Final = r"^[A-Za-z0-9_.-]{1,128}(?:/[A-Za-z0-9_.-]{1,128}){0,7}$"  # noqa: S105 - a pattern
"""`db-password`, `shop/db/password`."""
SECRET_ARN: Final = "arn:edge:secrets:::secret/"  # noqa: S105 - the beginning of a name
VARIABLE_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,254}$"
MAXIMUM_VALUE: Final = 16 * 1024
"""Bytes of a value: a certificate with its key fits; a desired state has 256 KiB for all it holds."""
MAXIMUM_SECRETS: Final = 256
"""Secrets of one device."""

SecretName = Annotated[str, StringConstraints(pattern=NAME_OF_A_SECRET)]
_NAME = re.compile(NAME_OF_A_SECRET)


class DesiredSecret(Document):
    """One secret as a device is given it.

    Attributes:
        version: Rises with every new value; at least 1.
        sealed: Base64 of what `edge.model.sealing.seal_secret` made.
    """

    name: SecretName
    version: Annotated[int, Field(ge=1, lt=2**53, strict=True)]
    sealed: Annotated[str, Field(max_length=2 * MAXIMUM_VALUE, pattern=r"^[A-Za-z0-9+/]+={0,2}$")]


def check_secret_name(name: str) -> str:
    """Return `name` if a secret can be called so.

    Raises:
        InvalidInputError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"{name[:80]!r} is not a name of a secret",
            hint="Use letters, digits, '_', '.' and '-', in up to 8 parts between '/'.",
        )
    return name


def secret_named(value_from: str) -> str | None:
    """Return the name of the secret that a `valueFrom` means; None when it means none of a fleet.

    >>> secret_named("db-password"), secret_named("arn:edge:secrets:::secret/shop/db"), secret_named("arn:aws:ssm:x")
    ('db-password', 'shop/db', None)
    """
    name = value_from.removeprefix(SECRET_ARN)
    return name if _NAME.fullmatch(name) else None


def secrets_of(definition: Mapping[str, Any], container: str = "") -> dict[str, str]:
    """Return the secrets that a task definition (as it is on the wire) names: `container/VARIABLE` -> secret's name.

    Args:
        definition: Judged before, so that each `valueFrom` is good.
        container: Only those of this container.
    """
    return {
        f"{one.get('name', '')}/{secret['name']}": secret_named(secret["valueFrom"]) or ""
        for one in definition.get("containerDefinitions", ())
        if container in ("", one.get("name"))
        for secret in one.get("secrets", ())
    }


def associated_data(cluster: str, device: str, name: str, version: int) -> bytes:
    """Return what a sealed value is bound to: in another's place, or as an older version, it does not open.

    None of the parts can hold a `|`.
    """
    return f"edge secret v1|{cluster}|{device}|{name}|{version}".encode()


def key_statement(cluster: str, device: str, public_key: bytes) -> bytes:
    """Return what a device signs with its certificate's key, to say that this X25519 key is its own."""
    return f"edge secrets key v1|{cluster}|{device}|{public_key.hex()}".encode()
