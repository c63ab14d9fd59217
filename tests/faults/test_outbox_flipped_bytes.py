"""Every byte of a buffer is flipped in turn: the start succeeds, what comes is what was put, and the rest is told.

Here a sample of the bytes; `./dev soak crash` flips all of a mebibyte.
"""

import random

import pytest

from tests.support.flips import Buffer, check_flip

SAMPLE = 600


@pytest.fixture(scope="module")
def buffer() -> Buffer:
    return Buffer.make(blocks=60)


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_byte_loses_its_block_at_most_and_is_told(buffer: Buffer, part: int) -> None:
    chance = random.Random(part)
    for _ in range(SAMPLE // 4):
        check_flip(buffer, chance.randrange(buffer.size), 1 << chance.randrange(8))


def test_every_byte_of_a_header_is_guarded(buffer: Buffer) -> None:
    for offset in range(100):
        check_flip(buffer, offset, 0x80)


def test_every_byte_of_the_cursor_is_guarded(buffer: Buffer) -> None:
    for offset in (*range(4096, 4096 + 100), *range(100)):
        check_flip(buffer, offset, 1, "cursor")


def test_every_byte_of_the_epoch_is_guarded(buffer: Buffer) -> None:
    for offset in (*range(4096, 4096 + 60), *range(60)):
        check_flip(buffer, offset, 1, "epoch")
