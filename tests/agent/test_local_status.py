"""What is told from outside of an agent that begins, runs, or is gone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import locks
from edge.agent.config import AgentConfig, load_config
from edge.agent.local_status import local_status
from tests.agent.test_config import GOOD

CONNECTED = {"pid": 41, "connection": {"connected": True, "reason": ""}}


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    loaded = load_config(path)
    loaded.state_dir.mkdir()
    loaded.status_file.write_text(json.dumps(CONNECTED))
    return loaded


@pytest.fixture
def held(config: AgentConfig) -> Iterator[Path]:
    with config.pid_file.open("w") as file:
        assert locks.take(file)
        yield config.pid_file


def test_what_a_running_agent_says_is_told(config: AgentConfig, held: Path) -> None:
    held.write_text("41\n")
    status = local_status(config)
    assert (status["running"], status["pid"], status["connection"]["connected"]) == (True, 41, True)


@pytest.mark.parametrize("written", ["", "42\n"])
def test_what_the_one_before_said_is_not_taken_for_its_successor_s_word(
    config: AgentConfig, held: Path, written: str
) -> None:
    held.write_text(written)
    status = local_status(config)
    assert (status["running"], status["pid"]) == (True, None)
    assert status["connection"] == {"connected": False, "reason": "the agent has just begun"}


def test_the_word_of_an_agent_that_is_gone_does_not_count(config: AgentConfig) -> None:
    config.pid_file.write_text("41\n")
    status = local_status(config)
    assert (status["running"], status["connection"]["reason"]) == (False, "the agent does not run")
