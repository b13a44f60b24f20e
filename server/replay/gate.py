"""The gate to the workspace: whether we may knock at all.

After a failure that says something about the workspace or our standing there (not about one write)
nobody goes through for a while that doubles; then one probe goes, and the rest follow if it gets
through. A 429 with `Retry-After` closes the gate for as long as it says. How often we knock while the gate
is open is the business of `replay.pace`.
"""

import random
from collections.abc import Callable
from datetime import timedelta

from server.domain.backoff import Backoff
from server.domain.clock import Clock
from server.replay.troubles import LaneTroubles
from server.replay.turns import Turn, current_turn

# A probe that is never heard of again must not keep everyone else out.
_LONGEST_PROBE_SECONDS = 120.0
_BACKOFF = Backoff(first=timedelta(seconds=0.5), ceiling=timedelta(seconds=30))
# Someone waits: the workspace is asked this often, whatever it said before.
_HURRIED_SECONDS = 1.0


class Gate:
    """One per workspace. Callers are told apart by their turn (`replay.turns`)."""

    def __init__(self, *, clock: Clock, jitter: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._jitter = jitter
        self.troubles = LaneTroubles(jitter=jitter)
        self._failures = 0
        self._failed_at = 0.0
        self._closed_until = 0.0
        self._asked_until = 0.0
        self._generation = 0
        self._prober: Turn | None = None
        self._probe_until = 0.0
        self._on_reopening: Callable[[], None] = lambda: None
        self._is_hurried: Callable[[], bool] = lambda: False
        self.last_failure: str | None = None
        self.last_success_ms: int | None = None

    def on_reopening(self, listener: Callable[[], None]) -> None:
        """Tell `listener` when the workspace is well again."""
        self._on_reopening = listener

    def hurry_while(self, condition: Callable[[], bool]) -> None:
        """While this holds, ask the workspace again after a moment, however often it failed."""
        self._is_hurried = condition

    @property
    def is_hurried(self) -> bool:
        """Whether somebody waits for what is to be delivered."""
        return self._is_hurried()

    @property
    def is_healthy(self) -> bool:
        """Whether the last exchange with the workspace went well."""
        return self._failures == 0

    @property
    def wait_seconds(self) -> float:
        """How long it stays closed."""
        until = self._closed_until
        if self._is_hurried():
            until = min(until, self._failed_at + _HURRIED_SECONDS)
        return max(max(until, self._asked_until) - self._clock.monotonic(), 0.0)

    def may_pass(self) -> bool:
        """Whether a call may go now; while in doubt, only one at a time."""
        if self.wait_seconds > 0:
            return False
        turn = current_turn()
        if self._failures:
            if self._clock.monotonic() < self._probe_until:
                return False
            self._prober = turn
            self._probe_until = self._clock.monotonic() + _LONGEST_PROBE_SECONDS
        if turn is not None:
            turn.gate_generation = self._generation
        return True

    def passed(self) -> None:
        """The workspace answered."""
        was_closed = self._failures > 0
        self._failures = 0
        self._end_probe()
        self.last_failure = None
        self.last_success_ms = self._clock.now_ms()
        if was_closed:
            self._on_reopening()

    def failed(self, failure: str, retry_after: timedelta | None = None) -> None:
        """The workspace could not be used."""
        now = self._clock.monotonic()
        self.last_failure = failure
        if retry_after is not None:
            self._asked_until = max(self._asked_until, now + retry_after.total_seconds())
        if self._is_old_news():
            return
        self._end_probe()
        self._generation += 1
        self._failures += 1
        self._failed_at = now
        self._closed_until = now + _BACKOFF.delay(self._failures, self._jitter).total_seconds()

    def abandoned(self) -> None:
        """The caller's call, if it was let through, did not take place."""
        if self._prober is current_turn():
            self._end_probe()

    def _is_old_news(self) -> bool:
        """Whether the caller went through before the gate was last closed: such failures count as one."""
        turn = current_turn()
        if turn is not None:
            return turn.gate_generation < self._generation
        return self._failures > 0 and self._clock.monotonic() < self._closed_until

    def _end_probe(self) -> None:
        self._prober = None
        self._probe_until = 0.0
