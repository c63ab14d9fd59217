"""A task with a role asks who it is in its own network; another container cannot, and the host listens on nothing."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.test_reach_of_a_container import listening
from tests.support.podman import PodmanService
from tests.support.stack import DEVICE, Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]
SLEEPS = {"name": "app", "command": ["sleep", "1000"]}
ROLE = "arn:aws:iam::123456789012:role/till"


class Container:
    """What runs in one container, as the container sees it."""

    def __init__(self, podman: PodmanService, stack: Stack, task_id: str) -> None:
        runtime_id = stack.task(task_id)["containers"][0]["runtimeId"]
        self.podman, self.runtime_id = podman, runtime_id
        self.pid = next(pid for one, pid in stack.running().values() if one == runtime_id)
        pairs = Path(f"/proc/{self.pid}/environ").read_bytes().decode().split("\0")
        self.environment = dict(pair.split("=", 1) for pair in pairs if pair)

    def get(self, url: str, authorization: str = "") -> str:
        """Ask; empty when there is no answer."""
        header = (f"--header=Authorization: {authorization}",) if authorization else ()
        command = ("busybox", "wget", "-q", "-O", "-", *header, url)
        return self.podman.run_cli("exec", self.runtime_id, *command, check=False)

    def credentials(self, query: str = "") -> dict[str, Any]:
        shown = self.environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        told = self.get(self.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] + query, shown)
        found: dict[str, Any] = json.loads(told) if told else {}
        return found


def run(stack: Stack, podman: PodmanService, family: str, **fields: Any) -> Container:
    task_id = stack.run_task(stack.register(SLEEPS, family=family, **fields))
    return Container(podman, stack, task_id)


def verify(stack: Stack, token: str, *options: str, expect: int = 0) -> dict[str, Any]:
    path = stack.folder / "token"
    path.write_text(token)
    printed = stack.edge("fleet", "token", "verify", str(path), "--output", "json", *options, expect=expect)
    claims: dict[str, Any] = json.loads(printed)["claims"] if printed else {}
    return claims


def test_a_task_with_a_role_has_a_token_that_the_fleet_knows_and_another_container_cannot_have_it(
    stack: Stack, podman: PodmanService
) -> None:
    till = run(stack, podman, "till", taskRoleArn=ROLE)
    other = run(stack, podman, "other")
    stack.wait("the endpoint", till.credentials)
    given = till.credentials()
    assert given["RoleArn"] == ROLE
    claims = verify(stack, given["Token"])
    task = next(one for one in stack.status()["tasks"] if "till" in one["taskDefinitionArn"])
    assert (claims["sub"], claims["role"], claims["device"]) == (f"task/default/{task['taskId']}", "till", DEVICE)
    assert (claims["family"], claims["revision"], claims["exp"] - claims["iat"]) == ("till", 1, 3600)
    assert till.credentials()["Token"] == given["Token"]
    # For another audience another one; neither passes for the other.
    billing = till.credentials("?audience=billing")["Token"]
    assert verify(stack, billing, "--audience", "billing")["aud"] == "billing"
    verify(stack, billing, expect=5)
    verify(stack, given["Token"][:-4] + "AAAA", expect=5)
    # Nothing without what the container alone was given, and nothing for another container, even with it.
    url, shown = (till.environment[f"AWS_CONTAINER_{one}"] for one in ("CREDENTIALS_FULL_URI", "AUTHORIZATION_TOKEN"))
    assert till.get(url) == till.get(url, "wrong") == ""
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" not in other.environment
    assert other.get(url, shown) == ""
    address = podman.run_cli("inspect", "--format", "{{.NetworkSettings.IPAddress}}", till.runtime_id)
    assert address
    assert other.get(url.replace("127.0.0.1", address), shown) == ""
    # The host listens on nothing: not the agent, and not on that port.
    assert listening(int(stack.status()["pid"])) == []
    reached = subprocess.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{urlsplit(url).port}"], check=False)
    assert reached.returncode


def test_two_tasks_of_one_role_have_tokens_of_their_own(stack: Stack, podman: PodmanService) -> None:
    first, second = (run(stack, podman, family, taskRoleArn="till") for family in ("a", "b"))
    stack.wait("both endpoints", lambda: first.credentials() and second.credentials())
    assert verify(stack, first.credentials()["Token"])["family"] == "a"
    assert verify(stack, second.credentials()["Token"])["family"] == "b"
    url = first.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    assert first.get(url, second.environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"]) == ""


def test_the_metadata_is_ecs_s_and_the_endpoint_comes_back_with_the_agent_and_the_container(
    stack: Stack, podman: PodmanService
) -> None:
    till = run(stack, podman, "till", taskRoleArn="till")
    uri = till.environment["ECS_CONTAINER_METADATA_URI_V4"]
    stack.wait("the endpoint", lambda: till.get(uri))
    told, task = json.loads(till.get(uri)), json.loads(till.get(f"{uri}/task"))
    assert (told["DockerId"], told["Name"], told["KnownStatus"]) == (till.runtime_id, "app", "RUNNING")
    assert (task["Family"], task["Revision"], task["LaunchType"]) == ("till", "1", "EXTERNAL")
    assert task["Containers"] == [told]
    assert till.get(f"{uri}/else") == till.get(uri[:-1]) == ""
    stack.kill_agent()
    assert till.get(uri) == ""
    stack.start_agent()
    stack.wait("the endpoint again", lambda: till.get(uri))
    # Podman's list knows whole seconds only.
    assert json.loads(till.get(uri)) | {"StartedAt": ""} == told | {"StartedAt": ""}
    stack.edge("device", "revoke", DEVICE)
    verify(stack, till.credentials()["Token"], expect=5)


def test_a_container_without_a_network_of_its_own_is_refused_a_role(stack: Stack) -> None:
    definition = {"family": "x", "taskRoleArn": "till", "networkMode": "host"}
    path = stack.folder / "host.json"
    path.write_text(json.dumps({**definition, "containerDefinitions": [SLEEPS | {"image": "x", "memory": 32}]}))
    stack.edge("task-definition", "check", str(path), expect=2)
    assert os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") is None
