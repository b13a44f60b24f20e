"""The bound of the backlog: what has been acknowledged and not delivered.

Nothing acknowledged is ever evicted, so what is too much is refused before it is acknowledged. How full the
backlog is, is known without asking the database on each request: the writer reports every commit, and
`BacklogWatch` asks the database now and then, which also tells what other replicas have added and delivered.
"""

import asyncio
import threading
import time
from contextlib import suppress
from enum import StrEnum

import structlog

from server.database.engine import Database
from server.domain.errors import MlflowError
from server.domain.fullness import Fullness, come_again, fullness_of, no_room, soft_limit
from server.journal.backlog import measure_undelivered_bytes

log = structlog.get_logger(__name__)

_MEASURE_SECONDS = 5.0
_SHORTEST_WAIT_SECONDS = 2.0
_LONGEST_WAIT_SECONDS = 30.0
_UNKNOWN_WAIT_SECONDS = 5.0


class Admission(StrEnum):
    """How far a write that adds to the backlog is let in."""

    ORDINARY = "ordinary"
    """While there is room."""
    RUN_ENDING = "run_ending"
    """Into the reserve too: a run that is over is to be seen as over."""
    ALWAYS = "always"
    """What the server itself or its operator does."""


class BacklogBound:
    """How full the backlog is, as far as this process knows, and what that means for a write."""

    def __init__(self, *, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._bytes = 0
        self._last_measured: int | None = None
        self._added = 0
        self._drained_per_second: float | None = None

    @property
    def used_bytes(self) -> int:
        """What is undelivered now; other replicas' last few seconds are not in it."""
        return self._bytes

    @property
    def fullness(self) -> Fullness:
        """What is taken in now."""
        return fullness_of(self._bytes, self.limit_bytes)

    def note(self, change_bytes: int) -> None:
        """A commit of this process has changed the backlog."""
        with self._lock:
            self._bytes = max(self._bytes + change_bytes, 0)
            self._added += max(change_bytes, 0)

    def correct(self, measured_bytes: int, *, used_before: int, seconds: float) -> None:
        """Take over what the database says.

        `used_before` is `used_bytes` from before it was asked: what was noted since comes on top. `seconds`
        is how long ago it was asked the last time.
        """
        with self._lock:
            if self._last_measured is not None:
                drained = self._last_measured + self._added - measured_bytes
                self._drained_per_second = max(drained, 0) / seconds
            self._bytes = max(measured_bytes + self._bytes - used_before, 0)
            self._last_measured, self._added = self._bytes, 0

    def refusal(self, admission: Admission, size_bytes: int, *, waiting_bytes: int = 0) -> MlflowError | None:
        """Why a write of that size is not let in; None when it is. `waiting_bytes` were let in before it."""
        used = self._bytes + waiting_bytes
        fits = used + size_bytes <= self.limit_bytes
        if admission is Admission.ALWAYS or (admission is Admission.RUN_ENDING and fits):
            return None
        fullness = fullness_of(used, self.limit_bytes)
        if fullness is Fullness.HAS_ROOM and fits:
            return None
        held = f"The backlog holds {used} of {self.limit_bytes} bytes (MLPROXY_MAX_BACKLOG_BYTES)"
        if fullness is Fullness.HARD_FULL:
            return no_room(f"{held}: the server takes nothing in until some of it is delivered.")
        if size_bytes > self.limit_bytes:
            return no_room(f"{held}: a write of {size_bytes} bytes can never be taken in.")
        seconds = self._seconds_until_room(used + size_bytes)
        return come_again(f"{held}. Try again when some of it is delivered.", seconds=seconds)

    def _seconds_until_room(self, wanted: int) -> float:
        """How long delivery takes to make room, at its present pace."""
        excess = wanted - soft_limit(self.limit_bytes)
        if self._drained_per_second is None:
            return _UNKNOWN_WAIT_SECONDS
        if self._drained_per_second == 0:
            return _LONGEST_WAIT_SECONDS
        return min(max(excess / self._drained_per_second, _SHORTEST_WAIT_SECONDS), _LONGEST_WAIT_SECONDS)


class BacklogWatch:
    """Keeps what a process knows of the backlog right."""

    def __init__(self, *, bound: BacklogBound, database: Database) -> None:
        self._bound = bound
        self._database = database
        self._stop = asyncio.Event()
        self._measured_at = time.monotonic() - _MEASURE_SECONDS
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin watching."""
        self._loop = asyncio.create_task(self._run(), name="backlog")

    async def stop(self) -> None:
        """End watching."""
        self._stop.set()
        if self._loop is not None:
            await self._loop

    async def measure(self) -> None:
        """Ask the database once."""
        used_before, now = self._bound.used_bytes, time.monotonic()
        measured = await self._database.read(measure_undelivered_bytes)
        self._bound.correct(measured, used_before=used_before, seconds=max(now - self._measured_at, 0.1))
        self._measured_at = now

    async def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_MEASURE_SECONDS):
                    await self._stop.wait()
                    return
            try:
                await self.measure()
            except Exception as error:
                log.warning("backlog_not_measured", error=type(error).__name__)
