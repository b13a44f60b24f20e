"""Holding a lane: a lease is prolonged while work goes on, and work is broken off when it cannot be."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
import pytest_asyncio

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.database.migration import prepare_schema
from server.domain.clock import SystemClock
from server.domain.operations import CreateExperiment
from server.journal import leases
from server.journal.entries import append_entry
from server.journal.lanes import LaneKind, open_lane
from server.journal.leases import Lease, LeaseLostError
from server.replay.lease_keeping import keeping, lease_ends_at
from server.replay.turns import LaneWriter, Turn, begin_turn
from tests.support.attempts import quickest_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

LASTS = timedelta(seconds=1.2)
LASTS_MS = int(LASTS.total_seconds() * 1000)


class Journal:
    """A database with one lane that has something to deliver."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self.database = database
        self.writer = writer
        self.lane_id = 0

    async def fill(self) -> None:
        def fill(transaction: Transaction) -> int:
            lane_id = open_lane(transaction, LaneKind.EXPERIMENT, 7)
            append_entry(transaction, lane_id, CreateExperiment(7), principal=None)
            return lane_id

        self.lane_id = await self.writer.commit(Work(fill))

    async def claim(self, owner: str) -> Lease | None:
        return await self.writer.commit(
            Work(lambda transaction: leases.claim(transaction, self.lane_id, owner=owner, lease_ms=LASTS_MS))
        )

    async def must_claim(self, owner: str) -> Lease:
        lease = await self.claim(owner)
        assert lease is not None
        return lease

    async def release(self) -> None:
        """Let the lane be anybody's."""
        await self.writer.commit(Work(leases.release_all))

    @asynccontextmanager
    async def kept(self, lease: Lease) -> AsyncIterator[Turn]:
        async with keeping(lease, writer=self.writer, clock=SystemClock(), lasts=LASTS) as turn:
            yield turn


@pytest_asyncio.fixture(loop_scope="session")
async def journal(database_url: str) -> AsyncIterator[Journal]:
    """A lane on each database."""
    database = Database(database_url)
    prepare_schema(database)
    writer = Writer(database=database, clock=SystemClock())
    writer.start()
    journal = Journal(database, writer)
    await journal.fill()
    yield journal
    await writer.stop()
    database.close()


async def test_a_lease_lasts_as_long_as_the_work(journal: Journal) -> None:
    """Work of three leases' length keeps its lane: nobody else can claim it meanwhile."""

    async def lost_after() -> float:
        """How much too early another had the lane, in seconds; 0 for never."""
        await journal.release()
        lease, began = await journal.must_claim("a"), time.monotonic()
        with suppress(LeaseLostError):
            async with journal.kept(lease):
                while (held := time.monotonic() - began) < 3 * LASTS.total_seconds():
                    await asyncio.sleep(0.3)
                    if await journal.claim("b") is not None:
                        return 3 * LASTS.total_seconds() - held
            return 0.0
        return 3 * LASTS.total_seconds()

    # A process that stands still for longer than its lease does lose it.
    assert await quickest_of(lambda: asyncio.create_task(lost_after()), under=0.001) == 0.0


async def test_work_ends_when_another_has_the_lane(journal: Journal) -> None:
    """The lane was given to another: the next time the lease is to be prolonged, the work is broken off."""

    async def work() -> float:
        await journal.release()
        lease = await journal.must_claim("a")
        await journal.release()
        await journal.must_claim("b")
        began = time.monotonic()
        with pytest.raises(LeaseLostError):
            async with journal.kept(lease):
                await asyncio.sleep(10)
        return time.monotonic() - began

    soon = LASTS.total_seconds()
    assert await quickest_of(lambda: asyncio.create_task(work()), under=soon) < soon


async def test_work_ends_before_its_lease_when_that_cannot_be_prolonged(journal: Journal) -> None:
    """The database does not answer: the work is broken off while the lane is certainly still ours."""

    async def work() -> float:
        await journal.release()
        lease = await journal.must_claim("a")
        began = time.monotonic()
        stuck = asyncio.create_task(
            journal.writer.commit(Work(lambda transaction: time.sleep(3), alone=True))
        )
        with pytest.raises(LeaseLostError):
            async with journal.kept(lease):
                await asyncio.sleep(10)
        ended = time.monotonic() - began
        await stuck
        return ended

    soon = LASTS.total_seconds()
    assert 0.5 < await quickest_of(lambda: asyncio.create_task(work()), under=soon) < soon


async def test_a_worker_that_comes_late_breaks_off_at_once(journal: Journal) -> None:
    """A process that was stopped past its lease, and goes on, does nothing more for that lane."""

    async def work() -> bool:
        lease = await journal.must_claim("a")
        begin_turn(Turn(lease, lease_ends_at(time.monotonic() - 100, LASTS)))
        went_on: list[bool] = []

        async def go_on() -> None:
            async with journal.kept(lease):
                await asyncio.sleep(0)
                went_on.append(True)

        with pytest.raises(LeaseLostError):
            await go_on()
        return bool(went_on)

    assert not await asyncio.create_task(work())


async def test_what_a_delivery_learned_counts_only_under_the_lease(journal: Journal) -> None:
    """A worker that has lost its lane cannot write down an id from the workspace over its successor's."""

    def remember(transaction: Transaction) -> int:
        return transaction.run(
            "UPDATE lanes SET last_failure = 'written' WHERE lane_id = ?", (journal.lane_id,)
        )

    async def write_as(lease: Lease) -> int:
        begin_turn(Turn(lease, time.monotonic() + 60))
        return await LaneWriter(journal.writer).commit(Work(remember))

    late = await journal.must_claim("a")
    await journal.release()
    current = await journal.must_claim("b")
    with pytest.raises(LeaseLostError):
        await asyncio.create_task(write_as(late))
    rows = await journal.database.read(
        lambda transaction: transaction.rows("SELECT last_failure FROM lanes WHERE last_failure = 'written'")
    )
    assert rows == []
    assert await asyncio.create_task(write_as(current)) == 1


async def test_a_lease_is_taken_for_lost_before_it_ends() -> None:
    """Ten seconds early, or a quarter of a short one."""
    assert lease_ends_at(100.0, timedelta(seconds=120)) == 210.0
    assert lease_ends_at(100.0, timedelta(seconds=8)) == 106.0
