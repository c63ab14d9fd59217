"""A sealed value opens on one device, under one name, in one version, and unchanged; else not at all."""

import pytest

from edge.errors import InvalidInputError, TrustError
from edge.model.sealing import new_private_key, open_secret, public_key_of, seal_secret
from edge.model.secrets import associated_data, check_secret_name, secret_named

KEY = new_private_key()
BOUND = associated_data("shop", "pi-1", "db", 2)
VALUE = b"correct horse"


def sealed() -> bytes:
    return seal_secret(public_key_of(KEY), VALUE, BOUND)


def test_what_was_sealed_opens_and_no_two_are_alike() -> None:
    first, second = sealed(), sealed()
    assert open_secret(KEY, first, BOUND) == open_secret(KEY, second, BOUND) == VALUE
    assert first != second
    assert VALUE not in first


@pytest.mark.parametrize(
    "other",
    [
        associated_data("shop", "pi-1", "db", 1),
        associated_data("shop", "pi-1", "db", 3),
        associated_data("shop", "pi-1", "other", 2),
        associated_data("shop", "pi-2", "db", 2),
        associated_data("bar", "pi-1", "db", 2),
    ],
)
def test_in_another_s_place_it_does_not_open(other: bytes) -> None:
    with pytest.raises(TrustError):
        open_secret(KEY, sealed(), other)


def test_on_another_device_it_does_not_open() -> None:
    with pytest.raises(TrustError):
        open_secret(new_private_key(), sealed(), BOUND)


def test_no_changed_byte_and_no_shorter_text_opens() -> None:
    good = sealed()
    for index in range(len(good)):
        with pytest.raises(TrustError):
            open_secret(KEY, good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :], BOUND)
        with pytest.raises(TrustError):
            open_secret(KEY, good[:index], BOUND)


def test_a_point_of_small_order_is_no_key_to_seal_for() -> None:
    with pytest.raises(TrustError):
        seal_secret(bytes(32), VALUE, BOUND)


@pytest.mark.parametrize("name", ["db", "shop/db/password", "A.b_c-1", "x" * 128])
def test_names(name: str) -> None:
    assert check_secret_name(name) == secret_named(name) == secret_named(f"arn:edge:secrets:::secret/{name}")


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "a|b", "a b", "x" * 129, "arn:aws:ssm:eu:1:parameter/x", "a\n"]
)
def test_what_is_no_name(name: str) -> None:
    assert secret_named(name) is None
    with pytest.raises(InvalidInputError):
        check_secret_name(name)
