"""Image references, as Podman reads them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InvalidInputError
from edge.images.oci.references import ImageReference, parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("ghcr.io/a/b:1", ImageReference("ghcr.io", "a/b", "1")),
        ("ghcr.io/a/b", ImageReference("ghcr.io", "a/b", "latest")),
        (f"ghcr.io/a/b@{DIGEST}", ImageReference("ghcr.io", "a/b", "", DIGEST)),
        (f"ghcr.io/a/b:1@{DIGEST}", ImageReference("ghcr.io", "a/b", "1", DIGEST)),
        ("localhost/a:1", ImageReference("localhost", "a", "1")),
        ("localhost:5000/a", ImageReference("localhost:5000", "a", "latest")),
        ("[::1]:5000/a", ImageReference("[::1]:5000", "a", "latest")),
        ("registry:5000/a__b/c-d/e.f:v1.2_3-4", ImageReference("registry:5000", "a__b/c-d/e.f", "v1.2_3-4")),
        ("docker.io/library/nginx:1", ImageReference("docker.io", "library/nginx", "1")),
        ("docker.io/nginx:1", ImageReference("docker.io", "library/nginx", "1")),
        ("index.docker.io/me/nginx:1", ImageReference("docker.io", "me/nginx", "1")),
        ("r.example/a:" + "t" * 128, ImageReference("r.example", "a", "t" * 128)),
    ],
)
def test_a_reference_is_taken_apart(text: str, reference: ImageReference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize("text", ["ghcr.io/a/b:1", f"ghcr.io/a/b@{DIGEST}", f"localhost:5000/a:1@{DIGEST}"])
def test_a_reference_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_reference(text)) == text


@pytest.mark.parametrize("text", ["", "nginx", "nginx:1", "library/nginx", f"nginx@{DIGEST}", "/a:1"])
def test_a_name_without_a_registry_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(InvalidInputError, match="names no registry") as told:
        parse_reference(text)
    assert "in full" in told.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "r.example/",
        "r.example/A",
        "r.example/a//b",
        "r.example/a/../b",
        "r.example/-a",
        "r.example/a___b",
        "r.example/a:",
        "r.example/a:.1",
        "r.example/a:" + "t" * 129,
        "r.example/a:1:2",
        "r.example/a@",
        "r.example/a@sha256:" + "a" * 63,
        "r.example/a@sha256:" + "A" * 64,
        "r.example/a@sha512:" + "a" * 128,
        f"r.example/a@{DIGEST}@{DIGEST}",
        "r.example:123456/a",
        "r.example/a:1\n",
        "r.example/a?b",
        "r.example/" + "a" * 300,
        "user@r.example/a",
        "https://r.example/a",
        "r.exämple/a",
        "r.example/a:ü",
        "../r.example/a",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_reference(text)


def test_a_digest_is_asked_for_rather_than_a_tag() -> None:
    assert parse_reference(f"r.example/a:1@{DIGEST}").wanted == DIGEST
    assert parse_reference("r.example/a:1").wanted == "1"
    assert parse_reference("r.example/a:1").at(DIGEST) == ImageReference("r.example", "a", "", DIGEST)


@given(st.text(alphabet=st.sampled_from("aA1.:/@_-[]%\n ä") | st.characters(), max_size=60))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidInputError):
        assert parse_reference(str(parse_reference(text))) == parse_reference(text)
