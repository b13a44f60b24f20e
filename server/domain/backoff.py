"""How long to wait before another try."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

_LARGEST_EXPONENT = 20


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubling waits with jitter, from `first` up to `ceiling`."""

    first: timedelta
    ceiling: timedelta

    def delay(self, attempt: int, jitter: Callable[[], float]) -> timedelta:
        """The wait after try number `attempt` (from 1); `jitter` gives a number in [0, 1)."""
        doubled = self.first * 2.0 ** min(max(attempt - 1, 0), _LARGEST_EXPONENT)
        return min(doubled, self.ceiling) * (0.5 + jitter() / 2)
