"""Counting failures by address, so that guessing takes for ever."""

from collections import deque

from server.domain.clock import Clock
from server.domain.errors import ErrorCode, MlflowError

_MOST_ADDRESSES = 10_000


class Attempts:
    """At most `most` failures in `seconds` for one address."""

    def __init__(self, *, clock: Clock, most: int = 20, seconds: float = 60.0) -> None:
        self._clock = clock
        self._most = most
        self._seconds = seconds
        self._failures: dict[str, deque[float]] = {}

    def require_some_left(self, address: str) -> None:
        """Refuse an address that has failed too often of late.

        Raises:
            MlflowError: 429, with the seconds until it may try again.
        """
        failures = self._failures.get(address)
        if failures is None:
            return
        now = self._clock.monotonic()
        while failures and failures[0] <= now - self._seconds:
            failures.popleft()
        if not failures:
            del self._failures[address]
        elif len(failures) >= self._most:
            wait = max(int(failures[0] + self._seconds - now) + 1, 1)
            raise MlflowError(
                ErrorCode.REQUEST_LIMIT_EXCEEDED,
                "Too many failed logins. Try again in a minute.",
                headers={"Retry-After": str(wait)},
            )

    def note_failure(self, address: str) -> None:
        """One more failure of this address."""
        if len(self._failures) >= _MOST_ADDRESSES:
            self._failures.pop(next(iter(self._failures)))
        self._failures.setdefault(address, deque(maxlen=self._most)).append(self._clock.monotonic())
