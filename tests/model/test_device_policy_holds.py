"""Whatever a task definition asks for: it is refused, or what Podman is told stays within the device's policy."""

from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.agent.adapters.podman.spec import render_spec
from edge.errors import InvalidInputError
from edge.model.container_spec_builder import DEFAULT_CAPABILITIES, SpecContext, build_container_spec
from edge.model.device_policy import DevicePolicy
from edge.model.task_definition import parse_task_definition

PATHS: Final = ("/", "/etc", "/srv", "/srv/data", "/srv/data/../../etc", "/srv/database", "/run/podman/podman.sock")
DEVICES: Final = ("/dev/ttyUSB0", "/dev/mem", "/dev/ttyUSB0/../mem", "/dev/fuse")
CAPS: Final = ("NET_RAW", "SYS_ADMIN", "ALL", "SYS_TIME", "CHOWN")
IMAGES: Final = ("registry.example/shop/app:1", "docker.io/library/x", "evil.example/app", "busybox")
CONTEXT: Final = SpecContext("default", "pi-1", "0" * 32, "d", "a" * 64, pids_limit=77)


def some(values: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True)


POLICIES: Final = st.builds(
    DevicePolicy,
    allow_privileged=st.booleans(),
    allow_host_network=st.booleans(),
    allow_new_privileges=st.booleans(),
    host_paths=some(("/srv", "/srv/data:ro", "/etc/localtime:ro")).map(tuple),
    devices=some(("/dev/ttyUSB*", "/dev/fuse")).map(tuple),
    capabilities=some(("NET_RAW", "SYS_TIME")).map(tuple),
    registries=st.sampled_from((("*",), ("registry.example/shop",), ("docker.io",))),
    pids_limit=st.just(77),
)


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """A task that asks for some of the host, or for nothing of it."""
    container: dict[str, Any] = {"name": "app", "image": draw(st.sampled_from(IMAGES)), "memory": 8}
    task: dict[str, Any] = {"family": "app", "containerDefinitions": [container]}
    for path in draw(some(PATHS)):
        name = f"v{len(task.get('volumes', []))}"
        volume: dict[str, Any] = {"name": name, "host": {"sourcePath": path}}
        if draw(st.booleans()):
            options = {"type": draw(st.sampled_from(("none", "tmpfs", "nfs"))), "o": "bind", "device": path}
            volume = {"name": name, "dockerVolumeConfiguration": {"driverOpts": options}}
        task.setdefault("volumes", []).append(volume)
        mount = {"sourceVolume": name, "containerPath": f"/{name}", "readOnly": draw(st.booleans())}
        container.setdefault("mountPoints", []).append(mount)
    if draw(st.booleans()):
        container["privileged"] = draw(st.booleans())
    if draw(st.booleans()):
        container["dockerSecurityOptions"] = [draw(st.sampled_from(("no-new-privileges", "no-new-privileges:false")))]
    if draw(st.booleans()):
        task["networkMode"] = draw(st.sampled_from(("host", "bridge", "none")))
    linux: dict[str, Any] = {}
    if added := draw(some(CAPS)):
        linux["capabilities"] = {"add": added}
    if devices := draw(some(DEVICES)):
        linux["devices"] = [{"hostPath": one} for one in devices]
    return task if not linux else {**task, "containerDefinitions": [{**container, "linuxParameters": linux}]}


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(document=definitions(), policy=POLICIES)
def test_a_task_is_refused_or_its_container_is_within_the_policy(
    document: dict[str, Any], policy: DevicePolicy
) -> None:
    try:
        definition = parse_task_definition(document)
    except InvalidInputError:
        return
    if policy.problems(definition):
        return
    told = render_spec(build_container_spec(definition, "app", CONTEXT), {})
    assert policy.allow_privileged or not told["privileged"]
    assert policy.allow_new_privileges or told["no_new_privileges"]
    assert policy.allow_host_network or told["netns"]["nsmode"] != "host"
    if not told["privileged"]:
        assert told["cap_drop"] == ["ALL"]
        assert set(told["cap_add"]) <= {f"CAP_{one}" for one in (*DEFAULT_CAPABILITIES, *policy.capabilities)}
    for mount in told.get("mounts", ()):
        assert mount["type"] == "tmpfs" or policy.allows_path(mount["source"], read_only="ro" in mount["options"])
    for device in told.get("devices", ()):
        path = device["path"].partition(":")[0]
        assert ".." not in path
        assert path.startswith("/dev/ttyUSB") if "/dev/ttyUSB*" in policy.devices else path == "/dev/fuse"
    assert told["resource_limits"]["pids"]["limit"] == 77
    assert definition.container("app").image.startswith("registry.example/shop/") or policy.registries != (
        "registry.example/shop",
    )


WORDS: Final = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20
) | st.sampled_from(
    ("; rm -rf /", "$(id)", "`id`", "--privileged", "-v/:/host", "|", "&&", "\n", '"', "'", "%s", "{}", "../..")
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(command=st.lists(WORDS, min_size=1, max_size=4), value=WORDS, label=WORDS, user=WORDS, folder=WORDS)
def test_words_of_a_task_definition_stay_words(
    command: list[str], value: str, label: str, user: str, folder: str
) -> None:
    container = {
        "name": "app",
        "image": "registry.example/app:1",
        "memory": 8,
        "command": command,
        "entryPoint": command,
        "environment": [{"name": "A", "value": value}],
        "dockerLabels": {"a": label},
        "user": user,
        "workingDirectory": folder,
    }
    try:
        definition = parse_task_definition({"family": "app", "containerDefinitions": [container]})
    except InvalidInputError:
        return
    told = render_spec(build_container_spec(definition, "app", CONTEXT), {})
    assert told["command"] == told["entrypoint"] == command
    assert told["env"]["A"] == value
    assert told["labels"]["a"] == label
    assert told.get("user", "") == user
    assert told.get("work_dir", "") == folder
    assert (told["privileged"], told.get("mounts", []), told.get("devices", [])) == (False, [], [])
