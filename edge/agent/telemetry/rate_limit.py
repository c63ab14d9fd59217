"""How much somebody may bring in a second: token buckets, pure, told the time."""


class TokenBucket:
    """Lets `rate` a second through, and up to `burst` at once after a time of quiet."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled_at = now

    def available(self, now: float) -> float:
        """Return how much may pass now; negative while a debt is paid off."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled_at) * self._rate)
        self._filled_at = now
        return self._tokens

    def wait_for(self, amount: float, now: float) -> float:
        """Return after how many seconds `amount` may pass, 0 for now; more than a burst waits for a whole one."""
        return max(0.0, min(amount, self._burst) - self.available(now)) / self._rate

    def take(self, amount: float, now: float) -> None:
        """Let `amount` pass, if need be on credit."""
        self._tokens = self.available(now) - amount
