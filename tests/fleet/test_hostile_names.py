"""A device's name is a topic level, a user name, a line of an access list and a file's name: 10^5 that want more.

A certificate named `d1/cmd` would write into the commands of `d1`. The oracle below knows the grammar without a regular
expression; the names are those that topics, access lists and certificates could be broken by, and random ones.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge.errors import EdgeError, InvalidInputError
from edge.fleet.authority import Authority, create_authority
from edge.fleet.broker_config import acl_file
from edge.fleet.folder import FleetFolder
from edge.model.enrollment import ActivationId, EnrollmentRequest
from edge.model.topics import ROOT, ActivationTopics, Topics, parse_device, parse_enrollment
from tests.cli.bench import NOW

MANY, SIGNED = 100_000, 1_500
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = (
    *("/", "+", "#", "$", "\0", "\n", "\r", "\t", " ", "-", ".", "..", "_", "%u", "%c", "'", '"', "\\", ":", ";"),
    *("d1/cmd", "d1/cmd/#", "+/desired", "$SYS", "$share/x", "operator", "_enroll", "pi-1", "user x", "pi-1\nuser op"),
    *(
        "\u0430",
        "\u00e9",
        "\u0661",
        "\uff41",
        "\u200b",
        "\u2028",
        "\ud7ff",
        "\U0001f600",
        "e\u0301",
        "K",
        "\u212a",
        "I",
        "\u0131",
    ),
    *("a", "z", "0", "9", "a" * 31, "0" * 33, "-" * 5),
)


def names(count: int) -> Iterator[str]:
    chance = random.Random(20261128)
    for _ in range(count):
        # A third is close to a good name, so that both answers come often.
        if chance.random() < 0.33:
            name = list("".join(chance.choices(LETTERS + "-", k=chance.randrange(1, 70))))
            if chance.random() < 0.5:
                name[chance.randrange(len(name))] = chance.choice(PIECES)
            yield "".join(name)
        else:
            yield "".join(chance.choices(PIECES, k=chance.randrange(4)))


def is_name(text: str) -> bool:
    return 1 <= len(text) <= 64 and set(text) <= set(LETTERS + "-") and text[0] != "-" != text[-1]


@pytest.fixture(scope="module")
def authority() -> Authority:
    made = create_authority("shop", NOW)
    return Authority(made.certificate, made.key)


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    # Unvalidated: who wants to break in does not use a library that helps.
    attribute = x509.NameAttribute(x509.NameOID.COMMON_NAME, name, _validate=False)
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([attribute])).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def refuses(error: type[Exception], act: object) -> bool:
    try:
        act()  # type: ignore[operator]
    except error:
        return True
    return False


def test_no_topic_is_built_from_what_is_no_name() -> None:
    good = 0
    for name in names(MANY):
        if is_name(name):
            good += 1
            assert Topics("shop", name).commands == f"{ROOT}/shop/{name}/cmd/+/+"
            assert parse_device(f"{ROOT}/shop/{name}/status") == (Topics("shop", name), "status")
        else:
            assert refuses(InvalidInputError, lambda name=name: Topics("shop", name)), name
            assert refuses(InvalidInputError, lambda name=name: Topics(name, "pi-1")), name
            assert refuses(InvalidInputError, lambda name=name: ActivationTopics(name, "0" * 16)), name
            found = parse_device(f"{ROOT}/shop/{name}/status")
            # A name of several levels is a branch of its first one, and not that of anybody else.
            assert found is None or (is_name(found[0].device) and name.startswith(f"{found[0].device}/")), name
            assert parse_enrollment(f"{ROOT}/{name}/_enroll/{'0' * 16}/req") is None
    assert MANY / 20 < good < MANY / 2


def test_nothing_but_a_name_gets_a_block_of_the_access_list() -> None:
    for name in names(MANY // 5):
        if is_name(name) and name != "operator":
            assert f"\nuser {name}\ntopic read {ROOT}/shop/{name}/desired\n" in acl_file([("shop", name)])
        else:
            assert refuses(InvalidInputError, lambda name=name: acl_file([("shop", name)])), name
            assert refuses(EdgeError, lambda name=name: acl_file([], [ActivationId.parse(f"{name}.{'0' * 16}")])) or (
                name == "operator"
            ), name


def test_no_certificate_is_signed_for_what_is_no_name(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    honest = request(key, "pi-1")
    for name in names(MANY):
        if is_name(name):
            continue
        assert refuses(InvalidInputError, lambda name=name: authority.sign_device("shop", name, honest, NOW)), name
        assert refuses(
            ValueError, lambda name=name: EnrollmentRequest(activation="", device=name, nonce="ab" * 16, request="")
        ), name


@pytest.mark.filterwarnings("ignore:Attribute's length must be")
def test_a_request_that_names_another_is_not_signed(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    signed = 0
    for name in names(SIGNED):
        try:
            hostile = request(key, name)
        except ValueError:
            continue  # not even the library's encoder takes it
        for device in {"pi-1", name.split("/", maxsplit=1)[0], name.strip(), name.lower()} - {name}:
            assert refuses(InvalidInputError, lambda h=hostile, d=device: authority.sign_device("shop", d, h, NOW)), (
                name
            )
        if is_name(name):
            signed += 1
            made = authority.sign_device("shop", name, hostile, NOW)
            subject = x509.load_pem_x509_certificate(made.certificate).subject
            assert [one.value for one in subject] == [name, "shop"]
    assert signed > SIGNED / 20


def test_the_name_of_a_folder_is_a_name(tmp_path: Path) -> None:
    folder = FleetFolder(tmp_path)
    for name in names(MANY // 10):
        if not is_name(name):
            assert refuses(InvalidInputError, lambda name=name: folder.device("shop", name)), name
