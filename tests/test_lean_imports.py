import subprocess
import sys

import pytest

from edge.lean_imports import without


def test_an_absent_module_cannot_be_imported_inside_and_can_afterwards() -> None:
    with without("json.tool"), pytest.raises(ModuleNotFoundError):
        __import__("json.tool")
    __import__("json.tool")


def test_a_module_that_is_loaded_stays_loaded() -> None:
    before = sys.modules["subprocess"]
    with without("subprocess"), pytest.raises(ModuleNotFoundError):
        __import__("subprocess")
    assert sys.modules["subprocess"] is before


def test_the_agent_loads_no_library_for_drawing() -> None:
    code = "import sys, edge.agent.app; sys.exit('rich.progress' in sys.modules or 'rich.console' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
