"""Which servers an image comes from: containers-registries.conf(5) and containers-certs.d(5)."""

from pathlib import Path

import pytest

from edge.errors import InvalidInputError, RefusedError
from edge.images.oci.references import parse_reference
from edge.images.oci.registries import Endpoint, Registries

DIGEST = "sha256:" + "ab" * 32


def registries(folder: Path, *texts: str) -> Registries:
    paths = []
    for number, text in enumerate(texts):
        paths.append(folder / f"{number}.conf")
        paths[-1].write_text(text)
    return Registries(tuple(paths))


def asked(found: Registries, reference: str) -> list[str]:
    return [f"{one.server}/{one.repository}" for one in found.endpoints(parse_reference(reference))]


def test_a_registry_nobody_configured_is_asked_itself_with_tls(tmp_path: Path) -> None:
    assert registries(tmp_path).endpoints(parse_reference("r.example/a/b:1")) == (
        Endpoint("r.example", "a/b", insecure=False),
    )


def test_docker_hub_is_asked_at_its_server(tmp_path: Path) -> None:
    assert asked(registries(tmp_path), "docker.io/nginx") == ["registry-1.docker.io/library/nginx"]


def test_mirrors_are_asked_in_order_and_then_the_registry(tmp_path: Path) -> None:
    text = """
        [[registry]]
        location = "r.example"
        [[registry.mirror]]
        location = "first.example:5000/cache"
        insecure = true
        [[registry.mirror]]
        location = "second.example"
    """
    assert registries(tmp_path, text).endpoints(parse_reference("r.example/a:1")) == (
        Endpoint("first.example:5000", "cache/a", insecure=True),
        Endpoint("second.example", "a", insecure=False),
        Endpoint("r.example", "a", insecure=False),
    )


def test_insecure_is_only_what_is_said_to_be(tmp_path: Path) -> None:
    found = registries(tmp_path, '[[registry]]\nlocation = "r.example/lab"\ninsecure = true\n')
    for reference, insecure in (
        ("r.example/lab/a", True),
        ("r.example/laboratory/a", False),
        ("r.example/a", False),
        ("r.example:5000/lab/a", False),
        ("evil.r.example/lab/a", False),
    ):
        assert [one.insecure for one in found.endpoints(parse_reference(reference))] == [insecure], reference


def test_a_prefix_is_replaced_by_the_location(tmp_path: Path) -> None:
    found = registries(tmp_path, '[[registry]]\nprefix = "r.example/old"\nlocation = "new.example/at/home"\n')
    assert asked(found, "r.example/old/a:1") == ["new.example/at/home/a"]
    assert asked(found, "r.example/older/a:1") == ["r.example/older/a"]


def test_the_longest_prefix_counts(tmp_path: Path) -> None:
    prefixes = {"r.example": "one.example", "r.example/a": "two.example", "r.example/a/b": "three.example/x"}
    found = registries(
        tmp_path, "\n".join(f'[[registry]]\nprefix = "{one}"\nlocation = "{two}"' for one, two in prefixes.items())
    )
    assert asked(found, "r.example/a/b:1") == ["three.example/x"]
    assert asked(found, "r.example/a/c:1") == ["two.example/c"]
    assert asked(found, "r.example/c:1") == ["one.example/c"]


def test_a_prefix_may_name_one_tag(tmp_path: Path) -> None:
    found = registries(tmp_path, '[[registry]]\nprefix = "r.example/a:1"\nlocation = "s.example/b"\n')
    assert asked(found, "r.example/a:1") == ["s.example/b"]
    assert asked(found, "r.example/a:12") == ["r.example/a"]


def test_a_wildcard_stands_for_the_hosts_below_it(tmp_path: Path) -> None:
    found = registries(tmp_path, '[[registry]]\nprefix = "*.r.example"\ninsecure = true\n')
    for reference, insecure in (("a.r.example/x", True), ("a.b.r.example:5000/x", True), ("r.example/x", False)):
        assert [one.insecure for one in found.endpoints(parse_reference(reference))] == [insecure], reference
    assert asked(found, "a.r.example/x") == ["a.r.example/x"]


def test_a_wildcards_mirror_has_the_same_repositories(tmp_path: Path) -> None:
    text = '[[registry]]\nprefix = "*.r.example"\n[[registry.mirror]]\nlocation = "m.example/cache"\n'
    assert asked(registries(tmp_path, text), "a.r.example/x/y") == ["m.example/cache/x/y", "a.r.example/x/y"]


def test_a_blocked_registry_is_refused(tmp_path: Path) -> None:
    found = registries(tmp_path, '[[registry]]\nlocation = "r.example"\nblocked = true\n')
    with pytest.raises(RefusedError, match=r"r\.example is blocked"):
        found.endpoints(parse_reference("r.example/a"))


@pytest.mark.parametrize(
    ("line", "by_tag", "by_digest"),
    [
        ("", True, True),
        ('pull-from-mirror = "digest-only"', False, True),
        ('pull-from-mirror = "tag-only"', True, False),
        ('pull-from-mirror = "all"', True, True),
    ],
)
def test_a_mirror_may_serve_digests_or_tags_alone(tmp_path: Path, line: str, *, by_tag: bool, by_digest: bool) -> None:
    found = registries(
        tmp_path, f'[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "m.example"\n{line}\n'
    )
    assert ("m.example/a" in asked(found, "r.example/a:1")) is by_tag
    assert ("m.example/a" in asked(found, f"r.example/a@{DIGEST}")) is by_digest


def test_all_mirrors_may_be_for_digests_alone(tmp_path: Path) -> None:
    text = '[[registry]]\nlocation = "r.example"\nmirror-by-digest-only = true\n'
    found = registries(tmp_path, text + '[[registry.mirror]]\nlocation = "m.example"\n')
    assert asked(found, "r.example/a:1") == ["r.example/a"]
    assert asked(found, f"r.example/a@{DIGEST}") == ["m.example/a", "r.example/a"]


def test_a_later_file_replaces_what_an_earlier_one_says_of_a_prefix(tmp_path: Path) -> None:
    first = "".join(f'[[registry]]\nlocation = "{one}.example"\ninsecure = true\n' for one in "rs")
    found = registries(tmp_path, first, '[[registry]]\nlocation = "r.example"\n')
    assert [one.insecure for one in found.endpoints(parse_reference("r.example/a"))] == [False]
    assert [one.insecure for one in found.endpoints(parse_reference("s.example/a"))] == [True]


def test_a_missing_file_is_nothing(tmp_path: Path) -> None:
    assert asked(Registries((tmp_path / "missing",)), "r.example/a") == ["r.example/a"]


@pytest.mark.parametrize(
    "text",
    [
        "no TOML",
        "\xff",
        'registry = "r.example"',
        "[registry]\na = 1",
        "registry = [1]",
        "[[registry]]\nlocation = 7",
        '[[registry]]\nlocation = "r.example"\ninsecure = "false"',
        '[[registry]]\nlocation = "r.example"\nblocked = 1',
        '[[registry]]\nlocation = "r.example"\nmirror = "m.example"',
        '[[registry]]\nlocation = "r.example"\nmirror = [7]',
        '[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\ninsecure = true',
        '[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "m.example"\ninsecure = "no"',
        '[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "never"',
        '[[registry]]\nlocation = "https://r.example"',
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "registries.conf"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(InvalidInputError, match=str(file)):
        Registries((file,))


def test_a_file_of_the_format_before_this_one_is_told(tmp_path: Path) -> None:
    file = tmp_path / "registries.conf"
    file.write_text('[registries.insecure]\nregistries = ["r.example"]\n')
    with pytest.raises(InvalidInputError, match="version 1"):
        Registries((file,))


def test_the_certificates_of_a_server_are_in_the_first_folder_that_has_any(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (second / "r.example:5000").mkdir(parents=True)
    found = Registries((), (first, second))
    assert found.certificates("r.example:5000") == second / "r.example:5000"
    assert found.certificates("r.example") is None
    (first / "r.example:5000").mkdir(parents=True)
    assert found.certificates("r.example:5000") == first / "r.example:5000"


def test_a_named_configuration_is_the_hosts(tmp_path: Path) -> None:
    file = tmp_path / "mine.conf"
    file.write_text('[[registry]]\nlocation = "r.example"\ninsecure = true\n')
    found = Registries.of_host({"CONTAINERS_REGISTRIES_CONF": str(file), "HOME": str(tmp_path)})
    assert [one.insecure for one in found.endpoints(parse_reference("r.example/a"))] == [True]


def test_a_users_certificates_come_before_the_hosts(tmp_path: Path) -> None:
    mine = tmp_path / ".config/containers/certs.d/r.example"
    mine.mkdir(parents=True)
    assert Registries.of_host({"HOME": str(tmp_path)}).certificates("r.example") == mine
