"""The collection says what it does: tables from specifications, packages for offline sites, units that are sound."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = ROOT / "ansible"
ROLES = sorted(path.parents[1] for path in (ANSIBLE / "roles").glob("*/meta/argument_specs.yml"))
PLAYBOOK = str(Path(sys.executable).with_name("ansible-playbook"))
OURS = ANSIBLE / "roles" / "edge" / "files"
UNITS = sorted((*OURS.iterdir(), *(ROOT / "firmware" / "image" / "units").iterdir()))


def run(*command: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=ANSIBLE, capture_output=True, text=True, timeout=110, check=False, **more)


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is not installed (apt-get install systemd)"
    return run(program, *arguments)


def texts_of(role: Path) -> str:
    files = [
        *role.glob("tasks/*.yml"),
        *role.glob("templates/*"),
        *role.glob("handlers/*.yml"),
        *role.glob("vars/*.yml"),
    ]
    return "\n".join(path.read_text() for path in files)


def options_of(role: Path) -> dict[str, Any]:
    specification = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    found: dict[str, Any] = specification["argument_specs"]["main"]["options"]
    return found


def test_readmes_and_defaults_are_those_of_the_specifications() -> None:
    done = run(sys.executable, "readme-tables", "--check")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_is_typed_named_after_its_role_explained_and_used(role: Path) -> None:
    text = texts_of(role)
    for name, option in options_of(role).items():
        assert name.startswith(f"{role.name}_")
        assert option["type"]
        assert option["description"]
        assert re.search(rf"\b{name}\b", text), f"nothing of the role uses {name}"


def test_an_offline_site_has_every_package_the_roles_install() -> None:
    script = (ANSIBLE / "offline-site").read_text()
    packages = re.search(r"^packages='([^']*)'", script, re.MULTILINE)
    assert packages is not None
    wanted: set[str] = set()
    for path in ANSIBLE.glob("roles/*/tasks/*.yml"):
        for task in yaml.safe_load(path.read_text()):
            for inner in (task, *task.get("block", ())):
                names = inner.get("ansible.builtin.apt", {}).get("name", [])
                wanted.update([names] if isinstance(names, str) else names)
    assert wanted == set(packages[1].split())


def test_the_collection_has_the_version_of_the_runtime() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ANSIBLE / "galaxy.yml").read_text())["version"] == version


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_every_line_of_the_unit(unit: Path, tmp_path: Path) -> None:
    # The programs are not at their place here; everything else is judged. A path unit wants its service beside it.
    for path in UNITS:
        text = re.sub(r"(?m)^(Exec\w+=[-+!@:]*)/(?:opt/edge|usr/lib/edge)\S+", r"\1/bin/true", path.read_text())
        (tmp_path / path.name).write_text(text)
    done = analyze("verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit.name))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("unit", "most"), [("edge-agent.service", 4.6), ("edge-images.service", 4.9)])
def test_no_unit_is_more_exposed_than_its_job_needs(unit: str, most: float) -> None:
    path = OURS / unit
    told = analyze("security", "--offline=yes", str(path)).stdout
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert score is not None, told
    assert float(score[1]) <= most


def test_the_configuration_that_is_written_is_one_an_agent_reads(tmp_path: Path) -> None:
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415 - half a second, for this test alone
    from ansible.template import Templar, trust_as_template  # noqa: PLC0415

    from edge.agent.config import load_config  # noqa: PLC0415

    settings = {
        "policy": {"host_paths": ["/srv/a b", '/srv/"q"'], "pids_limit": 64},
        "broker": {"keepalive_seconds": 30},
    }
    words = {
        "ansible_managed": "by a test", "edge_cluster": "shop", "edge_device": "pi-1",
        "edge_broker_host": "broker.example", "edge_broker_port": 8884, "edge_settings": settings,
    }  # fmt: skip
    template = (ANSIBLE / "roles" / "edge" / "templates" / "agent.toml.j2").read_text()
    text = Templar(loader=DataLoader(), variables=words).template(trust_as_template(template))
    path = tmp_path / "agent.toml"
    path.write_text(text)
    config = load_config(path)
    assert (config.device, config.broker_port, config.keepalive_seconds) == ("pi-1", 8884, 30)
    assert config.policy.host_paths == ("/srv/a b", '/srv/"q"')
    assert config.policy.pids_limit == 64


def test_every_playbook_is_understood() -> None:
    playbooks = sorted(map(str, (ANSIBLE / "playbooks").glob("*.yml")))
    done = run(PLAYBOOK, "--syntax-check", *playbooks, env={**os.environ, "ANSIBLE_NOCOLOR": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"playbook: {path}" in done.stdout for path in playbooks)


FACTS: dict[str, Any] = {
    "os_family": "Debian",
    "distribution": "Debian",
    "distribution_version": "12.11",
    "distribution_major_version": "12",
    "distribution_release": "bookworm",
    "architecture": "aarch64",
    "service_mgr": "systemd",
    "mounts": [{"mount": "/", "size_available": 9 << 30}],
}


@pytest.mark.parametrize(
    ("words", "facts", "told"),
    [
        ({"base_watchdog_seconds": "often"}, {}, "base_watchdog_seconds"),
        ({"base_free_mib": 700}, {"mounts": [{"mount": "/", "size_available": 99 << 20}]}, "99 MiB are free on /"),
        ({}, {"distribution": "Ubuntu", "distribution_version": "24.04"}, "Ubuntu 24.04 is not supported"),
        ({}, {"architecture": "armv7l"}, "armv7l is not supported"),
        ({}, {"service_mgr": "sysvinit"}, "edge up"),
    ],
)
def test_what_is_wrong_stops_the_play_with_its_name_before_anything_is_changed(
    words: dict[str, Any], facts: dict[str, Any], told: str, tmp_path: Path
) -> None:
    play = [{"hosts": "localhost", "gather_facts": False, "connection": "local", "roles": ["base"]}]
    path = tmp_path / "play.yml"
    path.write_text(json.dumps(play))
    given = {**words, "ansible_facts": {**FACTS, **facts}, "ansible_python_interpreter": sys.executable}
    environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(ANSIBLE / "roles"), "ANSIBLE_NOCOLOR": "1"}
    done = run(PLAYBOOK, "-i", "localhost,", "--check", "-e", json.dumps(given), str(path), env=environment)
    assert done.returncode != 0
    assert told in " ".join(done.stdout.split())
    assert "changed=0" in done.stdout
