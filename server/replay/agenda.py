"""When the supervisor has something to do: a look at the database, or a free place to fill.

Looks that are close together are one, and after a long one a while is left to others: with a hundred
thousand lanes waiting, a look is not free.
"""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from server.domain.clock import Clock

LEAST_REST = 0.05
_POLL_SECONDS = 2.0
_REST_PER_LOOK = 3.0
# A look may have been long because the process was stopped in the middle of it.
_LONGEST_REST = 10.0


class Agenda:
    """Moments in the clock's steady seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._planned: set[float] = set()
        self._poll_at = clock.monotonic()
        self._earliest_look = clock.monotonic()
        self._refill_at = math.inf
        self._changed = asyncio.Event()

    def plan_look(self, moment: float) -> None:
        """Look at that moment, or a little later."""
        moment = math.ceil(moment / LEAST_REST) * LEAST_REST
        if moment < self._look_at:
            self._changed.set()
        self._planned.add(moment)

    def plan_refill(self, moment: float) -> None:
        """Fill free places at that moment."""
        if moment < self._refill_at:
            self._refill_at = moment
            self._changed.set()

    def wake(self) -> None:
        """Let `wait` return now."""
        self._refill_at = -math.inf
        self._changed.set()

    async def wait(self) -> bool:
        """Until something is due; whether that is a look."""
        while (wait := min(self._look_at, self._refill_at) - self._clock.monotonic()) > 0:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
        self._refill_at = math.inf
        return self._clock.monotonic() >= self._look_at

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Around a look: plans the next one, at the latest."""
        began = self._clock.monotonic()
        self._poll_at = began + _POLL_SECONDS
        self._planned = {moment for moment in self._planned if moment > began}
        try:
            yield
        finally:
            ended = self._clock.monotonic()
            rest = min(_REST_PER_LOOK * (ended - began), _LONGEST_REST)
            self._earliest_look = ended + max(LEAST_REST, rest)

    @property
    def _look_at(self) -> float:
        return max(min(self._planned | {self._poll_at}), self._earliest_look)
