"""Whose images run: which rule counts, and every way in which a signature is not one."""

import base64
import hashlib
import json
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InvalidInputError, TrustError
from edge.model.image_trust.evidence import MAXIMUM_SIGNATURES, Evidence, FoundSignature, read_evidence
from edge.model.image_trust.keys import raw_key_pem, read_key
from edge.model.image_trust.policy import ImagePolicy, ImageRule, Requirement, repository_of
from edge.model.image_trust.verify import prove
from tests.model.image_signers import IDENTITY, ISSUER, SIGNED_AT, Fulcio, ImageSigner, Log

APP: Final = "registry.example/shop/app"
CONFIGURATION: Final = "c" * 64
MANIFEST: Final = json.dumps({"schemaVersion": 2, "config": {"digest": f"sha256:{CONFIGURATION}"}}).encode()
DIGEST: Final = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
OTHER: Final = f"sha256:{'e' * 64}"


def evidence(*signatures: FoundSignature, index: bytes = b"", left_out: int = 0) -> Evidence:
    return Evidence(index, MANIFEST, signatures, left_out)


def refusal(found: Evidence, rule: ImageRule, image: str = f"{APP}:1") -> str:
    with pytest.raises(TrustError) as caught:
        prove(found, rule, (), image)
    return str(caught.value)


# --- which rule counts


RULES: Final = ImagePolicy(
    (
        ImageRule("*", Requirement.DIGEST),
        ImageRule("registry.example", Requirement.SIGNATURE),
        ImageRule("registry.example/shop/app", Requirement.ANYTHING),
        ImageRule("Docker.io", Requirement.DIGEST_AND_SIGNATURE),
    )
)


@pytest.mark.parametrize(
    ("image", "scope"),
    [
        ("elsewhere.example/app:1", "*"),
        ("registry.example/other:1", "registry.example"),
        ("registry.example.evil/other:1", "*"),
        ("registry.example:5000/other", "*"),
        ("registry.example/shop/app@sha256:" + "0" * 64, "registry.example/shop/app"),
        ("registry.example/shop/app-2", "registry.example"),
        ("registry.example/shop/app/more", "registry.example/shop/app"),
        ("registry.example/shop/x/../app", "registry.example/shop/app"),
        ("REGISTRY.example/other", "registry.example"),
        ("registry.example:443/other:1", "registry.example"),
        ("registry.example:80/other:1", "registry.example"),
        ("index.docker.io/library/alpine", "Docker.io"),
        ("registry-1.docker.io/library/alpine", "Docker.io"),
        ("docker.io/alpine:3", "Docker.io"),
    ],
)
def test_the_most_specific_scope_counts_however_the_image_is_written(image: str, scope: str) -> None:
    assert RULES.rule_for(image).scope == scope


def test_without_a_rule_anything_runs() -> None:
    assert ImagePolicy().problem("alpine") == ""
    assert not ImagePolicy().rule_for("alpine").wants_signature


@pytest.mark.parametrize("image", ["alpine", "library/alpine:3", "fedora@sha256:" + "0" * 64])
def test_with_a_rule_a_short_name_is_refused_because_podman_may_make_anything_of_it(image: str) -> None:
    assert "names no registry" in RULES.problem(image)


@pytest.mark.parametrize("image", ["elsewhere.example/app:1", "elsewhere.example/app", "docker.io/a/b@sha256:12"])
def test_a_tag_is_refused_where_a_digest_is_required(image: str) -> None:
    assert "without a digest" in RULES.problem(image)
    assert RULES.problem(f"{image.partition('@')[0]}@sha256:{'0' * 64}") == ""


def test_one_repository_has_one_text() -> None:
    assert repository_of("Index.Docker.io:443/alpine:3") == "docker.io/library/alpine"
    assert repository_of("alpine") == "docker.io/library/alpine"


# --- a key's signature


SIGNER: Final = ImageSigner()
LOG: Final = Log()
FULCIO: Final = Fulcio()


def test_a_signed_image_is_proven_with_its_digest_and_its_id() -> None:
    proven = prove(evidence(SIGNER.sign(DIGEST, APP)), SIGNER.rule(), (), f"{APP}:1")
    assert (proven.digest, proven.image_id) == (DIGEST, CONFIGURATION)
    assert proven.signer == f"key {hashlib.sha256(SIGNER.der).hexdigest()[:12]}"


def test_who_signed_the_index_signed_the_images_it_lists() -> None:
    index = json.dumps({"manifests": [{"digest": OTHER}, {"digest": DIGEST}]}).encode()
    signed = SIGNER.sign(f"sha256:{hashlib.sha256(index).hexdigest()}", APP)
    assert prove(evidence(signed, index=index), SIGNER.rule(), (), APP).digest == DIGEST


def test_an_index_that_does_not_list_the_image_proves_nothing_of_it() -> None:
    index = json.dumps({"manifests": [{"digest": OTHER}]}).encode()
    signed = SIGNER.sign(f"sha256:{hashlib.sha256(index).hexdigest()}", APP)
    assert "signs another image" in refusal(evidence(signed, index=index), SIGNER.rule())


def test_a_good_signature_among_bad_ones_is_found() -> None:
    bad = (ImageSigner().sign(DIGEST, APP), SIGNER.sign(OTHER, APP), FoundSignature(b"{", b""))
    assert prove(evidence(*bad, SIGNER.sign(DIGEST, APP)), SIGNER.rule(), (), APP).digest == DIGEST


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        (ImageSigner().sign(DIGEST, APP), "none of the keys that count here signed it"),
        (SIGNER.sign(OTHER, APP), "it signs another image"),
        (SIGNER.sign(DIGEST, "registry.example/shop/other"), "not of registry.example/shop/app"),
        (SIGNER.sign(DIGEST, "elsewhere.example/shop/app"), "not of registry.example/shop/app"),
        (SIGNER.sign(DIGEST, APP, type="atomic container signature"), "something that is no image"),
        (SIGNER.sign(DIGEST, APP, image={"docker-manifest-digest": [DIGEST]}), "it signs another image"),
        (SIGNER.sign(DIGEST, APP, identity={"docker-reference": {}}), "not of registry.example/shop/app"),
        (SIGNER.sign(DIGEST, APP, image="x"), "something that is no image"),
        (FoundSignature(b"[]", SIGNER.sign_bytes(b"[]")), "something that is no image"),
        (FoundSignature(b"[" * 30_000, b""), "not JSON"),
        (replace(SIGNER.sign(DIGEST, APP), signature=b""), "none of the keys"),
    ],
)
def test_a_signature_that_is_none_is_refused(signature: FoundSignature, why: str) -> None:
    assert why in refusal(evidence(signature), SIGNER.rule())


def test_an_image_without_a_signature_is_refused() -> None:
    assert refusal(evidence(), SIGNER.rule()) == "it has no signature"


def test_a_member_twice_is_refused_because_two_readers_could_see_two_images() -> None:
    text = SIGNER.sign(DIGEST, APP).payload.replace(b'"optional"', b'"critical": {}, "optional"')
    assert "not JSON" in refusal(evidence(FoundSignature(text, SIGNER.sign_bytes(text))), SIGNER.rule())


def test_no_single_byte_of_a_signature_may_change() -> None:
    good = SIGNER.sign(DIGEST, APP)
    for name in ("payload", "signature"):
        whole: bytes = getattr(good, name)
        for at in range(len(whole)):
            changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            refusal(evidence(replace(good, **{name: changed})), SIGNER.rule())


def test_keys_of_the_fleet_count_where_the_rule_says_so() -> None:
    found = evidence(SIGNER.sign(DIGEST, APP))
    fleet = (raw_key_pem(SIGNER.point),)
    rule = ImageRule("*", Requirement.SIGNATURE, keys=(ImageSigner().pem,), fleet_keys=True)
    assert prove(found, rule, fleet, APP).image_id == CONFIGURATION
    with pytest.raises(TrustError, match="none of the keys"):
        prove(found, replace(rule, fleet_keys=False), fleet, APP)


def test_ed25519_and_rsa_keys_sign_too() -> None:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415

    text = SIGNER.sign(DIGEST, APP).payload
    edwards = ed25519.Ed25519PrivateKey.generate()
    big = rsa.generate_private_key(65537, 2048)
    for key, signature in (
        (edwards.public_key(), edwards.sign(text)),
        (big.public_key(), big.sign(text, padding.PKCS1v15(), hashes.SHA256())),
    ):
        rule = ImageRule(
            "*", Requirement.SIGNATURE, keys=(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),)
        )
        assert prove(evidence(FoundSignature(text, signature)), rule, (), APP).digest == DIGEST


def test_a_short_rsa_key_signs_nothing() -> None:
    small = rsa.generate_private_key(65537, 1024).public_key()
    with pytest.raises(InvalidInputError, match="2048"):
        read_key(small.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


# --- the log


def logged() -> FoundSignature:
    return LOG.promise(SIGNER.sign(DIGEST, APP), SIGNER.pem)


def test_a_logged_signature_counts_where_a_log_is_demanded() -> None:
    assert prove(evidence(logged()), SIGNER.rule(log_keys=(LOG.key.pem,)), (), APP).digest == DIGEST


def swapped(**parts: Any) -> FoundSignature:
    """A signature with the log entry of another one."""
    other = SIGNER.sign(DIGEST, APP)
    return replace(SIGNER.sign(DIGEST, APP), log_entry=LOG.promise(replace(other, **parts), SIGNER.pem).log_entry)


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        (SIGNER.sign(DIGEST, APP), "no transparency log entry"),
        (Log().promise(SIGNER.sign(DIGEST, APP), SIGNER.pem), "no transparency log that counts"),
        (swapped(), "about another signature"),
        (swapped(payload=b"{}"), "about another payload"),
        (LOG.promise(SIGNER.sign(DIGEST, APP), ImageSigner().pem), "about another signer"),
        (LOG.promise(SIGNER.sign(DIGEST, APP), b"no key"), "a key that cannot be read"),
        (LOG.promise(SIGNER.sign(DIGEST, APP), SIGNER.pem, kind="intoto"), "no kind that is known"),
        (LOG.promise(SIGNER.sign(DIGEST, APP), SIGNER.pem, spec={}), "no kind that is known"),
    ],
)
def test_a_log_entry_for_something_else_is_none(signature: FoundSignature, why: str) -> None:
    assert why in refusal(evidence(signature), SIGNER.rule(log_keys=(LOG.key.pem,)))


def test_a_log_entry_with_another_time_is_none() -> None:
    bundle = json.loads(logged().log_entry)
    bundle["Payload"]["integratedTime"] += 1
    changed = replace(logged(), log_entry=json.dumps(bundle).encode())
    assert "has promised" in refusal(evidence(changed), SIGNER.rule(log_keys=(LOG.key.pem,)))


# --- keyless


def test_a_keyless_signature_counts_though_its_certificate_is_long_over() -> None:
    proven = prove(evidence(FULCIO.sign(DIGEST, APP, LOG)), FULCIO.rule(LOG), (), APP)
    assert proven.signer == IDENTITY


@pytest.mark.parametrize(
    ("signature", "rule", "why"),
    [
        (FULCIO.sign(DIGEST, APP, LOG), FULCIO.rule(LOG, identity="boss@example.com"), f"signed by {IDENTITY}, not by"),
        (FULCIO.sign(DIGEST, APP, LOG), FULCIO.rule(LOG, issuer="https://evil.example"), f"{ISSUER} vouched for"),
        (FULCIO.sign(DIGEST, APP, LOG), FULCIO.rule(Log()), "no transparency log that counts"),
        (Fulcio().sign(DIGEST, APP, LOG), FULCIO.rule(LOG), "no authority that counts here"),
        (FULCIO.sign(OTHER, APP, LOG), FULCIO.rule(LOG), "it signs another image"),
        (
            FULCIO.sign(DIGEST, APP, LOG, at=SIGNED_AT + timedelta(minutes=11)),
            FULCIO.rule(LOG),
            "vouched for its certificate at 2023-05-04 12:11",
        ),
        (FULCIO.sign(DIGEST, APP, LOG, at=SIGNED_AT - timedelta(minutes=1)), FULCIO.rule(LOG), "vouched for its cert"),
        (
            FULCIO.sign(DIGEST, APP, LOG, usage=ExtendedKeyUsageOID.CLIENT_AUTH),
            FULCIO.rule(LOG),
            "not for signing code",
        ),
        (
            FULCIO.sign(DIGEST, APP, LOG, more_names=(x509.DNSName("example.com"),)),
            FULCIO.rule(LOG),
            "it was signed by",
        ),
        (LOG.promise(SIGNER.sign(DIGEST, APP), SIGNER.pem), FULCIO.rule(LOG), "a bare key, and a certificate is due"),
        (replace(FULCIO.sign(DIGEST, APP, LOG), chain=b""), FULCIO.rule(LOG), "no authority that counts here"),
        (replace(FULCIO.sign(DIGEST, APP, LOG), log_entry=b""), FULCIO.rule(LOG), "no transparency log entry"),
    ],
)
def test_a_keyless_signature_that_is_none_is_refused(signature: FoundSignature, rule: ImageRule, why: str) -> None:
    assert why in refusal(evidence(signature), rule)


def test_a_bare_key_in_the_log_never_stands_for_the_certificate() -> None:
    signer = ImageSigner()
    found = replace(
        signer.sign(DIGEST, APP),
        certificate=FULCIO.certificate(signer),
        chain=FULCIO.between.public_bytes(Encoding.PEM),
    )
    assert "about another signer" in refusal(evidence(LOG.promise(found, signer.pem)), FULCIO.rule(LOG))


def test_who_holds_a_certificate_of_the_authority_cannot_give_out_others() -> None:
    """The thief's own certificate, made by a signer that the authority vouched for."""
    signer = ImageSigner()
    vouched = x509.load_pem_x509_certificate(FULCIO.certificate(signer, identity="thief@example.com"))
    thief = Fulcio(between_key=signer.private)
    forged = thief.sign(DIGEST, APP, LOG)
    chain = vouched.public_bytes(Encoding.PEM) + FULCIO.between.public_bytes(Encoding.PEM)
    assert "no authority that counts here" in refusal(evidence(replace(forged, chain=chain)), FULCIO.rule(LOG))


def test_a_keyless_rule_takes_no_key() -> None:
    rule = replace(FULCIO.rule(LOG), keys=(SIGNER.pem,))
    assert "a certificate is due" in refusal(evidence(logged()), rule)


# --- bounds


def test_a_flood_of_signatures_is_over_in_a_moment() -> None:
    flood = [FULCIO.sign(DIGEST, APP, LOG)] * MAXIMUM_SIGNATURES
    started = time.process_time()
    words = refusal(evidence(*flood, left_out=100_000), FULCIO.rule(LOG, identity="boss@example.com"))
    assert time.process_time() - started < 2.0
    assert words.startswith("64 signatures, none that counts")
    assert "100000 more" in words


def test_evidence_comes_back_as_it_was_kept() -> None:
    found = evidence(FULCIO.sign(DIGEST, APP, LOG), logged(), index=b"{}", left_out=3)
    assert read_evidence(found.to_bytes()) == found


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schemaVersion": 2}, "another version"),
        ({"signatures": [{}] * 65}, "up to 64"),
        ({"signatures": [1]}, "not an object"),
        ({"signatures": [{"payload": "!"}]}, "not base64"),
        ({"signatures": [{"payload": base64.b64encode(bytes(65_537)).decode()}]}, "more than 65536"),
        ({"manifest": base64.b64encode(bytes(4_194_305)).decode()}, "more than 4194304"),
    ],
)
def test_evidence_that_is_too_much_or_none_is_refused(change: dict[str, Any], why: str) -> None:
    document = json.loads(evidence().to_bytes()) | change
    with pytest.raises(TrustError, match=why):
        read_evidence(json.dumps(document).encode())


@given(st.binary(max_size=200))
def test_any_bytes_as_a_log_entry_or_a_certificate_are_refused(data: bytes) -> None:
    good = FULCIO.sign(DIGEST, APP, LOG)
    for name in ("log_entry", "certificate"):
        refusal(evidence(replace(good, **{name: data})), FULCIO.rule(LOG))
