import threading
import time

from edge.agent.engine.workers import Workers


def test_what_is_submitted_together_runs_together_up_to_the_size() -> None:
    workers = Workers("test", 3)
    for _ in range(50):
        gate = threading.Barrier(3, timeout=10)
        met = threading.Semaphore(0)

        def job(gate: threading.Barrier = gate, met: threading.Semaphore = met) -> None:
            gate.wait()
            met.release()

        for _ in range(3):
            workers.submit(job)
        for _ in range(3):
            assert met.acquire(timeout=10), "a job was not begun though a thread was free"


def test_no_more_than_the_size_run_at_once() -> None:
    workers = Workers("test", 2)
    running, most, done = [0], [0], threading.Semaphore(0)
    lock = threading.Lock()

    def job() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.001)
        with lock:
            running[0] -= 1
        done.release()

    for _ in range(40):
        workers.submit(job)
    for _ in range(40):
        assert done.acquire(timeout=10)
    assert most[0] == 2


def test_a_job_that_comes_just_when_a_thread_gives_up_is_run() -> None:
    workers = Workers("test", 1, idle_seconds=0.002)
    for number in range(300):
        done = threading.Event()
        workers.submit(done.set)
        assert done.wait(10), f"job {number} was lost"
        time.sleep(0.002)


def test_a_job_that_fails_takes_no_worker_with_it(caplog: object) -> None:
    workers = Workers("test", 1)
    done = threading.Event()

    def broken() -> None:
        raise ValueError("no")

    workers.submit(broken)
    workers.submit(done.set)
    assert done.wait(10)
    assert caplog is not None


def test_idle_threads_go_away() -> None:
    before = threading.active_count()
    workers = Workers("test", 4, idle_seconds=0.01)
    done = threading.Semaphore(0)
    for _ in range(4):
        workers.submit(done.release)
    for _ in range(4):
        assert done.acquire(timeout=10)
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.005)
