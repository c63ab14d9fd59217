import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge.errors import InvalidInputError, NotFoundError
from edge.fleet import task_definitions
from edge.fleet.assignments import TaskRecord
from edge.fleet.database import Database
from edge.fleet.devices import DeviceRecord, find_device
from edge.fleet.tasks import (
    STOPPED_TASKS_KEPT,
    adding,
    current_tasks,
    find_task,
    next_revision,
    nothing_new,
    record_rejection,
    record_report,
    stopping_tasks,
)
from edge.model.documents import DESIRED_STATE_TYPE, DesiredState, DesiredStatus
from edge.model.trust import TrustedSet
from tests.model.signers import MemorySigner, sealed_bundle

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIGNER = MemorySigner()
TRUSTED = TrustedSet.from_bundle(sealed_bundle([SIGNER]))


@dataclass
class Shop:
    database: Database

    @property
    def device(self) -> DeviceRecord:
        return find_device(self.database, "shop", "pi-1")

    def run(self, number: int, definition: str = "app:1") -> DesiredState:
        task = TaskRecord(f"{number:032x}", "shop", "pi-1", definition, "", "", f"2026-01-01T00:00:{number:02}Z", 0, 0)
        return self.opened(next_revision(self.database, [SIGNER], self.device, NOW, adding([task])).envelope)

    def opened(self, envelope: bytes) -> DesiredState:
        return DesiredState.model_validate_json(TRUSTED.verify(envelope, DESIRED_STATE_TYPE).payload)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Database(tmp_path / "fleet.db") as database:
        with database.transaction():
            database.change(
                "INSERT INTO devices (cluster, device, added_at, certificate_serial, certificate_expires_at)"
                " VALUES ('shop', 'pi-1', '', '', '')"
            )
        task_definitions.register(database, "app", {"family": "app"}, NOW)
        yield Shop(database)


def test_every_revision_is_one_higher_and_has_all_tasks(shop: Shop) -> None:
    assert [(state.revision, len(state.tasks)) for state in (shop.run(1), shop.run(2), shop.run(3))] == [
        (1, 1),
        (2, 2),
        (3, 3),
    ]


def test_what_is_stored_is_what_was_sealed(shop: Shop) -> None:
    state = shop.run(1)
    stored = shop.device.desired
    assert stored is not None
    assert shop.opened(stored) == state
    assert shop.device.revision == 1


def test_a_revision_that_cannot_be_sealed_changes_nothing(shop: Shop) -> None:
    large = {"family": "app", "containerDefinitions": [{"command": ["x" * 300_000]}]}
    task_definitions.register(shop.database, "app", large, NOW)
    shop.run(1)
    with pytest.raises(InvalidInputError, match="fit into one message"):
        shop.run(2, "app:2")
    assert shop.device.revision == 1
    assert len(current_tasks(shop.database, shop.device)) == 1


def test_a_number_is_not_used_again_after_a_report_ahead_of_it(shop: Shop) -> None:
    record_report(shop.database, shop.device, {"revision": 41, "tasks": []})
    assert shop.run(1).revision == 42


@pytest.mark.parametrize("revision", [2**52, -1, "7", None, 1.5])
def test_a_revision_no_device_can_have_is_not_believed(shop: Shop, revision: Any) -> None:
    record_report(shop.database, shop.device, {"revision": revision, "tasks": []})
    assert shop.run(1).revision == 1


def test_a_report_is_remembered_and_a_stopped_task_leaves(shop: Shop) -> None:
    shop.run(1)
    stopped = {"taskId": f"{1:032x}", "lastStatus": "STOPPED", "stopCode": "EssentialContainerExited"}
    record_report(shop.database, shop.device, {"revision": 1, "tasks": [stopped, "rubbish", {"no": "id"}]})
    task = find_task(shop.database, f"{1:032x}")
    assert (task.is_over, task.reported) == (True, stopped)
    assert shop.opened(next_revision(shop.database, [SIGNER], shop.device, NOW, nothing_new).envelope).tasks == []


def test_stopping_is_in_the_next_revision(shop: Shop) -> None:
    shop.run(1)
    shop.run(2)
    change = stopping_tasks([f"{1:032x}"], "enough")
    state = shop.opened(next_revision(shop.database, [SIGNER], shop.device, NOW, change).envelope)
    assert [task.desired_status for task in state.tasks] == [DesiredStatus.STOPPED, DesiredStatus.RUNNING]


def test_a_rejected_revision_takes_its_tasks_with_it(shop: Shop) -> None:
    shop.run(1)
    running = {"revision": 1, "tasks": [{"taskId": f"{1:032x}", "lastStatus": "RUNNING"}]}
    record_report(shop.database, shop.device, running)
    shop.run(2)
    gone = record_rejection(shop.database, shop.device, 2, "no", running)
    assert [task.task_id for task in gone] == [f"{2:032x}"]
    assert [task.task_id for task in current_tasks(shop.database, shop.device)] == [f"{1:032x}"]


def test_only_the_newest_of_the_stopped_tasks_are_kept(shop: Shop) -> None:
    for number in range(3):
        shop.run(number)
    stopped = [{"taskId": f"{number:032x}", "lastStatus": "STOPPED"} for number in range(2)]
    record_report(shop.database, shop.device, {"revision": 3, "tasks": stopped})
    with shop.database.transaction():
        shop.database.change(
            "INSERT INTO tasks SELECT printf('%032x', 100 + value), cluster, device, family, definition_revision,"
            " task_group, started_by, '2027', created_revision, changed_revision, desired_status, stopped_reason,"
            " last_status, reported, origin FROM tasks, (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL"
            " SELECT value + 1 FROM n LIMIT ?) SELECT value FROM n) WHERE task_id = ?",
            (STOPPED_TASKS_KEPT - 1, f"{0:032x}"),
        )
    next_revision(shop.database, [SIGNER], shop.device, NOW, nothing_new)
    with pytest.raises(NotFoundError):
        find_task(shop.database, f"{0:032x}")
    assert find_task(shop.database, f"{1:032x}").is_over
    assert len(current_tasks(shop.database, shop.device)) == 1


def test_a_task_is_found_by_the_beginning_of_its_id_or_by_its_arn(shop: Shop) -> None:
    shop.run(1)
    task_id = f"{1:032x}"
    for text in (task_id, task_id[:31].upper(), f"arn:edge:ecs:::task/shop/{task_id}", "0"):
        assert find_task(shop.database, text).task_id == task_id
    shop.run(2)
    with pytest.raises(InvalidInputError, match="beginning of 2 tasks"):
        find_task(shop.database, "0")
    for text in ("", "1", "%", "_"):
        with pytest.raises(NotFoundError):
            find_task(shop.database, text)


def test_revisions_of_a_family_count_up_and_are_found_by_name_or_number(shop: Shop) -> None:
    made = task_definitions.register(shop.database, "app", {"family": "app", "cpu": "256"}, NOW)
    task_definitions.register(shop.database, "other", {"family": "other"}, NOW)
    assert made.key == "app:2"
    assert task_definitions.find(shop.database, "app").revision == 2
    assert task_definitions.find(shop.database, "app:1").document == {"family": "app"}
    assert task_definitions.find(shop.database, "arn:edge:ecs:::task-definition/app:1").revision == 1
    assert task_definitions.find(shop.database, "arn:aws:ecs:eu-west-1:1:task-definition/app:2").revision == 2
    assert [one.key for one in task_definitions.ls(shop.database)] == ["app:1", "app:2", "other:1"]
    assert [one.key for one in task_definitions.ls(shop.database, "other")] == ["other:1"]


@pytest.mark.parametrize("reference", ["", ":1", "app:", "app:0", "app:01", "a b", "app:1:2", "app/1"])
def test_what_is_no_name_of_a_task_definition_is_refused(shop: Shop, reference: str) -> None:
    with pytest.raises(InvalidInputError, match="not a task definition"):
        task_definitions.find(shop.database, reference)


def test_a_registered_task_definition_is_shown_as_ecs_shows_one(shop: Shop) -> None:
    shown = task_definitions.find(shop.database, "app").to_wire()["taskDefinition"]
    assert json.loads(json.dumps(shown)) == {
        "taskDefinitionArn": "arn:edge:ecs:::task-definition/app:1",
        "family": "app",
        "revision": 1,
        "status": "ACTIVE",
        "registeredAt": "2026-01-01T00:00:00.000Z",
    }
