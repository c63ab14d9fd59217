"""What a device's owner allows, whoever signed."""

from typing import Any

import pytest

from edge.model.device_policy import DevicePolicy
from edge.model.task_definition import parse_task_definition


def forbidden(policy: DevicePolicy, volumes: list[dict[str, Any]] | None = None, **container: Any) -> list[str]:
    """The fields of a definition with one container that a policy does not allow."""
    network = container.pop("networkMode", "bridge")
    document = {
        "family": "app",
        "networkMode": network,
        "containerDefinitions": [{"name": "app", "image": "busybox", "memory": 32, **container}],
        "volumes": volumes or [],
    }
    return [path for path, _ in policy.problems(parse_task_definition(document))]


def host(path: str) -> list[dict[str, Any]]:
    return [{"name": "data", "host": {"sourcePath": path}}]


def mounted(*, read_only: bool = False) -> list[dict[str, Any]]:
    return [{"sourceVolume": "data", "containerPath": "/data", "readOnly": read_only}]


def local(**options: str) -> list[dict[str, Any]]:
    return [{"name": "data", "dockerVolumeConfiguration": {"scope": "task", "driverOpts": options}}]


@pytest.mark.parametrize(
    ("container", "path"),
    [
        ({"privileged": True}, "containerDefinitions[0].privileged"),
        ({"networkMode": "host"}, "networkMode"),
        ({"dockerSecurityOptions": ["no-new-privileges:false"]}, "containerDefinitions[0].dockerSecurityOptions"),
        (
            {"linuxParameters": {"devices": [{"hostPath": "/dev/mem"}]}},
            "containerDefinitions[0].linuxParameters.devices[0]",
        ),
        (
            {"linuxParameters": {"capabilities": {"add": ["SYS_ADMIN"]}}},
            "containerDefinitions[0].linuxParameters.capabilities.add",
        ),
        (
            {"linuxParameters": {"capabilities": {"add": ["ALL"], "drop": ["KILL"]}}},
            "containerDefinitions[0].linuxParameters.capabilities.add",
        ),
        ({"volumes": host("/etc")}, "volumes[0].host.sourcePath"),
        ({"volumes": local(type="none", o="bind", device="/etc")}, "volumes[0].dockerVolumeConfiguration.driverOpts"),
        ({"volumes": local(o="bind", device="/")}, "volumes[0].dockerVolumeConfiguration.driverOpts"),
        ({"volumes": local(type="nfs", device=":/x")}, "volumes[0].dockerVolumeConfiguration.driverOpts"),
    ],
)
def test_without_a_word_nothing_of_the_host_is_allowed(container: dict[str, Any], path: str) -> None:
    assert forbidden(DevicePolicy(), **container) == [path]


def test_an_ordinary_task_needs_no_word() -> None:
    ordinary: dict[str, Any] = {
        "dockerSecurityOptions": ["no-new-privileges"],
        "linuxParameters": {"capabilities": {"add": ["CHOWN"]}},
    }
    assert forbidden(DevicePolicy(), local(type="tmpfs", device="tmpfs"), mountPoints=mounted(), **ordinary) == []


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/srv/data", True),
        ("/srv/data/a/b", True),
        ("/srv/data/", True),
        ("/srv/database", False),
        ("/srv", False),
        ("/srv/data/../../etc", False),
        ("/", False),
    ],
)
def test_a_folder_is_allowed_with_all_that_is_in_it(path: str, allowed: bool) -> None:  # noqa: FBT001
    policy = DevicePolicy(host_paths=("/srv/data",))
    assert policy.allows_path(path, read_only=False) is allowed
    assert DevicePolicy(host_paths=("/",)).allows_path(path, read_only=False)


def test_a_folder_for_reading_is_not_one_for_writing() -> None:
    policy = DevicePolicy(host_paths=("/etc:ro",))
    assert forbidden(policy, host("/etc"), mountPoints=mounted(read_only=True)) == []
    assert forbidden(policy, host("/etc"), mountPoints=mounted()) == ["volumes[0].host.sourcePath"]
    assert forbidden(policy, local(o="bind", device="/etc"), mountPoints=mounted()) == [
        "volumes[0].dockerVolumeConfiguration.driverOpts"
    ]


@pytest.mark.parametrize(
    ("device", "allowed"),
    [
        ("/dev/ttyUSB0", True),
        ("/dev/ttyUSB", True),
        ("/dev/gpiochip0", True),
        ("/dev/gpiochip01", False),
        ("/dev/ttyUSB/../mem", False),
        ("/dev/mem", False),
    ],
)
def test_devices_are_named_or_begin_as_named(device: str, allowed: bool) -> None:  # noqa: FBT001
    policy = DevicePolicy(devices=("/dev/ttyUSB*", "/dev/gpiochip0"))
    assert (forbidden(policy, linuxParameters={"devices": [{"hostPath": device}]}) == []) is allowed


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("registry.example/shop/web:1", True),
        ("registry.example/shop/web@sha256:" + "a" * 64, True),
        ("registry.example/shopping/web", False),
        ("registry.example:5000/shop/web", False),
        ("registry.example.evil/shop/web", False),
        ("localhost/own:2", True),
        ("busybox", False),
        ("docker.io/library/busybox:1", False),
    ],
)
def test_images_come_from_where_is_named(image: str, allowed: bool) -> None:  # noqa: FBT001
    policy = DevicePolicy(registries=("registry.example/shop", "localhost"))
    assert (forbidden(policy, image=image) == []) is allowed


def test_a_short_name_is_the_one_podman_would_fetch() -> None:
    assert forbidden(DevicePolicy(registries=("docker.io/library",)), image="busybox:1") == []
    assert forbidden(DevicePolicy(registries=("docker.io",)), image="someone/thing") == []


def test_what_is_allowed_is_allowed() -> None:
    policy = DevicePolicy(
        allow_privileged=True, allow_host_network=True, allow_new_privileges=True, capabilities=("NET_RAW",)
    )
    asked: dict[str, Any] = {
        "privileged": True,
        "networkMode": "host",
        "dockerSecurityOptions": ["no-new-privileges:false"],
        "linuxParameters": {"capabilities": {"add": ["NET_RAW"]}},
    }
    assert forbidden(policy, **asked) == []
    found = forbidden(policy, linuxParameters={"capabilities": {"add": ["NET_RAW", "SYS_TIME"]}})
    assert found == ["containerDefinitions[0].linuxParameters.capabilities.add"]
