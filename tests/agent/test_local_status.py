"""What is told from outside of an agent that begins, runs, or is gone."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge import locks
from edge.agent.config import AgentConfig, load_config
from edge.agent.local_status import agent_pid, agent_seen, local_status, trust_in_force
from edge.agent.store.state import Change, StateStore
from edge.model.runtime_update import AgentSeen
from tests.agent.test_config import GOOD
from tests.model.signers import MemorySigner, sealed_bundle

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


def test_an_update_sees_what_the_agent_itself_says_and_nothing_older(config: AgentConfig, held: Path) -> None:
    said = {**CONNECTED, "version": "0.2.0", "ready": True}
    config.status_file.write_text(json.dumps(said))
    held.write_text("41\n")
    assert agent_seen(config) == AgentSeen(41, "0.2.0", ready=True, connected=True)
    held.write_text("42\n")
    assert (agent_seen(config), agent_pid(config)) == (None, 42), "it holds the place, and has not spoken yet"


def test_an_agent_that_says_nothing_of_being_ready_is_not(config: AgentConfig, held: Path) -> None:
    held.write_text("41\n")
    seen = agent_seen(config)
    assert seen is not None
    assert not seen.ready


def test_the_bundle_that_the_agent_followed_counts_until_another_is_handed_over(config: AgentConfig) -> None:
    key = MemorySigner()
    first, followed = (sealed_bundle([key], version=number) for number in (1, 2))
    config.trust_bundle.write_bytes(first)
    assert trust_in_force(config).version == 1, "there is no agent's store yet"
    with closing(StateStore(config.database)) as store:
        handed_over = hashlib.sha256(first).hexdigest().encode()
        store.commit(Change(meta={"trust": followed, "trust_handed_over": handed_over}))
    assert trust_in_force(config).version == 2
    other = sealed_bundle([MemorySigner()], version=1)
    config.trust_bundle.write_bytes(other)
    assert trust_in_force(config).bundle == other
