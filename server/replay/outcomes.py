"""Writing down what became of a batch, fenced by the lease of its lane."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import structlog

from server.commit.writer import Work, Writer
from server.database.engine import Transaction
from server.domain import failpoints
from server.domain.workspace_limits import LimitRefusal
from server.journal import batches, overflow
from server.journal.batch_states import BatchState
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.entries import Awaited
from server.journal.leases import Lease, LeaseLostError
from server.journal.limits import learn_limit
from server.journal.overflow import Overflowed
from server.replay.restored.delivery import ContestedError
from server.replay.turns import lanes_held

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Outcomes:
    """Every method commits before it returns, and raises LeaseLostError when the lane has another holder."""

    def __init__(self, writer: Writer, *, lease: timedelta) -> None:
        self._writer = writer
        self._lease_ms = int(lease.total_seconds() * 1000)

    async def fix(self, lease: Lease, first: int, last: int) -> Batch:
        """These positions are sent next, together: an intent that outlives us."""
        return await self._commit(
            lambda transaction: batches.fix_batch(transaction, lease, first, last, lease_ms=self._lease_ms)
        )

    async def mark_sent(self, lease: Lease, batch: Batch) -> None:
        """The batch is about to be sent (again)."""
        await self._commit(
            lambda transaction: batches.mark_sent(transaction, lease, batch, lease_ms=self._lease_ms)
        )

    async def settle(self, lease: Lease, batch: Batch, overflowed: Sequence[Overflowed] = ()) -> None:
        """The workspace has it, but for what overflowed: that is kept here."""
        if not overflowed:
            await self._commit(lambda transaction: batches.settle(transaction, lease, batch))
            return
        limits = sorted({item.limit.value for item in overflowed})
        log.info("entries_overflowed", lane_id=batch.lane_id, entries=len(overflowed), limits=limits)
        failpoints.reach("overflow.decided")
        await self._commit(
            lambda transaction: overflow.settle_with_overflow(transaction, lease, batch, overflowed)
        )
        failpoints.reach("overflow.kept")

    async def await_overflow(self, lease: Lease, position: int, awaited: Sequence[Awaited]) -> None:
        """The entry, which ends the run, waits for what has overflowed."""
        await self._commit(lambda transaction: overflow.await_overflow(transaction, lease, position, awaited))

    async def not_applied(self, lease: Lease, batch: Batch, words: str) -> None:
        """This attempt did nothing; an earlier one, if there was any, still may have."""
        if batch.state is BatchState.UNCERTAIN:
            await self.mark_uncertain(lease, batch, words)
        else:
            await self._commit(lambda transaction: batches.forget_batch(transaction, lease, batch, words))

    async def mark_uncertain(self, lease: Lease, batch: Batch, words: str) -> None:
        """Nobody knows whether the workspace has it."""
        await self._commit(lambda transaction: batches.mark_uncertain(transaction, lease, batch, words))

    async def note_empty_read(self, lease: Lease, batch: Batch) -> Batch:
        """The workspace was asked once more, and does not show it."""
        return await self._commit(lambda transaction: batches.note_empty_read(transaction, lease, batch))

    async def learn_limit(self, refusal: LimitRefusal, words: str) -> None:
        """What a refusal tells about what the workspace can hold."""
        await self._commit(lambda transaction: learn_limit(transaction, refusal, words))

    async def split(self, lease: Lease, batch: Batch, *, state: BatchState, words: str) -> None:
        """The first half of the batch is next, by itself."""
        await self._commit(
            lambda transaction: batches.split_batch(transaction, lease, batch, state=state, failure=words)
        )

    async def park(
        self,
        lease: Lease,
        batch: Batch,
        contents: Contents,
        reason: str,
        words: str,
        overflowed: Sequence[Overflowed] = (),
    ) -> None:
        """An operator decides about these rows; the lane goes on without them."""
        log.error(
            "entry_parked",
            lane_id=batch.lane_id,
            first=batch.first_position,
            last=batch.last_position,
            reason=reason,
            message=words,
        )

        def park(transaction: Transaction) -> None:
            overflow.keep_overflow(transaction, lease, overflowed)
            batches.park(transaction, lease, batch, contents, reason=reason, message=words)

        await self._commit(park)

    async def set_corrupt_aside(self, lease: Lease, batch: Batch, contents: Contents) -> None:
        """A row of a batch is not what was written: it is never sent, and the others go on without it."""
        words = contents.fault or ""
        if batch.first_position == batch.last_position:
            await self.park(lease, batch, contents, "corrupt_entry", words)
        else:
            await self.split(lease, batch, state=batch.state, words=words)

    async def set_contested_aside(self, lease: Lease, batch: Batch, error: ContestedError) -> None:
        """Entries of a restored journal could overwrite something newer: the others go on without them."""
        entries = [(item.entry, item.message) for item in error.contested]
        positions = [entry.position for entry, _ in entries]
        log.error("entries_contested", lane_id=batch.lane_id, positions=positions[:100])
        await self._commit(
            lambda transaction: batches.set_aside(
                transaction, lease, batch, entries, reason="uncertain_outcome"
            )
        )

    async def _commit(self, apply: Callable[[Transaction], T]) -> T:
        work = Work(apply, raises=(LeaseLostError,), lanes=lanes_held())
        return await self._writer.commit(work, background=True)
