"""Time as an argument, so that tests can turn it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall-clock and monotonic time."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, from an arbitrary start."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that only grow, from an arbitrary start."""
        return time.monotonic()


def iso_from_ms(timestamp_ms: int) -> str:
    """`timestamp_ms` as an ISO 8601 instant in UTC with milliseconds, as Run History wants it."""
    seconds, milliseconds = divmod(timestamp_ms, 1000)
    instant = datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
