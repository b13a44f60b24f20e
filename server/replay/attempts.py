"""Sending a batch once, and deciding by the verdict what comes next: in one place, `Attempts.judge`."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus

import structlog

from server.domain import failpoints
from server.domain.verdicts import Verdict
from server.journal.batch_states import BatchState
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.lanes import LaneKind
from server.journal.leases import Lane, Lease
from server.journal.overflow import Overflowed
from server.replay.deliveries.delivery import Delivery, Division
from server.replay.figures import Figures
from server.replay.gate import Gate
from server.replay.outcomes import Outcomes
from server.upstream.failures import UpstreamFailure

log = structlog.get_logger(__name__)

# Somebody waits: a lane that fails by itself is tried this often.
_HURRIED = timedelta(seconds=1)


class Attempts:
    """Sends what the caller has written down as sent, and records what came of it."""

    def __init__(
        self,
        *,
        gate: Gate,
        deliveries: Mapping[LaneKind, Delivery],
        outcomes: Outcomes,
        jitter: Callable[[], float],
        figures: Figures,
    ) -> None:
        self._gate = gate
        self._deliveries = deliveries
        self._outcomes = outcomes
        self._jitter = jitter
        self._figures = figures

    def gate_wait(self) -> timedelta:
        """How long a lane waits that the gate does not let through."""
        return timedelta(seconds=self._gate.wait_seconds + 0.2 + self._jitter() / 2)

    async def attempt(
        self, lease: Lease, lane: Lane, batch: Batch, rows: Contents, aside: Sequence[Overflowed] = ()
    ) -> timedelta | None:
        """Send rows of a batch, but for what the workspace cannot hold; `aside` is known to be of that.

        Returns how long the lane must wait, or None to go on at once.
        """
        failpoints.reach("send.before")
        delivery = self._deliveries[lane.kind]
        division = Division(rows, aside)
        try:
            division = (await delivery.divide(lane, rows)).beside(aside)
            if division.to_send.count:
                await delivery.send(lane, batch, division.to_send)
        except UpstreamFailure as failure:
            self._figures.observe_attempt(failure.verdict.value, failure.failure_class)
            return await self._judge(lease, lane, batch, division, failure)
        failpoints.reach("send.after")
        if division.to_send.count:
            self._figures.observe_attempt("delivered")
            self._gate.passed()
            self._gate.troubles.delivered(lane.lane_id)
        else:
            self._gate.abandoned()
        await self._outcomes.settle(lease, batch, division.overflow)
        return None

    async def unreadable(
        self, lease: Lease, batch: Batch, contents: Contents, failure: UpstreamFailure
    ) -> timedelta | None:
        """Record that an uncertain batch could not be read back; how long the lane must wait."""
        words = _words_of(failure)
        if failure.verdict is Verdict.PARK:
            self._note_answer(failure)
            await self._outcomes.park(lease, batch, contents, "uncertain_outcome", words)
            return None
        wait = self._blame(lease.lane, failure)
        await self._outcomes.mark_uncertain(lease, batch, words)
        return wait

    async def _judge(
        self, lease: Lease, lane: Lane, batch: Batch, division: Division, failure: UpstreamFailure
    ) -> timedelta | None:
        """Record what became of an attempt; how long the lane must wait, or None to go on at once."""
        words = _words_of(failure)
        log.info(
            "attempt_failed",
            lane_id=lane.lane_id,
            kind=lane.kind.value,
            verdict=failure.verdict.value,
            status=failure.status,
            code=failure.code,
            attempt=batch.attempt,
        )
        match failure.verdict:
            case Verdict.ALREADY_APPLIED:
                self._gate.passed()
                await self._outcomes.settle(lease, batch, division.overflow)
                return None
            case Verdict.RETRY | Verdict.WAIT:
                wait = self._blame(lane, failure)
                await self._outcomes.not_applied(lease, batch, words)
                return wait
            case Verdict.UNCERTAIN:
                wait = self._blame(lane, failure)
                await self._outcomes.mark_uncertain(lease, batch, words)
                return wait
            case Verdict.PARK:
                self._note_answer(failure)
                return await self._refused(lease, lane, batch, division, failure)

    def _blame(self, lane: Lane, failure: UpstreamFailure) -> timedelta:
        """Close the gate, unless the failure is the lane's own; how long the lane must wait."""
        is_server_error = (failure.status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR
        wait = self._gate.troubles.failed(lane.lane_id) if is_server_error else None
        if wait is None or failure.retry_after is not None:
            self._gate.failed(_words_of(failure), failure.retry_after)
            return self.gate_wait()
        self._gate.abandoned()
        log.warning("lane_in_trouble", lane_id=lane.lane_id, wait_seconds=round(wait.total_seconds(), 1))
        return min(wait, _HURRIED) if self._gate.is_hurried else wait

    def _note_answer(self, failure: UpstreamFailure) -> None:
        """A refusal by the workspace shows that it is well; one of our own shows nothing."""
        if failure.status is None:
            self._gate.abandoned()
        else:
            self._gate.passed()

    async def _refused(
        self, lease: Lease, lane: Lane, batch: Batch, division: Division, failure: UpstreamFailure
    ) -> timedelta | None:
        """Find what exactly is refused; set only that aside.

        Where the words name a limit that tells at once, else it is found by halving. The halves of a batch
        that was uncertain are uncertain too: parts of it may be there.
        """
        words = _words_of(failure)
        refusal = failure.limit if lane.kind is LaneKind.RUN_DATA else None
        if refusal is not None:
            await self._outcomes.learn_limit(refusal, words)
            try:
                parted = await self._deliveries[lane.kind].divide(lane, division.to_send, refusal)
            except UpstreamFailure as unread:
                return await self._judge(lease, lane, batch, division, unread)
            if parted.overflow:
                parted = parted.beside(division.overflow)
                if not parted.to_send.count:
                    await self._outcomes.settle(lease, batch, parted.overflow)
                    return None
                await self._outcomes.mark_sent(lease, batch)
                return await self.attempt(lease, lane, batch, parted.to_send, parted.overflow)
        if division.to_send.count == 1:
            await self._outcomes.park(lease, batch, division.to_send, "refused", words, division.overflow)
            return None
        state = BatchState.UNCERTAIN if batch.state is BatchState.UNCERTAIN else BatchState.FIXED
        await self._outcomes.split(lease, batch, state=state, words=words)
        return None


def _words_of(failure: UpstreamFailure) -> str:
    return f"{failure.code}: {failure.message}"[:2000]
