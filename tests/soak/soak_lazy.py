"""Random reads against random deaths of the image service, the registry and the link; every byte is compared.

`EDGE_SOAK_ROUNDS` sets how many rounds, `EDGE_SOAK_SEED` repeats a run. A read that failed because its registry was
away for longer than it waits is told apart from one that never ended, or that brought wrong bytes.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import EdgeError
from tests.support.fault_proxy import Fault
from tests.support.lazy_rig import Rig, TestImage, content, push_image, rig
from tests.support.registry import Registry

NAME = "lazy"
ROUNDS = int(os.environ.get("EDGE_SOAK_ROUNDS", "200"))
SEED = int(os.environ.get("EDGE_SOAK_SEED", str(int(time.time()))))
READERS = 3
RECOVERY_SECONDS = 60.0


@dataclass(slots=True)
class Tally:
    """What was seen."""

    reads: int = 0
    compared: int = 0
    failed: int = 0
    wrong: int = 0
    hung: int = 0
    deaths: dict[str, int] = field(default_factory=dict)


def run(report: Any) -> None:
    """All rounds, one after the other, on one store."""
    chance, tally = random.Random(SEED), Tally()
    sys.stdout.write(f"seed {SEED}, {ROUNDS} rounds\n")
    with tempfile.TemporaryDirectory(prefix="edge-soak-") as name, Registry(Path(name) / "registry") as registry:
        images = [
            push_image(registry, "one", [content(1), content(2, 6)]),
            push_image(registry, "two", [content(3, 12)], index="v1"),
            push_image(registry, "three", [content(4, 8)], index=""),
        ]
        with rig(Path(name), registry, "--background-kib-per-second", "300") as made:
            for number in range(ROUNDS):
                _round(chance, made, images, tally)
                if (number + 1) % 20 == 0:
                    sys.stdout.write(f"round {number + 1}: {tally}\n")
                    sys.stdout.flush()
    for what, value, unit, goal in (
        ("rounds", ROUNDS, "", ""),
        ("files read", tally.reads, "", ""),
        ("bytes compared", tally.compared, "B", ""),
        ("reads that failed with an error, told", tally.failed, "", ""),
        *((f"deaths: {name}", count, "", "") for name, count in sorted(tally.deaths.items())),
        ("files with wrong bytes", tally.wrong, "", "<= 0"),
        ("reads that hung after recovery", tally.hung, "", "<= 0"),
    ):
        report.figure(name=what, value=value, unit=unit, goal=goal, holds=not goal or value == 0, runs=ROUNDS)


def _round(chance: random.Random, made: Rig, images: list[TestImage], tally: Tally) -> None:
    ready = [image for image in images if _prepared(made, image)]
    readers = [_start(chance, made, chance.choice(ready)) for _ in range(READERS)] if ready else []
    time.sleep(chance.uniform(0, 0.3))
    death = chance.choice(
        (_kill_the_service, _kill_the_registry, _cut_the_link, _stall_the_link, _lie, _remove, _nothing)
    )
    tally.deaths[death.__name__.strip("_")] = tally.deaths.get(death.__name__.strip("_"), 0) + 1
    death(chance, made, images)
    for reader, wanted in readers:
        _compare(reader, wanted, tally)


def _prepared(made: Rig, image: TestImage) -> bool:
    try:
        made.prepare(image)
    except EdgeError:
        return False
    return True


def _start(chance: random.Random, made: Rig, image: TestImage) -> "tuple[subprocess.Popen[bytes], bytes]":
    number = chance.randrange(len(image.files))
    names = chance.sample(sorted(image.files[number]), k=min(4, len(image.files[number])))
    reader = made.start_reading(*(made.path(image, name, number) for name in names))
    return reader, b"".join(image.files[number][name] for name in names)


def _compare(reader: "subprocess.Popen[bytes]", wanted: bytes, tally: Tally) -> None:
    tally.reads += 1
    try:
        found, problem = reader.communicate(timeout=RECOVERY_SECONDS)
    except subprocess.TimeoutExpired:
        tally.hung += 1
        return
    if problem:
        # An image that was removed, or a registry that was away: an error, and never other bytes before it.
        tally.failed += 1
        tally.wrong += not wanted.startswith(found) and not _pieces_of(found, wanted)
        return
    tally.compared += len(found)
    tally.wrong += found != wanted


def _pieces_of(found: bytes, wanted: bytes) -> bool:
    """`cat` goes on with the next file after an error: what came is some of the files, whole or begun."""
    at = 0
    for start in range(0, len(found), 4096):
        at = wanted.find(found[start : start + 4096], at)
        if at < 0:
            return False
    return True


def _kill_the_service(chance: random.Random, made: Rig, _images: list[TestImage]) -> None:
    made.service.kill()
    time.sleep(chance.uniform(0, 0.3))
    made.service.start()


def _kill_the_registry(chance: random.Random, made: Rig, _images: list[TestImage]) -> None:
    made.registry.kill()
    time.sleep(chance.uniform(0, 0.5))
    made.registry.start()


def _cut_the_link(chance: random.Random, made: Rig, _images: list[TestImage]) -> None:
    made.proxy.break_with(chance.choice((Fault.RESET, Fault.BREAK_OFF, Fault.UNAVAILABLE)))
    time.sleep(chance.uniform(0, 0.5))
    made.proxy.heal()


def _stall_the_link(chance: random.Random, made: Rig, images: list[TestImage]) -> None:
    made.proxy.break_with(Fault.STALL)
    time.sleep(chance.uniform(0, 0.3))
    if chance.random() < 0.5:
        _kill_the_service(chance, made, images)
    made.proxy.heal()


def _lie(chance: random.Random, made: Rig, _images: list[TestImage]) -> None:
    made.proxy.break_with(chance.choice((Fault.FLIP, Fault.WRONG_RANGE, Fault.EXPIRED_LINK)))
    time.sleep(chance.uniform(0, 0.5))
    made.proxy.heal()


def _remove(chance: random.Random, made: Rig, images: list[TestImage]) -> None:
    """Begin anew: without it everything is unpacked after a few rounds, and nothing is fetched any more."""
    image = chance.choice(images)
    try:
        made.service.ask("remove", image=f"{made.proxy.address}/{image.name}", force=True)
    except EdgeError:
        return


def _nothing(_chance: random.Random, _made: Rig, _images: list[TestImage]) -> None:
    return
