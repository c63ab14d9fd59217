"""What the fleet decides about a request; `tests/e2e/test_enrollment.py` has the real thing on the wire."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from edge.agent.device_key import make_request
from edge.errors import InvalidInputError, NotFoundError, RefusedError, StoreError, TrustError
from edge.fleet.activations import Activation, Wish, create_activation, list_activations, revoke_activation
from edge.fleet.devices import list_devices
from edge.fleet.enrollments import State, answer_enrollment, approve, deny, list_enrollments
from edge.fleet.folder import Address, Fleet, FleetSettings, init_fleet, open_fleet
from edge.fleet.identities import add_device, revoke_device
from edge.model.enrollment import (
    EnrollmentAnswer,
    EnrollmentRequest,
    EnrollmentStatus,
    derive_keys,
    derive_password,
    new_code,
    prove,
    read_answer,
)
from tests.cli.bench import NOW

HERE = Address("broker.example", 8883)
DAY = timedelta(days=1)
ENROLLED, PENDING, REFUSED = EnrollmentStatus.ENROLLED, EnrollmentStatus.PENDING, EnrollmentStatus.REFUSED


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with init_fleet(tmp_path / "fleet", FleetSettings("shop", HERE, HERE), NOW) as fleet:
        yield fleet


class Asker:
    """A device that asks; its key is in a folder that is called like it, or otherwise."""

    def __init__(self, fleet: Fleet, activation: Activation, code: str, folder: Path) -> None:
        self._fleet = fleet
        self._activation = activation
        self._keys = derive_keys(activation.id, code)
        self._folder = folder

    def ask(
        self, device: str = "pi-1", *, key: str = "", named: str = "", after: timedelta = timedelta(0), **changes: Any
    ) -> Any:
        request = make_request(self._folder / (key or device), named or device).read_text()
        question = EnrollmentRequest(
            activation=str(self._activation.id), device=device, nonce="ab" * 16, request=request
        ).model_copy(update=changes)
        payload = prove(question, self._keys.request)
        answered = answer_enrollment(self._fleet, self._activation.id.topics, payload, NOW + after)
        answer = read_answer(answered.payload, self._keys.answer)
        assert (answer.nonce, answer.device) == ("ab" * 16, question.device)
        assert (answered.enrolled is not None) == (answer.status is ENROLLED) == (answer.identity is not None)
        return answer


def asker(fleet: Fleet, folder: Path, **wish: Any) -> Asker:
    activation, code = create_activation(fleet, Wish(**wish), NOW)
    return Asker(fleet, activation, code, folder)


def told(answer: EnrollmentAnswer) -> tuple[EnrollmentStatus, str]:
    return answer.status, answer.reason


def states(fleet: Fleet) -> list[tuple[str, State]]:
    return sorted((one.device, one.state) for one in list_enrollments(fleet.database))


def test_a_device_gets_what_device_add_would_have_written(fleet: Fleet, tmp_path: Path) -> None:
    identity = asker(fleet, tmp_path).ask().identity
    assert identity is not None
    certificate = x509.load_pem_x509_certificate(identity.certificate.encode())
    assert certificate.subject.rfc4514_string() == "O=shop,CN=pi-1"
    assert identity.authority.encode() == fleet.folder.ca_certificate.read_bytes()
    assert identity.trust.encode() == fleet.folder.trust_bundle.read_bytes()
    assert (identity.broker_host, identity.broker_port) == ("broker.example", 8883)
    (record,) = list_devices(fleet.database)
    assert record.certificate_serial == f"{certificate.serial_number:x}"


def test_the_same_request_again_is_answered_the_same_and_counts_once(fleet: Fleet, tmp_path: Path) -> None:
    asking = asker(fleet, tmp_path, limit=2)
    first = asking.ask()
    # Also after the activation has ended: what was broken off is finished.
    assert [asking.ask().identity, asking.ask(after=2 * DAY).identity] == [first.identity] * 2
    assert asking.ask("pi-2").status is ENROLLED
    assert states(fleet) == [("pi-1", State.ENROLLED), ("pi-2", State.ENROLLED)]


def test_a_second_device_with_the_code_of_one_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    asking = asker(fleet, tmp_path)
    assert asking.ask().status is ENROLLED
    assert told(asking.ask("pi-2")) == (REFUSED, "the activation is used up: it was for 1 device(s)")
    # The same name with another key is another device, and a thief's way.
    assert told(asking.ask("pi-1", key="thief"))[0] is REFUSED
    assert states(fleet) == [("pi-1", State.ENROLLED)]


def test_the_limit_is_kept(fleet: Fleet, tmp_path: Path) -> None:
    asking = asker(fleet, tmp_path, limit=3)
    answers = [asking.ask(f"pi-{number}").status for number in range(5)]
    assert answers == [ENROLLED] * 3 + [REFUSED] * 2
    assert [one.state(NOW) for one in list_activations(fleet.database)] == ["USED"]


def test_two_controllers_at_once_keep_the_limit_together(fleet: Fleet, tmp_path: Path) -> None:
    activation, code = create_activation(fleet, Wish(limit=3), NOW)

    def half(numbers: range) -> list[EnrollmentStatus]:
        with open_fleet(fleet.folder.path) as own:
            asking = Asker(own, activation, code, tmp_path)
            return [asking.ask(f"pi-{number}").status for number in numbers]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(half, (range(10), range(10, 20)))
    assert (first + second).count(ENROLLED) == 3 == len(list_devices(fleet.database))


def test_an_activation_that_has_ended_is_refused_by_the_controllers_clock(fleet: Fleet, tmp_path: Path) -> None:
    asking = asker(fleet, tmp_path, life=timedelta(hours=1))
    assert told(asking.ask(after=timedelta(hours=1))) == (REFUSED, "the activation ended at 2026-01-01T01:00:00.000Z")
    assert asking.ask(after=timedelta(minutes=59)).status is ENROLLED


def test_a_revoked_activation_is_refused_even_what_it_gave(fleet: Fleet, tmp_path: Path) -> None:
    asking = asker(fleet, tmp_path, limit=2)
    assert asking.ask().status is ENROLLED
    (activation,) = list_activations(fleet.database)
    revoke_activation(fleet, activation.id, NOW)
    assert revoke_activation(fleet, activation.id, NOW + DAY).revoked_at == "2026-01-01T00:00:00.000Z"
    for device in ("pi-1", "pi-2"):
        assert told(asking.ask(device)) == (REFUSED, "the activation was revoked")
    assert [record.device for record in list_devices(fleet.database) if record.may_connect] == ["pi-1"]


def test_a_wrong_code_gets_no_answer_and_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    activation, _ = create_activation(fleet, Wish(), NOW)
    with pytest.raises(TrustError, match="who knows the activation code"):
        Asker(fleet, activation, new_code(), tmp_path).ask()
    assert states(fleet) == []


def test_an_activation_that_is_none_gets_no_answer(fleet: Fleet, tmp_path: Path) -> None:
    activation, code = create_activation(fleet, Wish(), NOW)
    with fleet.database.transaction():
        fleet.database.change("DELETE FROM activations")
    with pytest.raises(NotFoundError):
        Asker(fleet, activation, code, tmp_path).ask()


def test_one_activations_code_does_not_work_on_anothers_branch(fleet: Fleet, tmp_path: Path) -> None:
    other, _ = create_activation(fleet, Wish(), NOW)
    with pytest.raises(TrustError, match="on the branch of"):
        asker(fleet, tmp_path).ask(activation=str(other.id))


@pytest.mark.parametrize(
    ("wanted", "device", "expected"),
    [
        ("", "pi-1", ENROLLED),
        ("pi-1", "pi-1", ENROLLED),
        ("pi-1", "pi-11", REFUSED),
        ("pi-1", "pi-2", REFUSED),
        ("shelf-*", "shelf-7", ENROLLED),
        ("shelf-*", "shelf", REFUSED),
        ("shelf-*", "my-shelf-7", REFUSED),
        ("*-7", "shelf-7", ENROLLED),
        ("*", "anything", ENROLLED),
    ],
)
def test_an_activation_is_for_the_names_it_was_made_for(
    fleet: Fleet, tmp_path: Path, wanted: str, device: str, expected: EnrollmentStatus
) -> None:
    answer = asker(fleet, tmp_path, device=wanted).ask(device)
    reason = "" if expected is ENROLLED else f"the activation is not for {device} but for {wanted}"
    assert told(answer) == (expected, reason)


def test_no_activation_takes_the_name_of_a_device_that_is_there(fleet: Fleet, tmp_path: Path) -> None:
    before = add_device(fleet, "pi-1", tmp_path / "out", NOW).certificate_serial
    for wish in ({}, {"device": "pi-*"}, {"limit": 10}):
        assert told(asker(fleet, tmp_path, **wish).ask()) == (REFUSED, "there is a device pi-1 already")
    assert told(asker(fleet, tmp_path).ask("operator"))[0] is REFUSED
    assert [one.certificate_serial for one in list_devices(fleet.database)] == [before]


def test_an_activation_for_a_device_that_is_there_has_to_say_so(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        create_activation(fleet, Wish(device="pi-1", replaces=True), NOW)
    add_device(fleet, "pi-1", tmp_path / "out", NOW)
    revoke_device(fleet, "pi-1", NOW)
    with pytest.raises(RefusedError, match="has an identity already"):
        create_activation(fleet, Wish(device="pi-1"), NOW)
    assert asker(fleet, tmp_path, device="pi-1", replaces=True).ask().status is ENROLLED
    assert [record.may_connect for record in list_devices(fleet.database)] == [True]


@pytest.mark.parametrize(
    "wish",
    [
        {"limit": 0},
        {"limit": 1001},
        {"life": timedelta(0)},
        {"life": timedelta(days=30, seconds=1)},
        {"device": "d1/cmd"},
        {"device": "+"},
        {"device": "-pi"},
        {"device": "operator"},
        {"device": "pi-*", "replaces": True},
        {"replaces": True},
    ],
)
def test_what_no_activation_can_be_is_refused(fleet: Fleet, wish: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        create_activation(fleet, Wish(**wish), NOW)
    assert list_activations(fleet.database) == []


def test_a_request_waits_until_an_operator_approves_it(fleet: Fleet, tmp_path: Path) -> None:
    asking = asker(fleet, tmp_path, approval=True)
    first = asking.ask()
    assert first.status is PENDING
    assert asking.ask().enrollment == first.enrollment
    # It counts: a thief who waits cannot wait beside others.
    assert asking.ask("pi-2").status is REFUSED
    assert list_devices(fleet.database) == []
    assert approve(fleet, first.enrollment[:8], NOW).device == "pi-1"
    # Approved is approved, even when the activation's time is over meanwhile.
    assert asking.ask(after=2 * DAY).status is ENROLLED
    with pytest.raises(NotFoundError):
        approve(fleet, "pi-1", NOW)


def test_a_denied_request_stays_denied_and_frees_its_place(fleet: Fleet, tmp_path: Path) -> None:
    asking = asker(fleet, tmp_path, approval=True)
    asking.ask()
    assert deny(fleet, "pi-1", NOW).device == "pi-1"
    assert told(asking.ask()) == (REFUSED, "an operator denied it")
    assert asking.ask("pi-1", key="another").status is PENDING
    assert states(fleet) == [("pi-1", State.DENIED), ("pi-1", State.PENDING)]


def test_two_that_wait_under_one_name_are_told_apart_by_their_ids(fleet: Fleet, tmp_path: Path) -> None:
    asking = asker(fleet, tmp_path, approval=True, limit=2)
    mine, other = asking.ask(), asking.ask("pi-1", key="thief")
    for name in ("pi-1", "", "zz"):
        with pytest.raises(NotFoundError):
            approve(fleet, name, NOW)
    approve(fleet, mine.enrollment, NOW)
    assert asking.ask().status is ENROLLED
    approve(fleet, other.enrollment, NOW)
    assert told(asking.ask("pi-1", key="thief")) == (REFUSED, "there is a device pi-1 already")


def test_a_device_that_was_revoked_does_not_get_its_certificate_again(fleet: Fleet, tmp_path: Path) -> None:
    asking = asker(fleet, tmp_path)
    asking.ask()
    revoke_device(fleet, "pi-1", NOW)
    assert told(asking.ask()) == (REFUSED, "device pi-1 was revoked since")


def test_a_request_for_another_name_than_the_certificate_s_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    answer = asker(fleet, tmp_path).ask("pi-2", named="pi-1")
    assert told(answer) == (REFUSED, "the certificate request is for pi-1, not for pi-2")
    assert states(fleet) == []


def test_nothing_is_stored_of_a_request_that_could_not_be_answered(fleet: Fleet, tmp_path: Path) -> None:
    asking = asker(fleet, tmp_path)
    away = fleet.folder.ca_key.with_suffix(".away")
    fleet.folder.ca_key.rename(away)
    with pytest.raises(StoreError):
        asking.ask()
    assert (states(fleet), list_devices(fleet.database)) == ([], [])
    away.rename(fleet.folder.ca_key)
    assert asking.ask().status is ENROLLED


def test_what_the_fleet_keeps_of_a_code_is_not_the_code(fleet: Fleet) -> None:
    activation, code = create_activation(fleet, Wish(), NOW)
    fleet.database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = b"".join(path.read_bytes() for path in fleet.folder.path.rglob("*") if path.is_file())
    assert str(activation.id).encode() in kept
    password = derive_password(activation.id, code)
    for secret in (code.encode(), code.upper().encode(), password.encode(), bytes.fromhex(password)):
        assert secret not in kept
