"""What the read-back of every noun's restored entries has in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import structlog

from server.commit.writer import Work
from server.database.engine import Database
from server.domain.clock import Clock
from server.domain.workspace_limits import LimitRefusal
from server.journal import restored
from server.journal.batches import Batch
from server.journal.contents import Contents, EntryRow
from server.journal.leases import Lane
from server.replay.deliveries.delivery import Delivery, Division, SettleTimes
from server.replay.restored.plans import LanePlans
from server.replay.turns import LaneWriter

log = structlog.get_logger(__name__)


class Reach(StrEnum):
    """How far the other generation got with a lane."""

    WITHIN = "within"
    """Not past the restored entries: nothing there is newer than they are."""
    PAST = "past"
    """Past all of them: whatever the last write wins is newer there."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Contested:
    """An entry whose place in the workspace holds something else; `shown` says what."""

    entry: EntryRow
    shown: str

    @property
    def message(self) -> str:
        """What an operator must know to decide."""
        return (
            f"From before a backup was restored. The workspace now has {self.shown}, which may be newer or"
            " older: retry writes this entry over it, drop leaves it."
        )


class ContestedError(Exception):
    """Entries of a restored journal that could overwrite something newer. Nothing was sent."""

    def __init__(self, contested: Sequence[Contested]) -> None:
        super().__init__(f"{len(contested)} contested entries")
        self.contested = contested


@dataclass(frozen=True, slots=True)
class RestoredParts:
    """What every one of these deliveries works with."""

    database: Database
    writer: LaneWriter
    clock: Clock
    settle: SettleTimes


class RestoredDelivery(ABC):
    """A delivery that also knows how to read back what another generation may have sent."""

    def __init__(self, inner: Delivery, parts: RestoredParts) -> None:
        self._inner = inner
        self._database = parts.database
        self._writer = parts.writer
        self._clock = parts.clock
        self._settle = parts.settle
        self._plans = LanePlans(parts.database)

    async def divide(self, lane: Lane, contents: Contents, refusal: LimitRefusal | None = None) -> Division:
        """As the delivery itself does."""
        return await self._inner.divide(lane, contents, refusal)

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        """As the delivery itself does.

        Raises:
            UpstreamFailure: with the verdict on what to do now.
        """
        await self._inner.send(lane, batch, contents)

    async def settle_time(self, lane: Lane, contents: Contents) -> timedelta:
        """As the delivery itself says; what another generation may have sent must stay unseen in any case."""
        own = await self._inner.settle_time(lane, contents)
        first = min([*(row.position for row in contents.entries), *(row.position for row in contents.points)])
        return max(own, self._settle.content) if first <= lane.restored_through else own

    async def find_missing(self, lane: Lane, batch: Batch, contents: Contents) -> Contents:
        """Of an uncertain batch, what is to be sent.

        Raises:
            UpstreamFailure: the workspace could not be read.
            ContestedError: some entries could overwrite something newer.
        """
        missing = await self._inner.find_missing(lane, batch, contents)
        if not is_doubted(lane, batch) or not missing.count:
            return missing
        if not self._may_judge(batch):
            return await self.without_present(lane, batch, missing)
        plan = await self._plans.plan_of(lane)
        final = [
            entry
            for entry in missing.entries
            if entry.operation is None or not plan.is_superseded(entry.position, entry.operation)
        ]
        missing = Contents(final, missing.points)
        return await self.judge(lane, batch, missing) if missing.count else missing

    def _may_judge(self, batch: Batch) -> bool:
        """Whether all that another generation sent must have come to be seen."""
        if batch.first_empty_read_ms is None:
            return True  # we have sent it ourselves since
        lasted = timedelta(milliseconds=self._clock.now_ms() - batch.first_empty_read_ms)
        return lasted >= self._settle.content

    async def without_present(self, lane: Lane, batch: Batch, missing: Contents) -> Contents:
        """What is there settles at once; the rest waits to be judged."""
        return missing

    @abstractmethod
    async def judge(self, lane: Lane, batch: Batch, missing: Contents) -> Contents:
        """What is to be sent of restored rows that the workspace does not show.

        Raises:
            UpstreamFailure: the workspace could not be read.
            ContestedError: some could overwrite something newer.
        """

    async def trust_rest(self, lane: Lane, batch: Batch) -> None:
        """What the batch made was not there: nothing of its lane was ever sent."""
        log.info("restored_lane_trusted", lane_id=lane.lane_id, position=batch.last_position)
        work = Work(lambda transaction: restored.trust_after(transaction, lane.lane_id, batch.last_position))
        await self._writer.commit(work, background=True)


def is_doubted(lane: Lane, batch: Batch) -> bool:
    """Whether another generation may have sent the batch."""
    return batch.first_position <= lane.restored_through
