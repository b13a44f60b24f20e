"""How large the store is, how much room is left on its disk, and when that will be used up.

The growth is a straight line through the sizes of the last two weeks, one an hour, which the database keeps;
a restart forgets nothing. A line through the last day goes beside it, and the steeper one counts: an outage
that fills the spool shows within hours.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.clock import Clock
from server.spool.spool import Spool
from server.store import facts

_SIZES = "sizes_on_disk"
_HOUR_MS = 3600 * 1000
_DAY_MS = 24 * _HOUR_MS
_SIZES_KEPT = 14 * 24

SizeAt = tuple[int, int]
"""A moment (milliseconds since the epoch), and the bytes then."""


@dataclass(frozen=True, slots=True)
class DiskOutlook:
    """The disk of the data folder, and what the store makes of it; `growth_bytes` is per day."""

    free_bytes: int
    total_bytes: int
    least_free_bytes: int
    database_bytes: int
    spool_bytes: int
    growth_bytes: float | None

    @property
    def has_headroom(self) -> bool:
        """Whether at least as much is free as is wanted."""
        return self.free_bytes >= self.least_free_bytes

    @property
    def days_until_full(self) -> float | None:
        """Until the headroom begins, at the growth of late; None while that is unknown or nothing grows."""
        if not self.has_headroom:
            return 0.0
        if not self.growth_bytes or self.growth_bytes <= 0:
            return None
        return (self.free_bytes - self.least_free_bytes) / self.growth_bytes


class Headroom:
    """What must stay free on the disks below the data folder and the spool."""

    def __init__(self, *, folders: Sequence[Path], least_free_bytes: int) -> None:
        self._folders = folders
        self.least_free_bytes = least_free_bytes

    def lack(self) -> str | None:
        """What is missing, in words; None where there is room."""
        free = min(shutil.disk_usage(folder).free for folder in self._folders)
        if free >= self.least_free_bytes:
            return None
        return f"only {free} bytes are free, fewer than MLPROXY_MIN_FREE_BYTES ({self.least_free_bytes})"


class DiskWatch:
    """Measures the store, and remembers a size an hour.

    Only what lies on the data folder's disk makes it grow: a Postgres, or a spool elsewhere, is counted in
    the store's size and not in the growth.
    """

    def __init__(
        self,
        *,
        database: Database,
        writer: Writer,
        clock: Clock,
        spool: Spool,
        data_dir: Path,
        least_free_bytes: int,
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._spool = spool
        self._data_dir = data_dir
        self._least_free_bytes = least_free_bytes
        self._spool_is_here = spool.folder.stat().st_dev == data_dir.stat().st_dev

    async def outlook(self) -> DiskOutlook:
        """The disk as it is now."""
        usage = shutil.disk_usage(self._data_dir)
        database_bytes, known = await self._database.read(
            lambda transaction: (self._database_bytes(transaction), _sizes(transaction))
        )
        now: SizeAt = (self._clock.now_ms(), self._bytes_here(database_bytes))
        return DiskOutlook(
            free_bytes=usage.free,
            total_bytes=usage.total,
            least_free_bytes=self._least_free_bytes,
            database_bytes=database_bytes,
            spool_bytes=self._spool.used_bytes,
            growth_bytes=growth_per_day([*known, now]),
        )

    async def remember(self) -> None:
        """Write the size down, if an hour has passed since it was last."""
        now_ms = self._clock.now_ms()
        known = await self._database.read(_sizes)
        if known and now_ms - known[-1][0] < _HOUR_MS:
            return
        size = self._bytes_here(await self._database.read(self._database_bytes))
        text = json.dumps([*known, (now_ms, size)][-_SIZES_KEPT:])
        await self._writer.commit(
            Work(lambda transaction: facts.put(transaction, _SIZES, text)), background=True
        )

    def _database_bytes(self, transaction: Transaction) -> int:
        if transaction.is_postgres:
            return int(transaction.rows("SELECT pg_database_size(current_database())")[0][0])
        pages = transaction.rows("PRAGMA page_count")[0][0]
        return int(pages * transaction.rows("PRAGMA page_size")[0][0]) + (self._database.wal_bytes or 0)

    def _bytes_here(self, database_bytes: int) -> int:
        of_database = 0 if self._database.is_postgres else database_bytes
        return of_database + (self._spool.used_bytes if self._spool_is_here else 0)


def growth_per_day(sizes: Sequence[SizeAt]) -> float | None:
    """Bytes a day, at the steeper of the lines through all sizes and through those of the last day.

    None before an hour lies between the first and the last.
    """
    if len(sizes) < 2 or sizes[-1][0] - sizes[0][0] < _HOUR_MS:
        return None
    of_late = [size for size in sizes if size[0] >= sizes[-1][0] - _DAY_MS]
    slopes = [_slope(part) for part in (sizes, of_late) if part[-1][0] - part[0][0] >= _HOUR_MS]
    return max(slopes) * _DAY_MS


def _slope(sizes: Sequence[SizeAt]) -> float:
    """Bytes a millisecond: the straight line with the least squares."""
    middle_ms = sum(time_ms for time_ms, _ in sizes) / len(sizes)
    middle = sum(size for _, size in sizes) / len(sizes)
    spread = sum((time_ms - middle_ms) ** 2 for time_ms, _ in sizes)
    return sum((time_ms - middle_ms) * (size - middle) for time_ms, size in sizes) / spread


def _sizes(transaction: Transaction) -> list[SizeAt]:
    text = facts.find(transaction, _SIZES)
    return [] if text is None else [(int(time_ms), int(size)) for time_ms, size in json.loads(text)]
