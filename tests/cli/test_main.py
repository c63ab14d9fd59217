import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge import __version__
from edge.cli import COMMANDS, main
from edge.mqtt.broker import Broker, BrokerSettings
from tests.cli.bench import Bench

HEAVY = ("paho", "pydantic", "cryptography", "rich", "podman", "sqlite3", "ssl", "asyncio")


def edge(*words: str, capture: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(words)
    captured = capture.readouterr()
    return code, captured.out, captured.err


def test_help_imports_nothing_heavy() -> None:
    program = "import sys; from edge.cli import main; code = main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".", maxsplit=1)[0] for name in done.stderr.split()}
    assert loaded & set(HEAVY) == set()
    assert not any(name.startswith("edge.cli.") for name in done.stderr.split())


def test_commands_that_need_no_fleet_do_not_import_its_libraries() -> None:
    program = "import sys; from edge.cli import main; main(['fleet', 'init', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"paho", "cryptography", "rich"} & {name.split(".")[0] for name in done.stdout.split()} == set()


def test_help_teaches_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge("--help", capture=capsys)
    assert code == 0
    assert "edge fleet init --broker" in out
    assert "edge task run" in out


def test_no_words_show_the_same_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert edge(capture=capsys)[1] == edge("--help", capture=capsys)[1]


def test_a_group_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge("task", "--help", capture=capsys)
    assert code == 0
    assert "edge task describe" in out
    assert "edge device" not in out
    assert edge("task", capture=capsys)[0] == 2


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert edge("--version", capture=capsys)[:2] == (0, f"edge {__version__}\n")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("tusk", "ls"), "Did you mean `edge task`?"),
        (("task", "lst"), "Did you mean `edge task ls`?"),
        (("zzz",), "has: agent, audit, controller, device, doctor"),
        (("--verbose",), "edge --help"),
        (("task", "ls", "--al"), "edge task ls --help"),
        (("task", "run"), "edge task run --help"),
    ],
)
def test_a_wrong_word_gets_a_hint(words: tuple[str, ...], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = edge(*words, capture=capsys)
    assert (code, out) == (2, "")
    assert err.startswith("edge: ")
    assert hint in err


@pytest.mark.parametrize("words", [words for words, row in COMMANDS.items() if row.on_fleet])
def test_every_fleet_command_has_help_and_examples(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = edge(*words, "--help", capture=capsys)
    assert code == 0
    assert "--output" in out
    module = importlib.import_module(COMMANDS[words].module)
    assert module.HELP.split()[0] in out
    assert "--fleet" in out
    assert "examples:" in out


def test_a_fleet_that_is_not_there_is_told_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = edge("task", "ls", "--fleet", str(tmp_path / "away"), capture=capsys)
    assert code == 3
    assert "edge fleet init" in err
    assert not (tmp_path / "away").exists()


def test_an_error_in_json_is_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = edge("task", "ls", "--output", "json", "--fleet", str(tmp_path), capture=capsys)
    assert (code, out) == (3, "")
    told = json.loads(err)
    assert (told["error"], "no fleet" in told["message"]) == ("NotFoundError", True)


def test_options_may_stand_before_the_command(bench: Bench) -> None:
    assert main(["--fleet", str(bench.folder), "--output=json", "task-definition", "ls"]) == 0
    assert json.loads(bench.capture.readouterr().out)["taskDefinitionArns"]


def test_the_fleets_folder_may_be_named_by_the_environment(bench: Bench) -> None:
    command = [sys.executable, "-c", "import sys; from edge.cli import main; sys.exit(main(['task-definition', 'ls']))"]
    environment = os.environ | {"EDGE_FLEET": str(bench.folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "app:1" in done.stdout


def test_ctrl_c_ends_with_130(bench: Bench) -> None:
    def interrupt(_: BrokerSettings) -> Broker:
        raise KeyboardInterrupt

    assert main(["task", "run", "app", "--fleet", str(bench.folder)], brokers=interrupt) == 130


def test_a_reader_that_has_gone_is_no_traceback(bench: Bench) -> None:
    program = (
        "import os, sys; reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)\n"
        f"from edge.cli import main; sys.exit(main(['task-definition', 'ls', '--fleet', {str(bench.folder)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")
