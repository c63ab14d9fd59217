"""A task's token: only a device of this fleet can sign it, for itself, for one audience and an hour."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.agent.task_token import sign
from edge.errors import TrustError
from edge.fleet.folder import Address, Fleet, FleetSettings, init_fleet
from edge.fleet.identities import add_device, revoke_device
from edge.fleet.task_tokens import verify_token
from edge.model.task_identity import TaskIdentity, environment, pass_for

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
WHO = TaskIdentity("shop", "pi-1", "0" * 32, "app", "till:3", "arn:aws:iam::1:role/till")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return make_fleet(tmp_path, "fleet")


def make_fleet(folder: Path, name: str) -> Fleet:
    made = init_fleet(folder / name, FleetSettings("shop", Address("b", 1), Address("b", 2)), NOW)
    for device in ("pi-1", "pi-2"):
        add_device(made, device, folder / name / device, NOW)
        parts = [(folder / name / device / part).read_bytes() for part in ("device.crt", "device.key")]
        (folder / f"{name}-{device}.pem").write_bytes(b"handed over: x\n" + b"".join(parts))
    return made


def token(folder: Path, signer: str = "fleet-pi-1", audience: str = "edge", **changed: Any) -> str:
    return sign(WHO.claims(audience, int(NOW.timestamp())) | changed, folder / f"{signer}.pem")


def parts_of(text: str) -> list[Any]:
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in text.split(".")[:2]]


def joined(head: dict[str, Any], claims: dict[str, Any], signature: str) -> str:
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, claims)]
    return ".".join([*texts, signature])


def test_a_token_says_who_a_task_is(fleet: Fleet, tmp_path: Path) -> None:
    claims = verify_token(fleet, token(tmp_path), "edge", NOW)
    assert (claims["task"], claims["role"], claims["family"], claims["revision"]) == ("0" * 32, "till", "till", 3)


@pytest.mark.parametrize(
    ("signer", "audience", "moment", "changed", "told"),
    [
        ("fleet-pi-1", "billing", NOW, {}, "for 'billing'"),
        ("fleet-pi-1", "edge", NOW + timedelta(hours=1), {}, "not good at this time"),
        ("fleet-pi-1", "edge", NOW - timedelta(minutes=2), {}, "not good at this time"),
        ("fleet-pi-2", "edge", NOW, {}, "pi-2 signed it"),
        ("fleet-pi-1", "edge", NOW, {"cluster": "bar"}, "signed it"),
        ("fleet-pi-1", "edge", NOW, {"exp": "never"}, "not good at this time"),
        ("outside-pi-1", "edge", NOW, {}, "not signed by a device of this fleet"),
    ],
)
def test_what_is_not_good_is_refused(  # noqa: PLR0913, PLR0917 - what may be wrong
    fleet: Fleet, tmp_path: Path, signer: str, audience: str, moment: datetime, changed: dict[str, Any], told: str
) -> None:
    make_fleet(tmp_path, "outside")
    with pytest.raises(TrustError, match=told):
        verify_token(fleet, token(tmp_path, signer, audience, **changed), "edge", moment)


def test_a_revoked_device_s_token_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    text = token(tmp_path)
    revoke_device(fleet, "pi-1", NOW)
    with pytest.raises(TrustError, match="revoked"):
        verify_token(fleet, text, "edge", NOW)


def test_what_was_changed_after_it_was_signed_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    text = token(tmp_path)
    signature = text.rpartition(".")[2]
    head, claims = parts_of(text)
    forged = [
        joined(head, claims | {"role": "admin"}, signature),
        joined(head | {"alg": "none"}, claims, ""),
        joined(head | {"alg": "HS256"}, claims, signature),
        joined(head | {"typ": "JWT"}, claims, signature),
        joined(head | {"x5c": []}, claims, signature),
        joined(head | {"x5c": ["AAAA"]}, claims, signature),
        joined(head, claims, ""),
        *(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :] for at in range(0, len(text) - 1, 37)),
    ]
    for one in forged:
        with pytest.raises(TrustError):
            verify_token(fleet, one, "edge", NOW)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", ".".join(["W10"] * 3), "x" * 20_000, "\x00.\x00.\x00"])
def test_what_is_no_token_is_refused(fleet: Fleet, text: str) -> None:
    with pytest.raises(TrustError):
        verify_token(fleet, text, "edge", NOW)


def test_each_container_shows_something_else() -> None:
    shown = {pass_for(key, task, name) for key in (b"a", b"b") for task in ("1", "2") for name in ("app", "web")}
    assert len(shown) == 8
    assert environment("x")["ECS_CONTAINER_METADATA_URI_V4"].endswith("/v4/x")
