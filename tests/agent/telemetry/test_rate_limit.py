from edge.agent.telemetry.rate_limit import TokenBucket


def test_a_burst_passes_and_then_the_rate() -> None:
    bucket = TokenBucket(rate=10, burst=100, now=0)
    assert bucket.wait_for(100, 0) == 0
    bucket.take(100, 0)
    assert bucket.wait_for(1, 0) == 0.1
    assert bucket.available(5) == 50
    assert bucket.available(1000) == 100


def test_a_debt_is_paid_off_before_anything_passes() -> None:
    bucket = TokenBucket(rate=10, burst=20, now=0)
    bucket.take(120, 0)
    assert bucket.available(5) == -50
    assert bucket.wait_for(10, 5) == 6


def test_more_than_a_burst_waits_for_a_whole_one_and_not_for_ever() -> None:
    bucket = TokenBucket(rate=10, burst=20, now=0)
    assert bucket.wait_for(1000, 0) == 0
    bucket.take(20, 0)
    assert bucket.wait_for(1000, 0) == 2


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    bucket = TokenBucket(rate=10, burst=20, now=100)
    bucket.take(20, 100)
    assert bucket.available(50) == 0
