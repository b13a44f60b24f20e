"""How the backlog went since this process started."""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import structlog

from server.database.engine import Database, Transaction
from server.domain.clock import Clock
from server.journal.backlog import measure_backlog
from server.services.disk_outlook import DiskWatch

log = structlog.get_logger(__name__)

_EVERY_SECONDS = 15.0
_SAMPLES = int(24 * 3600 / _EVERY_SECONDS)


@dataclass(frozen=True, slots=True)
class Sample:
    """The backlog at one moment."""

    time_ms: int
    lag_seconds: float
    pending: int
    parked: int


class DeliveryHistory:
    """Looks at the backlog every 15 s and remembers a day of it; the disk watch is woken as often."""

    def __init__(self, *, database: Database, clock: Clock, disk: DiskWatch) -> None:
        self._database = database
        self._clock = clock
        self._disk = disk
        self._samples: deque[Sample] = deque(maxlen=_SAMPLES)
        self._task: asyncio.Task[None] | None = None

    @property
    def samples(self) -> list[Sample]:
        """The samples, oldest first."""
        return list(self._samples)

    def start(self) -> None:
        """Begin looking."""
        self._task = asyncio.create_task(self._run(), name="delivery-history")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Take one sample now."""
        self._samples.append(await self._database.read(self._measure))
        await self._disk.remember()

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception as error:
                log.warning("backlog_not_measured", error=type(error).__name__)
            await asyncio.sleep(_EVERY_SECONDS)

    def _measure(self, transaction: Transaction) -> Sample:
        backlog = measure_backlog(transaction)
        now_ms = self._clock.now_ms()
        lag_ms = 0 if backlog.oldest_ms is None else max(now_ms - backlog.oldest_ms, 0)
        return Sample(now_ms, lag_ms / 1000, backlog.pending, backlog.parked)
