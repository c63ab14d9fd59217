import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from edge import locks

HOLD = """
import sys, time
from edge import locks
file = open(sys.argv[1], "a+")
print(locks.take(file), flush=True)
time.sleep(60)
"""


def test_a_lock_is_held_by_one_and_seen_by_all_until_its_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a+") as first, path.open("a+") as second:
        assert (locks.is_held(second), locks.take(first)) == (False, True)
        assert (locks.is_held(second), locks.take(second)) == (True, False)
        first.close()
        assert (locks.is_held(second), locks.take(second)) == (False, True)


def test_a_lock_goes_with_the_process_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with path.open("r+") as file:
            assert locks.is_held(file)
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
            assert not locks.is_held(file)


def test_looking_takes_nothing_from_one_who_comes_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            with path.open("r+") as file:
                locks.is_held(file)

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for looker in lookers:
        looker.start()
    refused = 0
    for _ in range(2000):
        with path.open("a+") as file:
            refused += not locks.take(file)
    done.set()
    for looker in lookers:
        looker.join()
    assert refused == 0
