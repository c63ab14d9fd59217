"""Credentials where Podman keeps them: containers-auth.json(5)."""

import base64
import json
import os
from pathlib import Path

import pytest

from edge.errors import InvalidInputError
from edge.images.oci.auth import Credentials, credential_files, find_credentials


def write(path: Path, **secrets: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    auths = {key: {"auth": base64.b64encode(value.encode()).decode()} for key, value in secrets.items()}
    path.write_text(json.dumps({"auths": auths}))
    return path


def found(path: Path, name: str) -> str | None:
    credentials = find_credentials(name, {"REGISTRY_AUTH_FILE": str(path)})
    return None if credentials is None else f"{credentials.user}:{credentials.secret}"


def test_the_most_particular_entry_counts(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    entries = {"r.example": "host:1", "r.example/team": "team:2", "r.example/team/app": "app:3"}
    write(file, **entries)
    assert found(file, "r.example/team/app") == "app:3"
    assert found(file, "r.example/team/other") == "team:2"
    assert found(file, "r.example/teams/app") == "host:1"
    assert found(file, "other.example/team/app") is None


def test_a_port_is_part_of_the_registry(tmp_path: Path) -> None:
    file = write(tmp_path / "auth.json", **{"r.example:5000": "a:1"})
    assert found(file, "r.example:5000/app") == "a:1"
    assert found(file, "r.example/app") is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io"])
def test_docker_hub_is_found_under_the_names_docker_gives_it(tmp_path: Path, key: str) -> None:
    file = write(tmp_path / "auth.json", **{key: "me:1"})
    assert found(file, "docker.io/library/nginx") == "me:1"
    assert found(file, "registry-1.docker.io/library/nginx") == "me:1"


@pytest.mark.parametrize("key", ["https://r.example", "https://r.example/", "http://r.example/v1/"])
def test_an_address_that_docker_wrote_stands_for_its_host(tmp_path: Path, key: str) -> None:
    file = write(tmp_path / "auth.json", **{key: "me:1"})
    assert found(file, "r.example/app") == "me:1"


def test_a_password_may_have_colons(tmp_path: Path) -> None:
    assert found(write(tmp_path / "auth.json", **{"r.example": "me:a:b"}), "r.example/app") == "me:a:b"


def test_an_identity_token_is_found_beside_an_empty_password(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    file.write_text('{"auths": {"r.example": {"auth": "bWU6", "identitytoken": "refresh"}}}')
    credentials = find_credentials("r.example/app", {"REGISTRY_AUTH_FILE": str(file)})
    assert credentials == Credentials("me", "", "refresh")


@pytest.mark.parametrize("entry", ["{}", '{"auth": ""}', '{"auth": "Og=="}', '{"identitytoken": null}'])
def test_an_empty_entry_means_no_credentials(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "auth.json"
    file.write_text(f'{{"auths": {{"r.example": {entry}}}}}')
    assert found(file, "r.example/app") is None


def test_the_files_are_asked_in_podmans_order(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    places = credential_files(home)
    assert places == (
        tmp_path / "run/containers/auth.json",
        tmp_path / "home/.config/containers/auth.json",
        tmp_path / "home/.docker/config.json",
    )
    for number in (2, 1, 0):
        write(places[number], **{"r.example": f"me:{number}"})
        credentials = find_credentials("r.example/app", home)
        assert credentials is not None
        assert credentials.secret == str(number)


def test_a_later_file_counts_where_an_earlier_one_knows_nothing(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    first, _, last = credential_files(home)
    write(first, **{"other.example": "a:1"})
    write(last, **{"r.example": "b:2"})
    assert find_credentials("r.example/app", home) == Credentials("b", "2")


def test_a_service_without_a_session_looks_where_podman_login_of_root_writes() -> None:
    assert credential_files({"HOME": "/root"})[0] == Path(f"/run/containers/{os.getuid()}/auth.json")


def test_a_named_file_is_the_only_one(tmp_path: Path) -> None:
    environment = {"REGISTRY_AUTH_FILE": str(tmp_path / "named"), "HOME": str(tmp_path)}
    write(tmp_path / ".docker/config.json", **{"r.example": "a:1"})
    assert find_credentials("r.example/app", environment) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "\xff",
        "[" * 100_000,
        '{"auths": {"r.example": {"auth": "?"}}}',
        '{"auths": {"r.example": {"auth": 7}}}',
        '{"auths": {"r.example": {"auth": "/////w=="}}}',
        '{"auths": {"r.example": {"auth": "\xfc"}}}',
        '{"x": "' + "x" * (1 << 20) + '"}',
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "auth.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(InvalidInputError, match=str(file)):
        found(file, "r.example/app")


@pytest.mark.parametrize("text", ["[]", "{}", '{"auths": []}', '{"auths": {"r.example": "x"}}', '{"credHelpers": []}'])
def test_a_file_without_credentials_is_no_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "auth.json"
    file.write_text(text)
    assert found(file, "r.example/app") is None


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot read"):
        found(tmp_path, "r.example/app")


def test_a_credential_helper_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    file.write_text('{"credHelpers": {"r.example": "ecr-login"}}')
    with pytest.raises(InvalidInputError, match="credential helper") as told:
        found(file, "r.example/app")
    assert "podman login" in told.value.hint
    assert found(file, "other.example/app") is None


def test_a_file_of_dockers_whose_secrets_are_kept_elsewhere_is_told(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"auths": {"https://index.docker.io/v1/": {}, "r.example": {}}, "credsStore": "osxkeychain"}')
    for name in ("docker.io/library/nginx", "r.example/app"):
        with pytest.raises(InvalidInputError, match="credential helper"):
            found(file, name)
    assert found(file, "other.example/app") is None


def test_a_secret_is_not_in_what_is_printed_of_credentials() -> None:
    assert "hunter2" not in repr(Credentials("me", "hunter2", "hunter2"))
