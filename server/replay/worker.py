"""Delivering one lane, while holding its lease.

The loop is: what is next, write it down (`replay.outcomes`), send it (`replay.attempts`), and where nobody
knows what came of it, read it back (`replay.read_back`).
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from server.commit.writer import Writer
from server.database.engine import Database
from server.domain.clock import Clock
from server.journal.batch_states import BatchState
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.lanes import LaneKind
from server.journal.leases import Lease, LeaseLostError
from server.replay.attempts import Attempts
from server.replay.batching import BatchLimits, Blocked, Choice, Close, WaitForCompany, choose_batch
from server.replay.deliveries.delivery import Delivery
from server.replay.figures import Figures
from server.replay.gate import Gate
from server.replay.lease_keeping import keeping
from server.replay.outcomes import Outcomes
from server.replay.outlook import Outlook, look_at_lane
from server.replay.read_back import ReadBack

log = structlog.get_logger(__name__)

_LONGEST_TURN_SECONDS = 5.0
_BLOCKED_RECHECK = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """How delivery paces itself."""

    company: timedelta = timedelta(seconds=1)
    file_company: timedelta = timedelta(minutes=1)
    lease: timedelta = timedelta(seconds=120)
    limits: BatchLimits = field(default_factory=BatchLimits)
    concurrent_sends: int = 8


class LaneWorker:
    """Delivers a lane until there is nothing left, it must wait, or others should have a turn."""

    def __init__(
        self,
        *,
        database: Database,
        writer: Writer,
        clock: Clock,
        gate: Gate,
        deliveries: Mapping[LaneKind, Delivery],
        settings: ReplaySettings,
        sends: AbstractAsyncContextManager[None],
        jitter: Callable[[], float],
        is_flushing: Callable[[], bool],
        stop: asyncio.Event,
        figures: Figures,
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._gate = gate
        self._settings = settings
        self._sends = sends
        self._is_flushing = is_flushing
        self._stop = stop
        self._figures = figures
        self._outcomes = Outcomes(writer, lease=settings.lease)
        self._attempts = Attempts(
            gate=gate,
            deliveries=deliveries,
            outcomes=self._outcomes,
            jitter=jitter,
            figures=figures,
        )
        self._read_back = ReadBack(
            clock=clock, gate=gate, deliveries=deliveries, outcomes=self._outcomes, attempts=self._attempts
        )

    async def deliver(self, lease: Lease) -> int:
        """Deliver the lane; when it may be claimed again (milliseconds since the epoch)."""
        try:
            async with keeping(lease, writer=self._writer, clock=self._clock, lasts=self._settings.lease):
                return await self._deliver(lease)
        except LeaseLostError:
            self._figures.observe_lease_lost()
            log.warning("lease_lost", lane_id=lease.lane.lane_id, epoch=lease.epoch)
            return self._clock.now_ms()

    async def _deliver(self, lease: Lease) -> int:
        turn_ends = self._clock.monotonic() + _LONGEST_TURN_SECONDS
        while not self._stop.is_set():
            outlook = await self._look(lease)
            if outlook.open_batch is None:
                wait = await self._send_next(lease, outlook)
            else:
                wait = await self._go_on(lease, outlook, outlook.open_batch)
            if wait is not None:
                return self._clock.now_ms() + int(wait.total_seconds() * 1000)
            if self._clock.monotonic() > turn_ends:
                break
        return self._clock.now_ms()

    async def _look(self, lease: Lease) -> Outlook:
        now_ms, is_flushing = self._clock.now_ms(), self._is_flushing()
        return await self._database.read(
            lambda transaction: look_at_lane(
                transaction, lease.lane.lane_id, now_ms=now_ms, is_flushing=is_flushing
            )
        )

    # Each of these returns how long the lane must wait, or None to go on at once.

    async def _go_on(self, lease: Lease, outlook: Outlook, batch: Batch) -> timedelta | None:
        """Go on with a batch that was written down before."""
        if outlook.contents.fault is not None:
            await self._outcomes.set_corrupt_aside(lease, batch, outlook.contents)
            return None
        contents = _within(outlook.contents, batch.first_position, batch.last_position)
        async with self._sends:
            if batch.state is not BatchState.FIXED:
                return await self._read_back.resolve(lease, outlook.lane, batch, contents)
            if not self._gate.may_pass():
                return self._attempts.gate_wait()
            await self._outcomes.mark_sent(lease, batch)
            return await self._attempts.attempt(lease, outlook.lane, batch, contents)

    async def _send_next(self, lease: Lease, outlook: Outlook) -> timedelta | None:
        """Send the next batch."""
        match self._choose(outlook):
            case None:
                return timedelta(0)
            case Blocked():
                if outlook.awaited_overflow:
                    position = outlook.lane.settled_position + 1
                    await self._outcomes.await_overflow(lease, position, outlook.awaited_overflow)
                return _BLOCKED_RECHECK
            case WaitForCompany(until_ms):
                return timedelta(milliseconds=max(until_ms - self._clock.now_ms(), 1))
            case Close(first, last):
                async with self._sends:
                    if not self._gate.may_pass():
                        return self._attempts.gate_wait()
                    return await self._send_new(lease, outlook, first, last)

    def _choose(self, outlook: Outlook) -> Choice:
        company = timedelta(0) if self._is_flushing() else self._settings.company
        if outlook.lane.kind is LaneKind.RUN_OVERFLOW:
            company = timedelta(0) if outlook.is_wait_over else self._settings.file_company
        return choose_batch(
            outlook.contents,
            unmet=outlook.unmet,
            limits=self._settings.limits.within(outlook.limits),
            end_of_lane=outlook.lane.last_position,
            now_ms=self._clock.now_ms(),
            company_ms=int(company.total_seconds() * 1000),
        )

    async def _send_new(self, lease: Lease, outlook: Outlook, first: int, last: int) -> timedelta | None:
        """Write a batch down and send it. The gate has let us through."""
        contents = _within(outlook.contents, first, last)
        try:
            batch = await self._outcomes.fix(lease, first, last)
        except BaseException:
            self._gate.abandoned()
            raise
        if contents.fault is not None:
            self._gate.abandoned()
            await self._outcomes.set_corrupt_aside(lease, batch, contents)
            return None
        if batch.state is BatchState.UNCERTAIN:
            self._gate.abandoned()
            return None
        return await self._attempts.attempt(lease, outlook.lane, batch, contents)


def _within(contents: Contents, first: int, last: int) -> Contents:
    return Contents(
        [entry for entry in contents.entries if first <= entry.position <= last],
        [point for point in contents.points if first <= point.position <= last],
    )
