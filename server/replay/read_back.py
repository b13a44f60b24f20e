"""What to do with a batch that was sent and whose outcome nobody knows: read it back, then decide."""

from collections.abc import Mapping
from datetime import timedelta

from server.domain import failpoints
from server.domain.clock import Clock
from server.journal.batch_states import EMPTY_READS_NEEDED
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.lanes import LaneKind
from server.journal.leases import Lane, Lease
from server.replay.attempts import Attempts
from server.replay.deliveries.delivery import Delivery
from server.replay.gate import Gate
from server.replay.outcomes import Outcomes
from server.replay.restored.delivery import ContestedError
from server.upstream.failures import UpstreamFailure

_MOST_ATTEMPTS = 8
_SHORTEST_READ_INTERVAL = timedelta(milliseconds=200)


class ReadBack:
    """Resolves uncertain batches."""

    def __init__(
        self,
        *,
        clock: Clock,
        gate: Gate,
        deliveries: Mapping[LaneKind, Delivery],
        outcomes: Outcomes,
        attempts: Attempts,
    ) -> None:
        self._clock = clock
        self._gate = gate
        self._deliveries = deliveries
        self._outcomes = outcomes
        self._attempts = attempts

    async def resolve(self, lease: Lease, lane: Lane, batch: Batch, contents: Contents) -> timedelta | None:
        """Settle what the workspace shows; send what is absent for good.

        Returns how long the lane must wait, or None to go on at once.
        """
        if not self._gate.may_pass():
            return self._attempts.gate_wait()
        delivery = self._deliveries[lane.kind]
        asked_ms = self._clock.now_ms()
        try:
            missing = await delivery.find_missing(lane, batch, contents)
        except UpstreamFailure as failure:
            return await self._attempts.unreadable(lease, batch, contents, failure)
        except ContestedError as contested:
            self._gate.passed()
            await self._outcomes.set_contested_aside(lease, batch, contested)
            return None
        failpoints.reach("uncertain.read")
        self._gate.passed()
        if not missing.count:
            await self._outcomes.settle(lease, batch)
            return None
        settle = await delivery.settle_time(lane, missing)
        if settle:
            batch = await self._outcomes.note_empty_read(lease, batch)
            if not _is_absent(batch, settle, asked_ms):
                return max(settle / EMPTY_READS_NEEDED, _SHORTEST_READ_INTERVAL)
        if batch.attempt >= _MOST_ATTEMPTS and settle:
            words = f"Sent {batch.attempt} times; the workspace neither confirms nor denies it."
            await self._outcomes.park(lease, batch, missing, "uncertain_outcome", words)
            return None
        await self._outcomes.mark_sent(lease, batch)
        return await self._attempts.attempt(lease, lane, batch, missing)


def _is_absent(batch: Batch, settle: timedelta, asked_ms: int) -> bool:
    """Three empty reads over the settle time, which had passed when the last of them was asked for.

    Not only when it was answered: a read of restored entries is judged by the moment it is made.
    """
    lasted = timedelta(milliseconds=asked_ms - (batch.first_empty_read_ms or asked_ms))
    return batch.empty_reads >= EMPTY_READS_NEEDED and lasted >= settle
