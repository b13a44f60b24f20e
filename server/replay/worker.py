"""Delivering one lane, while holding its lease.

The loop is: what is next, write it down, send it, record what came of it. Whatever an attempt ends
in is decided by its verdict, in one place (`_judge`).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import structlog

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain import failpoints
from server.domain.clock import Clock
from server.domain.verdicts import Verdict
from server.journal import batches, overflow
from server.journal.batch_states import EMPTY_READS_NEEDED, BatchState
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.lanes import LaneKind
from server.journal.leases import Lane, Lease, LeaseLostError
from server.journal.limits import learn_limit
from server.journal.overflow import Overflowed
from server.replay.batching import BatchLimits, Blocked, Choice, Close, WaitForCompany, choose_batch
from server.replay.deliveries.delivery import Delivery, Division
from server.replay.gate import Gate
from server.replay.lease_keeping import keeping
from server.replay.outlook import Outlook, look_at_lane
from server.replay.restored.delivery import ContestedError
from server.replay.turns import lanes_held
from server.upstream.failures import UpstreamFailure

log = structlog.get_logger(__name__)
T = TypeVar("T")

_MOST_ATTEMPTS_OF_UNCERTAIN = 8
_LONGEST_TURN_SECONDS = 5.0
_SHORTEST_READ_INTERVAL = timedelta(milliseconds=200)
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
        try:
            async with keeping(lease, writer=self._writer, clock=self._clock, lasts=self._settings.lease):
                return await self._deliver(lease)
        except LeaseLostError:
            log.warning("lease_lost", lane_id=lease.lane.lane_id, epoch=lease.epoch)
            return self._clock.now_ms()

    async def _deliver(self, lease: Lease) -> int:
        turn_ends = self._clock.monotonic() + _LONGEST_TURN_SECONDS
        while not self._stop.is_set():
            outlook = await self._look(lease)
            match outlook.open_batch:
                case None:
                    wait = await self._send_next(lease, outlook)
                case Batch() as batch if outlook.contents.fault is not None:
                    await self._set_corrupt_aside(lease, batch, outlook.contents)
                    wait = None
                case Batch(state=BatchState.FIXED) as batch:
                    async with self._sends:
                        wait = await self._send_fixed(lease, outlook, batch)
                case batch:
                    async with self._sends:
                        wait = await self._resolve(lease, outlook, batch)
            if wait is not None:
                return self._clock.now_ms() + int(wait.total_seconds() * 1000)
            if self._clock.monotonic() > turn_ends:
                break
        return self._clock.now_ms()

    # --- what is next ---

    async def _look(self, lease: Lease) -> Outlook:
        now_ms, is_flushing = self._clock.now_ms(), self._is_flushing()
        return await self._database.read(
            lambda transaction: look_at_lane(
                transaction, lease.lane.lane_id, now_ms=now_ms, is_flushing=is_flushing
            )
        )

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

    async def _send_next(self, lease: Lease, outlook: Outlook) -> timedelta | None:
        """Send the next batch; how long the lane must wait, or None to go on at once."""
        match self._choose(outlook):
            case None:
                return timedelta(0)
            case Blocked():
                await self._await_overflow(lease, outlook)
                return _BLOCKED_RECHECK
            case WaitForCompany(until_ms):
                return timedelta(milliseconds=max(until_ms - self._clock.now_ms(), 1))
            case Close(first, last):
                async with self._sends:
                    if not self._gate.may_pass():
                        return self._gate_wait()
                    return await self._send_new(lease, outlook, first, last)

    async def _await_overflow(self, lease: Lease, outlook: Outlook) -> None:
        """Write down that the next entry, which ends the run, waits for what has overflowed."""
        if not outlook.awaited_overflow:
            return
        position = outlook.lane.settled_position + 1
        await self._commit(
            lambda transaction: overflow.await_overflow(
                transaction, lease, position, outlook.awaited_overflow
            )
        )

    def _gate_wait(self) -> timedelta:
        return timedelta(seconds=self._gate.wait_seconds + 0.2 + self._jitter() / 2)

    async def _send_new(self, lease: Lease, outlook: Outlook, first: int, last: int) -> timedelta | None:
        contents = _within(outlook.contents, first, last)
        try:
            batch = await self._commit(
                lambda transaction: batches.fix_batch(
                    transaction, lease, first, last, lease_ms=self._lease_ms
                )
            )
        except BaseException:
            self._gate.abandoned()
            raise
        if contents.fault is not None:
            self._gate.abandoned()
            await self._set_corrupt_aside(lease, batch, contents)
            return None
        if batch.state is BatchState.UNCERTAIN:
            self._gate.abandoned()
            return None
        return await self._attempt(lease, outlook.lane, batch, contents)

    async def _send_fixed(self, lease: Lease, outlook: Outlook, batch: Batch) -> timedelta | None:
        """Send a half of a batch that was refused as a whole."""
        if not self._gate.may_pass():
            return self._gate_wait()
        contents = _within(outlook.contents, batch.first_position, batch.last_position)
        await self._mark_sent(lease, batch)
        return await self._attempt(lease, outlook.lane, batch, contents)

    async def _mark_sent(self, lease: Lease, batch: Batch) -> None:
        await self._commit(
            lambda transaction: batches.mark_sent(transaction, lease, batch, lease_ms=self._lease_ms)
        )

    # --- sending ---

    async def _attempt(
        self, lease: Lease, lane: Lane, batch: Batch, rows: Contents, aside: Sequence[Overflowed] = ()
    ) -> timedelta | None:
        """Send rows of a batch, but for what the workspace cannot hold; `aside` is known to be of that."""
        failpoints.reach("send.before")
        started = self._clock.monotonic()
        delivery = self._deliveries[lane.kind]
        division = Division(rows, aside)
        try:
            division = (await delivery.divide(lane, rows)).beside(aside)
            if division.to_send.count:
                await delivery.send(lane, batch, division.to_send)
        except UpstreamFailure as failure:
            self._observe(failure.verdict.value, self._clock.monotonic() - started)
            return await self._judge(lease, lane, batch, division, failure)
        failpoints.reach("send.after")
        if division.to_send.count:
            self._observe("delivered", self._clock.monotonic() - started)
            self._gate.passed()
        else:
            self._gate.abandoned()
        await self._settle(lease, batch, division.overflow)
        return None

    async def _settle(self, lease: Lease, batch: Batch, overflowed: Sequence[Overflowed]) -> None:
        if overflowed:
            limits = sorted({item.limit.value for item in overflowed})
            log.info("entries_overflowed", lane_id=batch.lane_id, entries=len(overflowed), limits=limits)
            failpoints.reach("overflow.decided")
        await self._commit(
            lambda transaction: overflow.settle_with_overflow(transaction, lease, batch, overflowed)
        )
        if overflowed:
            failpoints.reach("overflow.kept")

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
                await self._settle(lease, batch, division.overflow)
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
                return await self._refused(lease, lane, batch, division, failure)

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
            await self._commit(lambda transaction: learn_limit(transaction, refusal, words))
            try:
                parted = await self._deliveries[lane.kind].divide(lane, division.to_send, refusal)
            except UpstreamFailure as unread:
                return await self._judge(lease, lane, batch, division, unread)
            if parted.overflow:
                parted = parted.beside(division.overflow)
                if not parted.to_send.count:
                    await self._settle(lease, batch, parted.overflow)
                    return None
                await self._mark_sent(lease, batch)
                return await self._attempt(lease, lane, batch, parted.to_send, parted.overflow)
        if division.to_send.count == 1:
            await self._park(lease, batch, division.to_send, "refused", words, division.overflow)
            return None
        state = BatchState.UNCERTAIN if batch.state is BatchState.UNCERTAIN else BatchState.FIXED
        await self._commit(
            lambda transaction: batches.split_batch(transaction, lease, batch, state=state, failure=words)
        )
        return None

    async def _set_corrupt_aside(self, lease: Lease, batch: Batch, contents: Contents) -> None:
        """A row of a batch is not what was written: it is never sent, and the others go on without it."""
        words = contents.fault or ""
        if batch.first_position == batch.last_position:
            await self._park(lease, batch, contents, "corrupt_entry", words)
            return
        await self._commit(
            lambda transaction: batches.split_batch(
                transaction, lease, batch, state=batch.state, failure=words
            )
        )

    async def _park(
        self,
        lease: Lease,
        batch: Batch,
        contents: Contents,
        reason: str,
        words: str,
        overflowed: Sequence[Overflowed] = (),
    ) -> None:
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

    # --- uncertain ---

    async def _resolve(self, lease: Lease, outlook: Outlook, batch: Batch) -> timedelta | None:
        """Read back what was sent without a known outcome, and only then decide."""
        if not self._gate.may_pass():
            return self._gate_wait()
        contents = _within(outlook.contents, batch.first_position, batch.last_position)
        delivery = self._deliveries[outlook.lane.kind]
        asked_ms = self._clock.now_ms()
        try:
            missing = await delivery.find_missing(outlook.lane, batch, contents)
        except UpstreamFailure as failure:
            return await self._unreadable(lease, batch, contents, failure)
        except ContestedError as contested:
            self._gate.passed()
            await self._set_contested_aside(lease, batch, contested)
            return None
        failpoints.reach("uncertain.read")
        self._gate.passed()
        if not missing.entries and not missing.points:
            await self._commit(lambda transaction: batches.settle(transaction, lease, batch))
            return None
        settle = await delivery.settle_time(outlook.lane, missing)
        if settle:
            batch = await self._commit(lambda transaction: batches.note_empty_read(transaction, lease, batch))
            if not _is_absent(batch, settle, asked_ms):
                return max(settle / EMPTY_READS_NEEDED, _SHORTEST_READ_INTERVAL)
        if batch.attempt >= _MOST_ATTEMPTS_OF_UNCERTAIN and settle:
            words = f"Sent {batch.attempt} times; the workspace neither confirms nor denies it."
            await self._park(lease, batch, missing, "uncertain_outcome", words)
            return None
        await self._mark_sent(lease, batch)
        return await self._attempt(lease, outlook.lane, batch, missing)

    async def _set_contested_aside(self, lease: Lease, batch: Batch, error: ContestedError) -> None:
        """Entries of a restored journal could overwrite something newer: the others go on without them."""
        entries = [(item.entry, item.message) for item in error.contested]
        positions = [entry.position for entry, _ in entries]
        log.error("entries_contested", lane_id=batch.lane_id, positions=positions[:100])
        await self._commit(
            lambda transaction: batches.set_aside(
                transaction, lease, batch, entries, reason="uncertain_outcome"
            )
        )

    async def _unreadable(
        self, lease: Lease, batch: Batch, contents: Contents, failure: UpstreamFailure
    ) -> timedelta | None:
        words = _words_of(failure)
        if failure.verdict is Verdict.PARK:
            self._note_answer(failure)
            await self._park(lease, batch, contents, "uncertain_outcome", words)
            return None
        self._gate.failed(words, failure.retry_after)
        await self._commit(lambda transaction: batches.mark_uncertain(transaction, lease, batch, words))
        return self._gate_wait()

    async def _commit(self, apply: Callable[[Transaction], T]) -> T:
        work = Work(apply, raises=(LeaseLostError,), lanes=lanes_held())
        return await self._writer.commit(work, background=True)


def _is_absent(batch: Batch, settle: timedelta, asked_ms: int) -> bool:
    """Three empty reads over the settle time, which had passed when the last of them was asked for.

    Not only when it was answered: a read of restored entries is judged by the moment it is made.
    """
    lasted = timedelta(milliseconds=asked_ms - (batch.first_empty_read_ms or asked_ms))
    return batch.empty_reads >= EMPTY_READS_NEEDED and lasted >= settle


def _words_of(failure: UpstreamFailure) -> str:
    return f"{failure.code}: {failure.message}"[:2000]


def _within(contents: Contents, first: int, last: int) -> Contents:
    return Contents(
        [entry for entry in contents.entries if first <= entry.position <= last],
        [point for point in contents.points if first <= point.position <= last],
    )
