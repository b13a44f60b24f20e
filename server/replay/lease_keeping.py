"""Holding on to a lane's lease while its worker is busy, and letting go in time.

The workspace cannot tell a worker that has lost its lane from its successor. So whatever a worker does is
broken off before its lease can have ended: when it could not be prolonged because the database is away, and
when the process was stopped and finds itself running again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog

from server.commit.writer import Work, Writer
from server.domain.clock import Clock
from server.journal.leases import Lease, LeaseLostError, renew
from server.replay.turns import Turn, begin_turn, current_turn

log = structlog.get_logger(__name__)

_MARGIN = timedelta(seconds=10)
_RENEWALS_PER_LEASE = 3
_TRIES_PER_RENEWAL = 8


def lease_ends_at(asked_at: float, lasts: timedelta) -> float:
    """When a lease that was asked for at `asked_at` must be taken for lost (steady seconds): a bit early."""
    return asked_at + (lasts - min(_MARGIN, lasts / 4)).total_seconds()


@asynccontextmanager
async def keeping(lease: Lease, *, writer: Writer, clock: Clock, lasts: timedelta) -> AsyncIterator[Turn]:
    """Prolong the lease while what is inside runs; break it off when the lease cannot be relied on.

    Raises:
        LeaseLostError: it was broken off.
    """
    turn = current_turn()
    if turn is None:
        turn = Turn(lease, lease_ends_at(clock.monotonic(), lasts))
        begin_turn(turn)
    try:
        async with asyncio.timeout(turn.ends_at - clock.monotonic()) as timeout:
            keeper = _Keeper(turn, timeout, writer, clock, lasts)
            renewal = asyncio.create_task(keeper.run(), name=f"lease-{lease.lane.lane_id}")
            try:
                yield turn
            finally:
                renewal.cancel()
                with suppress(asyncio.CancelledError):
                    await renewal
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise LeaseLostError(lease.lane.lane_id) from error


class _Keeper:
    """Prolongs one lease, and moves the moment at which its worker is broken off."""

    def __init__(
        self, turn: Turn, timeout: asyncio.Timeout, writer: Writer, clock: Clock, lasts: timedelta
    ) -> None:
        self._turn = turn
        self._timeout = timeout
        self._writer = writer
        self._clock = clock
        self._lasts = lasts

    async def run(self) -> None:
        """Until cancelled, or until the lease is another's."""
        pause = self._lasts / _RENEWALS_PER_LEASE
        while True:
            await asyncio.sleep(pause.total_seconds())
            pause = self._lasts / _RENEWALS_PER_LEASE
            try:
                await self._renew()
            except LeaseLostError:
                self._end_turn_at(self._clock.monotonic())
                return
            except Exception as error:
                log.warning("lease_not_prolonged", lane_id=self._lane_id, error=type(error).__name__)
                pause /= _TRIES_PER_RENEWAL

    @property
    def _lane_id(self) -> int:
        return self._turn.lease.lane.lane_id

    async def _renew(self) -> None:
        asked_at = self._clock.monotonic()
        lease_ms = int(self._lasts.total_seconds() * 1000)
        await self._writer.commit(
            Work(
                lambda transaction: renew(transaction, self._turn.lease, lease_ms=lease_ms),
                raises=(LeaseLostError,),
                lanes=(self._lane_id,),
            ),
            background=True,
        )
        self._end_turn_at(lease_ends_at(asked_at, self._lasts))

    def _end_turn_at(self, moment: float) -> None:
        self._turn.ends_at = moment
        loop = asyncio.get_running_loop()
        with suppress(RuntimeError):  # it is being broken off already
            self._timeout.reschedule(loop.time() + moment - self._clock.monotonic())
