"""The operator's side of enrolment, and what `edge agent enroll` says; `tests/e2e` has the wire."""

import json
from pathlib import Path
from typing import Any

import pytest

from edge.fleet.activations import list_activations
from edge.fleet.enrollments import State, answer_enrollment
from edge.model.enrollment import ActivationId, EnrollmentRequest, derive_keys, prove
from tests.cli.bench import NOW, Bench, Ran
from tests.fleet.test_identities import request

LATER = "--hours=720"


def made(bench: Bench, *words: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bench.edge("fleet", "activation", "create", *words, "--output=json").out)
    return document


def ask(bench: Bench, activation: dict[str, Any], device: str) -> None:
    """What a device sends."""
    name = ActivationId.parse(activation["activationId"])
    asked = EnrollmentRequest(activation=str(name), device=device, nonce="ab" * 16, request=request(device).decode())
    payload = prove(asked, derive_keys(name, activation["activationCode"]).request)
    with bench.fleet() as fleet:
        answer_enrollment(fleet, name.topics, payload, NOW)


def listed(bench: Bench, what: str, *words: str) -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = json.loads(bench.edge("fleet", what, "ls", *words, "--output=json").out)
    return documents


def test_an_activation_is_told_with_its_code_once(bench: Bench) -> None:
    told = made(bench, "--device", "shelf-*", "--limit", "3")
    assert (told["registrationLimit"], told["device"]) == (3, "shelf-*")
    assert len(told["activationCode"]) == 32
    everything = bench.edge("fleet", "activation", "ls", "--all").out + json.dumps(listed(bench, "activation"))
    assert told["activationId"] in everything
    assert told["activationCode"] not in everything
    (found,) = listed(bench, "activation")
    assert (found["state"], found["registrationsCount"], found["registrationLimit"]) == ("ACTIVE", 0, 3)


def test_without_a_listener_the_operator_is_told_what_is_missing(bench: Bench, tmp_path: Path) -> None:
    assert "--enrollment-port" in bench.edge("fleet", "activation", "create").err
    broker = tmp_path / "broker"
    words = ("--address", "127.0.0.1", "--user", "root")
    bench.edge("fleet", "broker-config", str(broker), *words, "--enrollment-port", "8885")
    ran = bench.edge("fleet", "activation", "create")
    assert "edge agent enroll --activation-id shop." in ran.err
    assert "--broker broker.example:8885" in ran.err
    assert len((broker / "passwords").read_text().splitlines()) == 2
    text = (broker / "mosquitto.conf").read_text()
    *_, enrolling = text.split("\nlistener ")
    assert enrolling.startswith("8885 127.0.0.1")
    assert "require_certificate false" in enrolling
    assert "use_username_as_clientid true" in enrolling
    assert "use_identity_as_username" not in enrolling
    assert f"password_file {broker}/passwords" in text
    # Written anew without the option, there is none.
    bench.edge("fleet", "broker-config", str(broker), *words)
    assert "require_certificate false" not in (broker / "mosquitto.conf").read_text()
    assert "password_file" not in (broker / "mosquitto.conf").read_text()


def test_a_revoked_activation_has_no_password_any_more(bench: Bench, tmp_path: Path) -> None:
    broker = tmp_path / "broker"
    bench.edge("fleet", "broker-config", str(broker), "--user", "root", "--enrollment-port", "8885")
    kept, gone = made(bench), made(bench)
    assert bench.edge("fleet", "activation", "revoke", gone["activationId"]).code == 0
    for name in ("passwords", "acl"):
        text = (broker / name).read_text()
        assert kept["activationId"] in text
        assert gone["activationId"] not in text
    assert [one["state"] for one in listed(bench, "activation", "--all")].count("REVOKED") == 1
    assert bench.edge("fleet", "activation", "revoke", "shop.0000000000000000").code == 3
    assert bench.edge("fleet", "activation", "revoke", "nonsense").code == 2


def test_requests_are_listed_approved_and_denied(bench: Bench) -> None:
    activation = made(bench, "--approve", "--limit", "2", LATER)
    ask(bench, activation, "pi-7")
    ask(bench, activation, "pi-8")
    waiting = {one["device"]: one["enrollmentId"] for one in listed(bench, "enrollment")}
    assert set(waiting) == {"pi-7", "pi-8"}
    assert waiting["pi-7"][:16] in bench.edge("fleet", "enrollment", "ls").out
    assert bench.edge("fleet", "enrollment", "approve", waiting["pi-7"][:12]).code == 0
    assert json.loads(bench.edge("fleet", "enrollment", "deny", "pi-8", "--output=json").out)["state"] == "DENIED"
    assert bench.edge("fleet", "enrollment", "approve", "pi-8").code == 3
    assert listed(bench, "enrollment") == []
    states = {one["device"]: one["state"] for one in listed(bench, "enrollment", "--all")}
    assert states == {"pi-7": State.APPROVED, "pi-8": State.DENIED}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--limit", "0"), 2),
        (("--hours", "721"), 2),
        (("--device", "d1/cmd"), 2),
        (("--device", "pi-1"), 5),
        (("--device", "pi-9", "--force"), 3),
    ],
)
def test_what_no_activation_can_be_is_refused(bench: Bench, words: tuple[str, ...], code: int) -> None:
    assert bench.edge("fleet", "activation", "create", *words).code == code
    with bench.fleet() as fleet:
        assert list_activations(fleet.database) == []


def enroll(bench: Bench, folder: Path, *words: str) -> Ran:
    given = ("--activation-id", "shop.0123456789abcdef", "--broker", "broker.example")
    return bench.edge_without_fleet("agent", "enroll", *given, *words, str(folder))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--ca", "CA"),
        ("--activation-code", "a" * 32),
        ("--ca", "NONE", "--activation-code", "a" * 32),
        ("--ca", "CA", "--activation-code", "short"),
        ("--ca", "CA", "--activation-code", "a" * 32, "--device", "Pi_7"),
        ("--ca", "CA", "--activation-code-file", "CA"),
        ("--ca", "CA", "--activation-code", "a" * 32, "--activation-id", "other"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(bench: Bench, tmp_path: Path, words: tuple[str, ...]) -> None:
    names = {"CA": str(bench.folder / "ca.crt"), "NONE": str(tmp_path / "none")}
    ran = enroll(bench, tmp_path / "device", *(names.get(word, word) for word in words))
    assert ran.code == 2
    assert "hint:" in ran.err or "edge:" in ran.err
    assert "short" not in ran.err
    assert not (tmp_path / "device").exists()


def test_a_device_with_an_identity_says_so(bench: Bench, tmp_path: Path) -> None:
    device = tmp_path / "device"
    bench.edge("device", "add", "pi-7", "--out", str(device))
    code = tmp_path / "code"
    code.write_text("a" * 32 + "\n")
    words = ("--ca", str(bench.folder / "ca.crt"), "--activation-code-file", str(code))
    assert "already enrolled" in enroll(bench, device, *words).out
    assert json.loads(enroll(bench, device, *words, "--output=json").out)["device"] == "pi-7"
    # With something missing it is none.
    (device / "trust.json").unlink()
    assert enroll(bench, device, *words, "--timeout", "0.1").code == 6
    assert enroll(bench, device, *words, "--timeout", "0.1", "--device", "pi-8").code == 2
