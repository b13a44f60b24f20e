"""How the backlog went since this process started, and when the disk will be full."""

import asyncio
import json
import shutil
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.clock import Clock
from server.journal.backlog import measure_backlog
from server.store import facts

log = structlog.get_logger(__name__)

_EVERY_SECONDS = 15.0
_SAMPLES = int(24 * 3600 / _EVERY_SECONDS)
_SIZES = "store_sizes"
_DAY_MS = 24 * 3600 * 1000
_SIZE_EVERY_MS = 3600 * 1000
_SIZES_KEPT = 14 * 24


@dataclass(frozen=True, slots=True)
class Sample:
    """The backlog at one moment."""

    time_ms: int
    lag_seconds: float
    pending: int
    parked: int


@dataclass(frozen=True, slots=True)
class DiskOutlook:
    """The disk of the data folder; growth is per day, over the last days (at most two weeks)."""

    free_bytes: int
    total_bytes: int
    store_bytes: int | None
    growth_bytes: float | None

    @property
    def days_until_full(self) -> float | None:
        """At the growth of the last days; None while that is unknown or nothing grows."""
        if not self.growth_bytes or self.growth_bytes <= 0:
            return None
        return self.free_bytes / self.growth_bytes


class DeliveryHistory:
    """Looks at the backlog every 15 s and remembers a day of it; the store's size every hour, for good."""

    def __init__(
        self, *, database: Database, writer: Writer, clock: Clock, data_dir: Path, remembers: bool = True
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._data_dir = data_dir
        self._remembers = remembers
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
        if self._remembers:
            await self._note_size()

    async def disk(self) -> DiskOutlook:
        """The disk as it is, and how the store grew."""
        usage = shutil.disk_usage(self._data_dir)
        size, known = await self._database.read(lambda transaction: (_size(transaction), _sizes(transaction)))
        return DiskOutlook(usage.free, usage.total, size, _growth(known, self._clock.now_ms(), size))

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

    async def _note_size(self) -> None:
        now_ms = self._clock.now_ms()
        known, size = await self._database.read(lambda transaction: (_sizes(transaction), _size(transaction)))
        if size is None or (known and now_ms - known[-1][0] < _SIZE_EVERY_MS):
            return
        text = json.dumps([*known, [now_ms, size]][-_SIZES_KEPT:])
        await self._writer.commit(
            Work(lambda transaction: facts.put(transaction, _SIZES, text)), background=True
        )


def _size(transaction: Transaction) -> int | None:
    """Bytes of the database."""
    if transaction.is_postgres:
        return int(transaction.rows("SELECT pg_database_size(current_database())")[0][0])
    pages = transaction.rows("PRAGMA page_count")[0][0]
    return int(pages * transaction.rows("PRAGMA page_size")[0][0])


def _sizes(transaction: Transaction) -> list[tuple[int, int]]:
    text = facts.find(transaction, _SIZES)
    return [] if text is None else [(int(time), int(size)) for time, size in json.loads(text)]


def _growth(known: list[tuple[int, int]], now_ms: int, size: int | None) -> float | None:
    """Bytes a day since the first size that is remembered; None before an hour has passed."""
    if size is None or not known or now_ms - known[0][0] < _SIZE_EVERY_MS:
        return None
    first_ms, first_size = known[0]
    return (size - first_size) / ((now_ms - first_ms) / _DAY_MS)
