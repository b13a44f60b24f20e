"""Delivering one lane, while holding its lease.

The loop is: what is next, write it down, send it, record what came of it. Whatever an attempt ends
in is decided by its verdict, in one place (`_judge`).
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import structlog

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain import failpoints
from server.domain.clock import Clock
from server.domain.verdicts import Verdict
from server.journal import barriers, batches, leases
from server.journal.batch_states import BatchState
from server.journal.batches import Batch
from server.journal.contents import Contents, read_range
from server.journal.lanes import LaneKind
from server.journal.leases import Lane, Lease, LeaseLostError
from server.replay.batching import BatchLimits, Blocked, Choice, Close, WaitForCompany, choose_batch
from server.replay.deliveries.delivery import Delivery
from server.replay.gate import Gate
from server.upstream.failures import UpstreamFailure

log = structlog.get_logger(__name__)
T = TypeVar("T")

_ROWS_READ = 1001
_EMPTY_READS_NEEDED = 3
_MOST_ATTEMPTS_OF_UNCERTAIN = 8
_LONGEST_HOLD_SECONDS = 30.0
_SHORTEST_READ_INTERVAL = timedelta(milliseconds=200)
_BLOCKED_RECHECK = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """How delivery paces itself."""

    company: timedelta = timedelta(seconds=1)
    lease: timedelta = timedelta(seconds=120)
    limits: BatchLimits = field(default_factory=BatchLimits)
    concurrent_sends: int = 8


@dataclass(slots=True)
class _Outlook:
    """What a lane holds next."""

    lane: Lane
    open_batch: Batch | None
    contents: Contents
    unmet: dict[int, list[int]]


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
        sends: asyncio.Semaphore,
        jitter: Callable[[], float],
        is_flushing: Callable[[], bool],
        stop: asyncio.Event,
        observe: Callable[[str, float], None],
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._gate = gate
        self._deliveries = deliveries
        self._settings = settings
        self._sends = sends
        self._jitter = jitter
        self._is_flushing = is_flushing
        self._stop = stop
        self._observe = observe
        self._lease_ms = int(settings.lease.total_seconds() * 1000)

    async def deliver(self, lease: Lease) -> int:
        """Deliver the lane; when it may be claimed again (milliseconds since the epoch)."""
        renewal = asyncio.create_task(self._keep_lease(lease))
        try:
            return await self._deliver(lease)
        except LeaseLostError:
            log.warning("lease_lost", lane_id=lease.lane.lane_id, epoch=lease.epoch)
            return self._clock.now_ms()
        finally:
            renewal.cancel()
            with suppress(asyncio.CancelledError):
                await renewal

    async def _deliver(self, lease: Lease) -> int:
        turn_ends = self._clock.monotonic() + _LONGEST_HOLD_SECONDS
        while not self._stop.is_set():
            outlook = await self._look(lease)
            match outlook.open_batch:
                case None:
                    wait = await self._send_next(lease, outlook)
                case Batch(state=BatchState.FIXED) as batch:
                    wait = await self._send_fixed(lease, outlook, batch)
                case batch:
                    wait = await self._resolve(lease, outlook, batch)
            if wait is not None:
                return self._clock.now_ms() + int(wait.total_seconds() * 1000)
            if self._clock.monotonic() > turn_ends:
                break
        return self._clock.now_ms()

    async def _keep_lease(self, lease: Lease) -> None:
        """Prolong the lease while a long upload holds the lane."""
        while True:
            await asyncio.sleep(self._settings.lease.total_seconds() / 3)

            def renew(transaction: Transaction) -> None:
                with suppress(LeaseLostError):
                    leases.renew(transaction, lease, lease_ms=self._lease_ms)

            await self._commit(renew)

    # --- what is next ---

    async def _look(self, lease: Lease) -> _Outlook:
        def look(transaction: Transaction) -> _Outlook:
            lane_id = lease.lane.lane_id
            lane = leases.read_lane(transaction, lane_id)
            open_batch = batches.find_open_batch(transaction, lane_id)
            first = lane.settled_position + 1
            last = first + _ROWS_READ if open_batch is None else open_batch.last_position
            contents = read_range(transaction, lane_id, first, last, limit=_ROWS_READ)
            unmet = barriers.list_unmet_barriers(transaction, lane_id, first, last)
            return _Outlook(lane, open_batch, contents, unmet)

        return await self._database.read(look)

    def _choose(self, outlook: _Outlook) -> Choice:
        company = timedelta(0) if self._is_flushing() else self._settings.company
        return choose_batch(
            outlook.contents,
            unmet=outlook.unmet,
            limits=self._settings.limits,
            end_of_lane=outlook.lane.last_position,
            now_ms=self._clock.now_ms(),
            company_ms=int(company.total_seconds() * 1000),
        )

    async def _send_next(self, lease: Lease, outlook: _Outlook) -> timedelta | None:
        """Send the next batch; how long the lane must wait, or None to go on at once."""
        match self._choose(outlook):
            case None:
                return timedelta(0)
            case Blocked():
                return _BLOCKED_RECHECK
            case WaitForCompany(until_ms):
                return timedelta(milliseconds=max(until_ms - self._clock.now_ms(), 1))
            case Close(first, last):
                if not self._gate.may_pass():
                    return self._gate_wait()
                return await self._send_new(lease, outlook, first, last)

    def _gate_wait(self) -> timedelta:
        return timedelta(seconds=self._gate.wait_seconds + 0.2 + self._jitter() / 2)

    async def _send_new(self, lease: Lease, outlook: _Outlook, first: int, last: int) -> timedelta | None:
        contents = _within(outlook.contents, first, last)
        unreadable = next((entry for entry in contents.entries if entry.operation is None), None)
        try:
            batch = await self._commit(
                lambda transaction: batches.fix_batch(
                    transaction, lease, first, last, lease_ms=self._lease_ms
                )
            )
        except BaseException:
            self._gate.abandoned()
            raise
        if unreadable is not None:
            self._gate.abandoned()
            await self._park(lease, batch, contents, "corrupt_entry", unreadable.fault or "unreadable")
            return None
        return await self._attempt(lease, outlook.lane, batch, contents, contents)

    async def _send_fixed(self, lease: Lease, outlook: _Outlook, batch: Batch) -> timedelta | None:
        """Send a half of a batch that was refused as a whole."""
        if not self._gate.may_pass():
            return self._gate_wait()
        contents = _within(outlook.contents, batch.first_position, batch.last_position)
        await self._mark_sent(lease, batch)
        return await self._attempt(lease, outlook.lane, batch, contents, contents)

    async def _mark_sent(self, lease: Lease, batch: Batch) -> None:
        await self._commit(
            lambda transaction: batches.mark_sent(transaction, lease, batch, lease_ms=self._lease_ms)
        )

    # --- sending ---

    async def _attempt(
        self, lease: Lease, lane: Lane, batch: Batch, contents: Contents, to_send: Contents
    ) -> timedelta | None:
        failpoints.reach("send.before")
        started = self._clock.monotonic()
        try:
            async with self._sends:
                await self._deliveries[lane.kind].send(lane, batch, to_send)
        except UpstreamFailure as failure:
            self._observe(failure.verdict.value, self._clock.monotonic() - started)
            return await self._judge(lease, lane, batch, contents, failure)
        failpoints.reach("send.after")
        self._observe("delivered", self._clock.monotonic() - started)
        self._gate.passed()
        await self._commit(lambda transaction: batches.settle(transaction, lease, batch))
        return None

    async def _judge(
        self, lease: Lease, lane: Lane, batch: Batch, contents: Contents, failure: UpstreamFailure
    ) -> timedelta | None:
        """Record what became of an attempt; how long the lane must wait, or None to go on at once."""
        words = f"{failure.code}: {failure.message}"[:2000]
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
                await self._commit(lambda transaction: batches.settle(transaction, lease, batch))
                return None
            case Verdict.RETRY | Verdict.WAIT:
                self._gate.failed(words, failure.retry_after)
                await self._not_applied(lease, batch, words)
                return self._gate_wait()
            case Verdict.UNCERTAIN:
                self._gate.failed(words, failure.retry_after)
                await self._commit(
                    lambda transaction: batches.mark_uncertain(transaction, lease, batch, words)
                )
                return self._gate_wait()
            case Verdict.PARK:
                self._note_answer(failure)
                await self._refused(lease, batch, contents, words)
                return None

    async def _not_applied(self, lease: Lease, batch: Batch, words: str) -> None:
        """This attempt did nothing; an earlier one, if there was any, still may have."""
        if batch.state is BatchState.UNCERTAIN:
            await self._commit(lambda transaction: batches.mark_uncertain(transaction, lease, batch, words))
        else:
            await self._commit(lambda transaction: batches.forget_batch(transaction, lease, batch, words))

    def _note_answer(self, failure: UpstreamFailure) -> None:
        """A refusal by the workspace shows that it is well; one of our own shows nothing."""
        if failure.status is None:
            self._gate.abandoned()
        else:
            self._gate.passed()

    async def _refused(self, lease: Lease, batch: Batch, contents: Contents, words: str) -> None:
        """Find what exactly is refused by halving; set only that aside.

        The halves of a batch that was uncertain are uncertain too: parts of it may be there.
        """
        if batch.first_position == batch.last_position:
            await self._park(lease, batch, contents, "refused", words)
            return
        state = BatchState.UNCERTAIN if batch.state is BatchState.UNCERTAIN else BatchState.FIXED
        await self._commit(
            lambda transaction: batches.split_batch(transaction, lease, batch, state=state, failure=words)
        )

    async def _park(self, lease: Lease, batch: Batch, contents: Contents, reason: str, words: str) -> None:
        log.error(
            "entry_parked",
            lane_id=batch.lane_id,
            first=batch.first_position,
            last=batch.last_position,
            reason=reason,
            message=words,
        )
        await self._commit(
            lambda transaction: batches.park(
                transaction, lease, batch, contents, reason=reason, message=words
            )
        )

    # --- uncertain ---

    async def _resolve(self, lease: Lease, outlook: _Outlook, batch: Batch) -> timedelta | None:
        """Read back what was sent without a known outcome, and only then decide."""
        if not self._gate.may_pass():
            return self._gate_wait()
        contents = _within(outlook.contents, batch.first_position, batch.last_position)
        delivery = self._deliveries[outlook.lane.kind]
        try:
            missing = await delivery.find_missing(outlook.lane, batch, contents)
        except UpstreamFailure as failure:
            return await self._unreadable(lease, batch, contents, failure)
        self._gate.passed()
        if not missing.entries and not missing.points:
            await self._commit(lambda transaction: batches.settle(transaction, lease, batch))
            return None
        settle = await delivery.settle_time(outlook.lane, missing)
        if settle:
            batch = await self._commit(lambda transaction: batches.note_empty_read(transaction, lease, batch))
            if not self._is_absent(batch, settle):
                return max(settle / _EMPTY_READS_NEEDED, _SHORTEST_READ_INTERVAL)
        if batch.attempt >= _MOST_ATTEMPTS_OF_UNCERTAIN and settle:
            words = f"Sent {batch.attempt} times; the workspace neither confirms nor denies it."
            await self._park(lease, batch, missing, "uncertain_outcome", words)
            return None
        await self._mark_sent(lease, batch)
        return await self._attempt(lease, outlook.lane, batch, contents, missing)

    def _is_absent(self, batch: Batch, settle: timedelta) -> bool:
        """Three empty reads over the settle time."""
        since = batch.first_empty_read_ms or self._clock.now_ms()
        lasted = timedelta(milliseconds=self._clock.now_ms() - since)
        return batch.empty_reads >= _EMPTY_READS_NEEDED and lasted >= settle

    async def _unreadable(
        self, lease: Lease, batch: Batch, contents: Contents, failure: UpstreamFailure
    ) -> timedelta | None:
        words = f"{failure.code}: {failure.message}"[:2000]
        if failure.verdict is Verdict.PARK:
            self._note_answer(failure)
            await self._park(lease, batch, contents, "uncertain_outcome", words)
            return None
        self._gate.failed(words, failure.retry_after)
        await self._commit(lambda transaction: batches.mark_uncertain(transaction, lease, batch, words))
        return self._gate_wait()

    async def _commit(self, apply: Callable[[Transaction], T]) -> T:
        return await self._writer.commit(Work(apply, raises=(LeaseLostError,)), background=True)


def _within(contents: Contents, first: int, last: int) -> Contents:
    return Contents(
        [entry for entry in contents.entries if first <= entry.position <= last],
        [point for point in contents.points if first <= point.position <= last],
    )
