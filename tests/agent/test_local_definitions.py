"""What whoever stands at the device cannot give themselves: the fleet's secrets, and a role."""

from pathlib import Path
from typing import Any

import pytest

from edge.agent.engine.local import Desk
from edge.agent.engine.local_requests import Peer, Run
from edge.agent.engine.steps import Identity
from edge.errors import InvalidInputError
from tests.support.island import Island
from tests.support.tasks import container_definition

PEER = Peer(1000, 1, "technician")


def run(island: Island, **fields: Any) -> dict[str, Any]:
    desk = Desk(
        island.reconciler,
        island.clock,
        Identity("shop", "pi-1", "amd64"),
        describe_event=lambda _detail: ("topic", b"{}"),
    )
    definition = {
        "family": "here",
        "containerDefinitions": [container_definition("app", **fields.pop("container", {}))],
    }
    return desk.answer(Run(op="run", definition=definition | fields), PEER)


def test_a_definition_that_asks_for_neither_runs(tmp_path: Path) -> None:
    assert run(Island(tmp_path))["tasks"]


def test_secrets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot name secrets"):
        run(Island(tmp_path), container={"secrets": [{"name": "PW", "valueFrom": "db"}]})


def test_a_role_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot have a role"):
        run(Island(tmp_path), taskRoleArn="admin")
