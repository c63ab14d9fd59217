"""No shell reads what edge starts: every program is started with a list of words."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
STARTS: Final = frozenset({"run", "Popen", "call", "check_call", "check_output"})
SHELLS: Final = frozenset({"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"})


def shells_in(text: str) -> Iterator[str]:
    """Yield each call that a shell would read."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        where = f"line {node.lineno}: {owner}.{name}"
        if owner in ("os", "subprocess", "asyncio") and name in SHELLS:
            yield where
        elif owner == "subprocess" and name in STARTS:
            if any(one.arg == "shell" for one in node.keywords):
                yield f"{where}(shell=…)"
            if node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr | ast.BinOp):
                yield f"{where}(a text)"


@pytest.mark.parametrize("path", sorted((ROOT / "edge").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_shell_reads_what_is_started(path: Path) -> None:
    assert list(shells_in(path.read_text())) == []


@pytest.mark.parametrize(
    "text", ["os.system('a')", "subprocess.run('a b')", "subprocess.run(x, shell=True)", "subprocess.Popen(f'{x}')"]
)
def test_a_shell_is_found(text: str) -> None:
    assert len(list(shells_in(text))) == 1
