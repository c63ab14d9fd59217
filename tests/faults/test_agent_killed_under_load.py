"""The agent dies by SIGKILL again and again while containers speak, publish and are measured (`./dev soak kills`)."""

import random

import pytest

from tests.support.killed_agent import kill_under_load, start_measuring
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto, pytest.mark.timeout(300)]
KILLS = 20


def test_what_was_acknowledged_arrives_once_and_no_container_is_made_anew(stack: Stack) -> None:
    start_measuring(stack)
    left = kill_under_load(stack, KILLS, random.Random(7))
    assert left.acknowledged > KILLS, left
    assert not left.lost, left
    assert not left.doubled, left
    assert not left.missing, left
    assert not left.recreated, left
