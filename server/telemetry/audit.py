"""The audit log: who did what to the server itself, and who was refused.

Its lines go where all lines go and carry `audit=true`, so that whoever collects logs can keep them apart.
Refusals come from anybody, so only so many a minute are written out; the rest are counted.
"""

import time
from typing import Any

import structlog

log = structlog.get_logger("audit")

_REFUSALS_A_MINUTE = 60
_MINUTE_SECONDS = 60.0


def audit(event: str, **fields: Any) -> None:
    """Write one administrative act down, with who did it."""
    log.warning(event, audit=True, **fields)


class Refusals:
    """Writes refused accesses down, as far as a minute's share lasts."""

    def __init__(self, *, most_a_minute: int = _REFUSALS_A_MINUTE) -> None:
        self._most = most_a_minute
        self._minute_began = float("-inf")
        self._written = 0
        self._unwritten = 0

    def note(self, **fields: Any) -> None:
        """One refusal."""
        now = time.monotonic()
        if now - self._minute_began >= _MINUTE_SECONDS:
            if self._unwritten:
                audit("more_accesses_refused", count=self._unwritten)
            self._minute_began, self._written, self._unwritten = now, 0, 0
        if self._written < self._most:
            self._written += 1
            audit("access_refused", **fields)
        else:
            self._unwritten += 1
