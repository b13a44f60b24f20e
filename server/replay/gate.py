"""The gate to the workspace: how hard we may knock.

After a failure that says something about the workspace or our standing there (not about one write)
nobody goes through for a while that doubles; then one probe goes, and the rest follow if it gets
through. A 429 with `Retry-After` closes the gate for as long as it says.
"""

import random
from collections.abc import Callable
from datetime import timedelta

from server.domain.backoff import Backoff
from server.domain.clock import Clock

# A probe that is never heard of again must not keep everyone else out.
_LONGEST_PROBE_SECONDS = 120.0
_BACKOFF = Backoff(first=timedelta(seconds=0.5), ceiling=timedelta(seconds=30))


class Gate:
    """One per workspace."""

    def __init__(self, *, clock: Clock, jitter: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._closed_until = 0.0
        self._probe_until = 0.0
        self.last_failure: str | None = None
        self.last_success_ms: int | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether the last exchange with the workspace went well."""
        return self._failures == 0

    @property
    def wait_seconds(self) -> float:
        """How long it stays closed."""
        return max(self._closed_until - self._clock.monotonic(), 0.0)

    def may_pass(self) -> bool:
        """Whether a call may go now; while in doubt, only one at a time."""
        if self.wait_seconds > 0:
            return False
        if self._failures == 0:
            return True
        if self._clock.monotonic() < self._probe_until:
            return False
        self._probe_until = self._clock.monotonic() + _LONGEST_PROBE_SECONDS
        return True

    def passed(self) -> None:
        """The workspace answered."""
        self._failures = 0
        self._probe_until = 0.0
        self.last_failure = None
        self.last_success_ms = self._clock.now_ms()

    def failed(self, failure: str, retry_after: timedelta | None = None) -> None:
        """The workspace could not be used."""
        self._probe_until = 0.0
        self.last_failure = failure
        if self.wait_seconds > 0 and self._failures and retry_after is None:
            return  # calls that were under way together count as one failure
        self._failures += 1
        wait = _BACKOFF.delay(self._failures, self._jitter)
        if retry_after is not None:
            wait = max(wait, retry_after)
        self._closed_until = self._clock.monotonic() + wait.total_seconds()

    def abandoned(self) -> None:
        """A call that was let through did not take place."""
        self._probe_until = 0.0
