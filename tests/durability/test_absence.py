"""What the workspace does not show is sent again only when it was asked for after the settle time."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from server.commit.writer import Work, Writer
from server.database.engine import Database
from server.database.migration import prepare_schema
from server.domain.operations import CreateExperiment
from server.domain.verdicts import Verdict
from server.domain.workspace_limits import LimitRefusal
from server.journal import leases
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.entries import append_entry
from server.journal.lanes import LaneKind, open_lane
from server.journal.leases import Lane
from server.replay.deliveries.delivery import Division
from server.replay.gate import Gate
from server.replay.worker import LaneWorker, ReplaySettings
from server.telemetry.metrics import Telemetry
from server.upstream.failures import UpstreamFailure

SETTLE = timedelta(seconds=1)
LEASE_MS = 3_600_000
MOST_TURNS = 100


class StridingClock:
    """Time that passes whenever somebody looks: between any two looks a boundary may lie."""

    def __init__(self, stride_ms: int) -> None:
        self._stride_ms = stride_ms
        self._now_ms = 1_700_000_000_000

    def now_ms(self) -> int:
        self._now_ms += self._stride_ms
        return self._now_ms

    def monotonic(self) -> float:
        return self.now_ms() / 1000


class Unseen:
    """A delivery whose first answer is lost, and whose effect nobody gets to see."""

    def __init__(self, clock: StridingClock) -> None:
        self._clock = clock
        self.first_asked_ms: int | None = None
        self.last_asked_ms = 0
        self.sent = 0

    async def divide(self, lane: Lane, contents: Contents, refusal: LimitRefusal | None = None) -> Division:
        return Division(contents)

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        self.sent += 1
        if self.sent == 1:
            raise UpstreamFailure(Verdict.UNCERTAIN, "LOST", "No answer came.")

    async def find_missing(self, lane: Lane, batch: Batch, contents: Contents) -> Contents:
        self.last_asked_ms = self._clock.now_ms()
        self.first_asked_ms = self.first_asked_ms or batch.first_empty_read_ms
        return contents

    async def settle_time(self, lane: Lane, contents: Contents) -> timedelta:
        return SETTLE


@pytest.mark.parametrize("stride_ms", [50, 130, 170, 210, 290])
def test_absence_counts_by_the_moment_of_the_question(stride_ms: int, tmp_path: Path) -> None:
    """An answer that came after the settle time, to a question asked before its end, proves nothing."""
    asyncio.run(_lose_an_answer(tmp_path, StridingClock(stride_ms)))


async def _lose_an_answer(folder: Path, clock: StridingClock) -> None:
    database = Database(f"sqlite:///{folder / 'journal.db'}")
    prepare_schema(database)
    writer = Writer(database=database, clock=clock)
    writer.start()
    delivery = Unseen(clock)
    worker = LaneWorker(
        database=database,
        writer=writer,
        clock=clock,
        gate=Gate(clock=clock, jitter=lambda: 0.0),
        deliveries={LaneKind.EXPERIMENT: delivery},
        settings=ReplaySettings(lease=timedelta(milliseconds=LEASE_MS)),
        sends=asyncio.Semaphore(1),
        jitter=lambda: 0.0,
        is_flushing=lambda: True,
        stop=asyncio.Event(),
        figures=Telemetry(),
    )
    try:
        lane_id = await writer.commit(
            Work(lambda transaction: open_lane(transaction, LaneKind.EXPERIMENT, 7))
        )
        await writer.commit(
            Work(lambda transaction: append_entry(transaction, lane_id, CreateExperiment(7), principal=None))
        )
        lease = await writer.commit(
            Work(lambda transaction: leases.claim(transaction, lane_id, owner="a", lease_ms=LEASE_MS))
        )
        assert lease is not None
        for _ in range(MOST_TURNS):
            await worker.deliver(lease)
            if delivery.sent == 2:
                break
        assert delivery.sent == 2
        assert delivery.first_asked_ms is not None
        assert delivery.last_asked_ms - delivery.first_asked_ms >= SETTLE / timedelta(milliseconds=1)
    finally:
        await writer.stop()
        database.close()
