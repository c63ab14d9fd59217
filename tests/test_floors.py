"""The house has floors: who may import whom, and which libraries live where.

Every import counts, wherever it stands in a file: at the top, inside a function, under `TYPE_CHECKING`.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent

GROUND: Final = frozenset({"edge", "edge.errors"})
"""`edge` itself holds the version and imports nothing."""
BESIDE: Final = frozenset(
    {
        "edge.ask",
        "edge.files",
        "edge.locks",
        "edge.stop_signals",
        "edge.spawn",
        "edge.fd_store",
        "edge.supervisor",
        "edge.podman_host",
        "edge.sd_notify",
        "edge.lean_imports",
        "edge.memory",
        "edge.image_service",
        "edge.managed_runtime",
        "edge.process_memory",
    }
)
"""Small tools right above the errors; they know no word of the model."""
MODEL: Final = GROUND | {"edge.model"}
MQTT: Final = MODEL | BESIDE | {"edge.mqtt"}
SETTINGS: Final = frozenset(
    {
        "edge.agent.config",
        "edge.agent.image_rules",
        "edge.agent.trust_file",
        "edge.agent.identity_file",
        "edge.agent.device_key",
        "edge.agent.device_folder",
        "edge.agent.secrets_key",
        "edge.agent.secret_opening",
        "edge.agent.key_telling",
        "edge.agent.task_token",
    }
)
STORE: Final = MQTT | {"edge.agent.store"}
TELEMETRY: Final = STORE | {"edge.agent.telemetry"}
ENGINE: Final = TELEMETRY | {"edge.agent.engine"}
ADAPTERS: Final = ENGINE | {"edge.agent.adapters"}
APP: Final = (
    ADAPTERS
    | SETTINGS
    | {"edge.agent", "edge.agent.collecting", "edge.agent.sending", "edge.agent.renewal", "edge.agent.app"}
)
ENROLLING: Final = frozenset({"edge.agent.enrolling", "edge.agent.enrolling_request"})
"""What a device does once, before it has anything."""
LOOKING: Final = frozenset({"edge.agent.check", "edge.agent.local_status"})
IMAGE_FORMATS: Final = frozenset({"edge.images.oci", "edge.images.soci", "edge.images.fuse"})

FLOORS: Final[Mapping[str, frozenset[str]]] = {
    "edge": frozenset(),
    "edge.errors": frozenset(),
    **dict.fromkeys(BESIDE, GROUND | BESIDE),
    "edge.model": MODEL,
    "edge.mqtt": MQTT,
    # A package's own `__init__` re-exports nothing.
    "edge.agent": frozenset(),
    "edge.agent.config": MODEL | BESIDE | SETTINGS,
    "edge.agent.image_rules": MODEL | BESIDE | SETTINGS,
    "edge.agent.trust_file": MODEL | BESIDE | SETTINGS,
    "edge.agent.identity_file": MODEL | BESIDE | SETTINGS,
    "edge.agent.device_key": MODEL | BESIDE | SETTINGS,
    "edge.agent.device_folder": MODEL | BESIDE | SETTINGS,
    "edge.agent.secrets_key": MODEL | BESIDE | SETTINGS,
    "edge.agent.secret_opening": MODEL | BESIDE | SETTINGS,
    "edge.agent.key_telling": MODEL | BESIDE | SETTINGS,
    "edge.agent.task_token": MODEL | BESIDE | SETTINGS,
    "edge.agent.store": STORE,
    "edge.agent.telemetry": TELEMETRY,
    "edge.agent.engine": ENGINE,
    "edge.agent.adapters": ADAPTERS,
    "edge.agent.collecting": ADAPTERS | SETTINGS,
    "edge.agent.sending": ADAPTERS | SETTINGS | {"edge.agent.collecting"},
    "edge.agent.renewal": ADAPTERS | SETTINGS,
    "edge.agent.app": APP,
    "edge.agent.enrolling_request": MQTT,
    "edge.agent.enrolling": ADAPTERS | SETTINGS | ENROLLING,
    # Commands that look at a device from outside: no engine, no Podman, no connection.
    "edge.agent.check": MODEL | BESIDE | SETTINGS | LOOKING | {"edge.agent"},
    "edge.agent.local_status": MODEL | BESIDE | SETTINGS | LOOKING | {"edge.agent"},
    # Looks at everything on the device, and at nothing of the fleet's side.
    "edge.doctor": ADAPTERS | SETTINGS | LOOKING | {"edge.doctor"},
    "edge.images.oci": MODEL | BESIDE | IMAGE_FORMATS,
    "edge.images.soci": MODEL | BESIDE | IMAGE_FORMATS,
    "edge.images.fuse": MODEL | BESIDE | IMAGE_FORMATS,
    "edge.images": MODEL | BESIDE | IMAGE_FORMATS | {"edge.images"},
    "edge.firmware": MODEL | BESIDE | {"edge.firmware"},
    "edge.fleet": MQTT | {"edge.fleet"},
    "edge.cli": APP
    | LOOKING
    | ENROLLING
    | IMAGE_FORMATS
    | {"edge.images", "edge.firmware", "edge.fleet", "edge.doctor", "edge.cli"},
    "edge.__main__": GROUND | {"edge.cli"},
}
"""For each floor (a module, or a package with all that is in it): the floors it may import from."""

LIBRARIES: Final[Mapping[str, frozenset[str]]] = {
    "podman": frozenset({"edge.agent.adapters.podman"}),
    "requests": frozenset({"edge.agent.adapters.podman"}),
    "urllib3": frozenset({"edge.agent.adapters.podman", "edge.images.oci"}),
    "paho": frozenset({"edge.mqtt"}),
    "rich": frozenset({"edge.cli"}),
    "sqlite3": frozenset({"edge.agent.store", "edge.agent.local_status", "edge.fleet.database"}),
    "cryptography": frozenset(
        {
            "edge.model.envelope",
            "edge.model.trust",
            "edge.model.image_trust",
            "edge.model.enrollment",
            "edge.model.sealing",
            "edge.agent.device_key",
            "edge.agent.secrets_key",
            "edge.agent.task_token",
            "edge.fleet",
        }
    ),
}
"""Libraries that cost memory or time to import, or whose exceptions must not travel, and where each one may be."""


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "edge").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES: Final = _modules()


def _is_in(module: str, floor: str) -> bool:
    return module == floor or module.startswith(f"{floor}.")


def _floor_of(module: str) -> str:
    """Return the narrowest floor; the package `edge` is one module, not a roof over everything."""
    fitting = [floor for floor in FLOORS if module == floor or (floor != "edge" and _is_in(module, floor))]
    if not fitting:
        return ""
    floor = max(fitting, key=len)
    # `edge.agent` is a floor for its `__init__` alone: a new module in it has to be given a place.
    return "" if floor == "edge.agent" and module != "edge.agent" else floor


def _imports(text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in MODULES else base


def violations(module: str, text: str) -> list[str]:
    """Return what a module of that name and text imports and may not, one line each."""
    floor = _floor_of(module)
    if not floor:
        return [f"{module} stands on no floor"]
    found = []
    for line, imported in _imports(text):
        library = imported.split(".", 1)[0]
        if imported.startswith("."):
            found.append(f"{module}:{line} imports relatively")
        elif library == "edge":
            if imported != module and _floor_of(imported) not in FLOORS[floor]:
                found.append(f"{module}:{line} imports {imported}")
        elif library in LIBRARIES and not any(_is_in(module, place) for place in LIBRARIES[library]):
            found.append(f"{module}:{line} imports {imported}")
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_is_below_it(module: str) -> None:
    assert violations(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("edge.errors", "import edge.model.task"),
        ("edge.errors", "from edge.files import write_atomically"),
        ("edge", "from edge.errors import EdgeError"),
        ("edge.files", "from edge.model import task"),
        ("edge.spawn", "from edge.mqtt.broker import Broker"),
        ("edge.fd_store", "from edge.model.topics import ROOT"),
        ("edge.supervisor", "from edge.agent.config import load_config"),
        ("edge.podman_host", "from edge.agent.engine.ports import HostFacts"),
        ("edge.model.plan", "from edge.mqtt.broker import BrokerEvent"),
        ("edge.model.plan", "from edge.agent.store.state import StateStore"),
        ("edge.model.plan", "from edge.files import write_atomically"),
        ("edge.mqtt.broker", "from edge.agent.store.state import StateStore"),
        ("edge.mqtt.broker", "from edge.fleet.link import FleetLink"),
        ("edge.agent.store.state", "from edge.agent.engine.events import StopRequested"),
        ("edge.agent.store.state", "from edge.agent.telemetry.ports import Records"),
        ("edge.agent.telemetry.collector", "from edge.agent.engine.ports import Clock"),
        ("edge.agent.telemetry.collector", "from edge.agent.adapters.clock import SystemClock"),
        ("edge.agent.engine.engine", "from edge.agent.adapters.clock import SystemClock"),
        ("edge.agent.engine.engine", "from edge.agent.config import AgentConfig"),
        ("edge.agent.engine.engine", "from edge.agent.app import run"),
        ("edge.agent.adapters.host", "from edge.agent.app import run"),
        ("edge.agent.adapters.host", "from edge.agent.config import AgentConfig"),
        ("edge.agent.app", "from edge.cli.output import note"),
        ("edge.agent.app", "from edge.agent.check import check"),
        ("edge.agent.config", "from edge.agent.engine.ports import Clock"),
        ("edge.agent.trust_file", "from edge.mqtt.broker import Broker"),
        ("edge.memory", "from edge.agent.app import run"),
        ("edge.agent.check", "from edge.agent.app import run"),
        ("edge.agent.app", "from edge.agent.enrolling import enroll"),
        ("edge.agent.enrolling", "from edge.fleet.folder import Fleet"),
        ("edge.agent.enrolling_request", "from edge.agent.device_folder import DeviceFolder"),
        ("edge.doctor.reading", "from edge.fleet.folder import Fleet"),
        ("edge.doctor.judging", "from edge.cli.output import note"),
        ("edge.agent.local_status", "from edge.agent.engine.engine import Engine"),
        ("edge.images.oci.registry", "from edge.images.store import ImageStore"),
        ("edge.images.soci.ztoc", "from edge.mqtt.broker import Broker"),
        ("edge.images.fuse.server", "from edge.cli import main"),
        ("edge.images.store", "from edge.cli import main"),
        ("edge.fleet.link", "from edge.cli import main"),
        ("edge.agent.app", "from edge.images.store import ImageStore"),
        ("edge.agent.app", "from edge.fleet.folder import Fleet"),
        ("edge.images.store", "from edge.agent.config import load_config"),
        ("edge.images.store", "from edge.fleet.folder import Fleet"),
        ("edge.fleet.link", "from edge.agent.config import load_config"),
        ("edge.fleet.link", "from edge.images.store import ImageStore"),
        ("edge.firmware.updater", "from edge.agent.config import load_config"),
        ("edge.firmware.updater", "from edge.images.oci.client import RegistryClient"),
        ("edge.agent.app", "from edge.firmware.updater import Updater"),
        ("edge.managed_runtime", "from edge.model.topics import ROOT"),
        ("edge.__main__", "from edge.agent.app import run"),
    ],
)
def test_an_import_from_a_floor_above_or_beside_is_found(module: str, text: str) -> None:
    assert len(violations(module, text)) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("edge.agent.engine.hands", "import podman"),
        ("edge.agent.adapters.host", "from podman.errors import APIError"),
        ("edge.agent.adapters.clock", "import requests"),
        ("edge.agent.app", "import paho.mqtt.client as mqtt"),
        ("edge.fleet.link", "from paho.mqtt import client"),
        ("edge.fleet.watching", "from rich.table import Table"),
        ("edge.agent.engine.engine", "import sqlite3"),
        ("edge.fleet.folder", "import sqlite3"),
        ("edge.cli.task_ls", "from sqlite3 import connect"),
        ("edge.model.task", "from cryptography import x509"),
        ("edge.agent.trust_file", "from cryptography.exceptions import InvalidSignature"),
    ],
)
def test_a_heavy_library_away_from_its_place_is_found(module: str, text: str) -> None:
    assert len(violations(module, text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "def later():\n    from edge.cli import main",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from edge.cli import main",
        "try:\n    import edge.cli\nexcept ImportError:\n    pass",
        "import os, edge.cli.output",
        "from edge import cli",
    ],
)
def test_an_import_is_found_wherever_and_however_it_is_written(text: str) -> None:
    assert len(violations("edge.model.task", text)) == 1


def test_a_relative_import_is_found() -> None:
    assert violations("edge.model.task", "from . import plan") == ["edge.model.task:1 imports relatively"]


@pytest.mark.parametrize("module", ["edge.stray", "edge.agent.stray"])
def test_a_new_module_has_to_be_given_a_floor(module: str) -> None:
    assert violations(module, "") == [f"{module} stands on no floor"]


def test_what_is_below_and_the_standard_library_may_be_imported() -> None:
    text = "import os\nfrom edge.errors import EdgeError\nfrom edge import __version__\nfrom edge.model import task\n"
    assert violations("edge.agent.engine.engine", text + "from edge.agent.store.state import StateStore\n") == []
    assert violations("edge.agent.store.state", "import sqlite3") == []
    assert violations("edge.agent.adapters.podman.api", "import podman.errors\nimport requests") == []
