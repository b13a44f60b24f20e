"""A worker that lost its lease while it was sending cannot overwrite what its successor does."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from server.commit.writer import Work, Writer
from server.database.engine import Database
from server.database.migration import prepare_schema
from server.domain.clock import SystemClock
from server.domain.operations import CreateExperiment
from server.domain.workspace_limits import LimitRefusal
from server.journal import batches, leases
from server.journal.batch_states import BatchState
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.entries import append_entry
from server.journal.lanes import LaneKind, open_lane
from server.journal.leases import Lane, Lease
from server.replay.deliveries.delivery import Division
from server.replay.gate import Gate
from server.replay.worker import LaneWorker, ReplaySettings
from server.telemetry.metrics import Telemetry

LEASE_MS = 120_000


class StolenWhileSending:
    """A delivery in the middle of which another worker takes over the lane."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.sent = 0
        self.successor: Lease | None = None

    async def divide(self, lane: Lane, contents: Contents, refusal: LimitRefusal | None = None) -> Division:
        return Division(contents)

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        self.sent += 1
        await self._writer.commit(Work(leases.release_all))
        self.successor = await self._writer.commit(
            Work(lambda transaction: leases.claim(transaction, lane.lane_id, owner="b", lease_ms=LEASE_MS))
        )

    async def find_missing(self, lane: Lane, batch: Batch, contents: Contents) -> Contents:
        return contents

    async def settle_time(self, lane: Lane, contents: Contents) -> timedelta:
        return timedelta(0)


@pytest.mark.fault("16")
def test_a_lost_lease_changes_nothing(tmp_path: Path) -> None:
    """A worker whose lane was taken over while it was sending stops, and leaves the batch uncertain."""
    asyncio.run(_lose_a_lease(tmp_path))


async def _lose_a_lease(folder: Path) -> None:
    database = Database(f"sqlite:///{folder / 'journal.db'}")
    prepare_schema(database)
    clock = SystemClock()
    writer = Writer(database=database, clock=clock)
    writer.start()
    delivery = StolenWhileSending(writer)
    telemetry = Telemetry()
    worker = LaneWorker(
        database=database,
        writer=writer,
        clock=clock,
        gate=Gate(clock=clock),
        deliveries={LaneKind.EXPERIMENT: delivery},
        settings=ReplaySettings(),
        sends=asyncio.Semaphore(1),
        jitter=lambda: 0.0,
        is_flushing=lambda: True,
        stop=asyncio.Event(),
        figures=telemetry,
    )
    try:
        lane_id = await writer.commit(
            Work(lambda transaction: open_lane(transaction, LaneKind.EXPERIMENT, 7))
        )
        operation = CreateExperiment(7)
        await writer.commit(
            Work(lambda transaction: append_entry(transaction, lane_id, operation, principal=None))
        )
        lease = await writer.commit(
            Work(lambda transaction: leases.claim(transaction, lane_id, owner="a", lease_ms=LEASE_MS))
        )
        assert lease is not None
        await worker.deliver(lease)
        lane = await database.read(lambda transaction: leases.read_lane(transaction, lane_id))
        batch = await database.read(lambda transaction: batches.find_open_batch(transaction, lane_id))
        assert delivery.sent == 1
        assert delivery.successor is not None
        assert lane.settled_position == 0
        assert batch is not None
        assert batch.state is BatchState.UNCERTAIN
        assert b"mlproxy_lease_lost_total 1.0" in telemetry.render({}, {})
    finally:
        await writer.stop()
        database.close()
