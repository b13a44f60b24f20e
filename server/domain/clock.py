"""Time as an argument, so that tests can turn it."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

TEST_VARIABLE = "MLPROXY_TEST_CLOCK"


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


class TurnedClock:
    """The machine's clock, turned by what a file says: for tests of whole processes.

    The file holds how many seconds more have passed than really have, and, after a space, by how many
    seconds the wall clock alone was put forward or back.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        passed, stepped = self._turns()
        return time.time_ns() // 1_000_000 + int((passed + stepped) * 1000)

    def monotonic(self) -> float:
        """Seconds that only grow, from an arbitrary start."""
        return time.monotonic() + self._turns()[0]

    def _turns(self) -> tuple[float, float]:
        words = self._path.read_text().split() if self._path.exists() else []
        passed, stepped = [*map(float, words), 0.0, 0.0][:2]
        return passed, stepped


def machine_clock() -> Clock:
    """The clock that a process goes by; one that a test can turn, if the environment names its file."""
    path = os.environ.get(TEST_VARIABLE)
    return TurnedClock(Path(path)) if path else SystemClock()


def iso_from_ms(timestamp_ms: int) -> str:
    """`timestamp_ms` as an ISO 8601 instant in UTC with milliseconds, as Run History wants it."""
    seconds, milliseconds = divmod(timestamp_ms, 1000)
    instant = datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
