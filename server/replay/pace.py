"""How often we knock at the workspace: a token bucket that learns what the workspace can take.

A 429 halves the rate; from there it climbs back to what it was within a minute, so a limit that stays where
it is refuses about one call a minute. All calls of the process share the bucket, whatever they are for.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from server.domain.clock import Clock
from server.journal.leases import LeaseLostError
from server.replay.turns import current_turn

_LEAST_RATE = 0.5
_CLIMB_SECONDS = 60.0
_MEASURED_SECONDS = 5.0


class TokenBucket:
    """A rate of calls per second, at most `ceiling`; a second's worth may go at once."""

    def __init__(self, *, ceiling: float, clock: Clock) -> None:
        self._ceiling = ceiling
        self._clock = clock
        self._rate = ceiling
        self._climb = 0.0
        self._tokens = ceiling
        self._counted_at = clock.monotonic()
        self._halved_at = float("-inf")
        self._admitted: deque[float] = deque()

    @property
    def ceiling(self) -> float:
        """Most calls per second, when nothing is refused."""
        return self._ceiling

    @property
    def rate(self) -> float:
        """Calls per second, at this moment."""
        self._count()
        return self._rate

    def take(self) -> float:
        """Take a token; how many seconds to wait until it is there."""
        self._count()
        self._tokens -= 1
        self._remember(self._clock.monotonic())
        return max(-self._tokens / self._rate, 0.0)

    def halve(self, admitted_at: float) -> None:
        """A call that was admitted then was refused as one too many. Calls of one burst count once."""
        if admitted_at < self._halved_at:
            return
        self._count()
        now = self._clock.monotonic()
        before = min(self._rate, max(self._recent_rate(now), _LEAST_RATE))
        self._rate = max(before / 2, _LEAST_RATE)
        self._climb = (before - self._rate) / _CLIMB_SECONDS or _LEAST_RATE / _CLIMB_SECONDS
        self._tokens = 0.0
        self._halved_at = now

    def _count(self) -> None:
        now = self._clock.monotonic()
        passed = now - self._counted_at
        self._counted_at = now
        self._tokens = min(self._tokens + passed * self._rate, max(self._rate, 1.0))
        self._rate = min(self._rate + passed * self._climb, self._ceiling)

    def _remember(self, now: float) -> None:
        self._admitted.append(now)
        while self._admitted[0] < now - _MEASURED_SECONDS:
            self._admitted.popleft()

    def _recent_rate(self, now: float) -> float:
        """Calls per second that really went, of late."""
        recent = sum(1 for moment in self._admitted if moment >= now - _MEASURED_SECONDS)
        lasted = min(_MEASURED_SECONDS, max(now - self._admitted[0], 1.0)) if self._admitted else 1.0
        return recent / lasted


class Pace:
    """Lets calls through in the order they come, as often as the bucket allows."""

    def __init__(
        self,
        bucket: TokenBucket,
        *,
        clock: Clock,
        observe: Callable[[float], None] = lambda rate: None,
    ) -> None:
        self._bucket = bucket
        self._clock = clock
        self._observe = observe
        self._turnstile = asyncio.Lock()

    async def admit(self) -> float:
        """Wait until a call may go; the moment it was let through, for `throttled`.

        Raises:
            LeaseLostError: the caller's lease may have ended in the meantime: the lane may be another's.
        """
        async with self._turnstile:
            if (wait := self._bucket.take()) > 0:
                await asyncio.sleep(wait)
            self._observe(self._bucket.rate)
        turn = current_turn()
        now = self._clock.monotonic()
        if turn is not None and now >= turn.ends_at:
            raise LeaseLostError(turn.lease.lane.lane_id)
        return now

    def throttled(self, admitted_at: float) -> None:
        """The workspace refused a call as one too many."""
        self._bucket.halve(admitted_at)
        self._observe(self._bucket.rate)
