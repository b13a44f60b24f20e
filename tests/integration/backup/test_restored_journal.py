"""The journal after a restore: what was there is uncertain, what comes later is not, no batch holds both."""

from collections.abc import Iterator

import pytest

from server.database.engine import Database
from server.database.migration import prepare_schema
from server.domain.operations import SetTag
from server.journal import batches, leases, restored
from server.journal.backlog import measure_backlog
from server.journal.batch_states import EMPTY_READS_NEEDED, BatchState
from server.journal.batches import Batch
from server.journal.entries import append_entry
from server.journal.lanes import LaneKind, expect_uncertain, open_lane
from server.journal.leases import Lease
from server.services import generations

_RESTORED_AT_MS = 2_000_000_000_000
_BACKUP_MS = 1_900_000_000_000
_LEASE_MS = 60_000


class Lane:
    """One lane of a journal."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.writing(1) as transaction:
            self.lane_id = open_lane(transaction, LaneKind.RUN_DATA, 1)

    def append(self, count: int) -> None:
        with self.database.writing(1) as transaction:
            for number in range(count):
                append_entry(transaction, self.lane_id, SetTag("k", str(number)), principal=None)

    def restore(self) -> None:
        with self.database.writing(_RESTORED_AT_MS) as transaction:
            generations.begin_next(transaction, restored_from_ms=_BACKUP_MS)

    def claim(self) -> Lease:
        with self.database.writing(_RESTORED_AT_MS + 1) as transaction:
            lease = leases.claim(transaction, self.lane_id, owner="test", lease_ms=_LEASE_MS)
        assert lease is not None
        return lease

    def fix(self, lease: Lease, first: int, last: int) -> Batch:
        with self.database.writing(_RESTORED_AT_MS + 2) as transaction:
            return batches.fix_batch(transaction, lease, first, last, lease_ms=_LEASE_MS)

    def settle(self, lease: Lease, batch: Batch) -> None:
        with self.database.writing(_RESTORED_AT_MS + 3) as transaction:
            batches.settle(transaction, lease, batch)

    def uncertain(self) -> int:
        with self.database.reading() as transaction:
            return measure_backlog(transaction).uncertain


@pytest.fixture
def lane(database_url: str) -> Iterator[Lane]:
    """A lane that holds nothing."""
    database = Database(database_url)
    prepare_schema(database)
    yield Lane(database)
    database.close()


def test_no_batch_reaches_beyond_what_was_restored(lane: Lane) -> None:
    """Restored positions are read back first, those after them are sent as always."""
    lane.append(3)
    lane.restore()
    lane.append(2)
    lease = lane.claim()
    batch = lane.fix(lease, 1, 5)
    assert (batch.first_position, batch.last_position, batch.state) == (1, 3, BatchState.UNCERTAIN)
    assert (batch.attempt, batch.empty_reads) == (0, EMPTY_READS_NEEDED - 1)
    assert batch.first_empty_read_ms == _RESTORED_AT_MS
    lane.settle(lease, batch)
    batch = lane.fix(lease, 4, 5)
    assert (batch.first_position, batch.last_position, batch.state) == (4, 5, BatchState.SENT)


def test_what_an_operator_sends_again_is_looked_for_from_now_on(lane: Lane) -> None:
    """Positions that are only expected to be uncertain do not count as looked for since the restore."""
    lane.append(1)
    lane.restore()
    lane.append(2)
    with lane.database.writing(_RESTORED_AT_MS + 1) as transaction:
        expect_uncertain(transaction, lane.lane_id, 3)
    lease = lane.claim()
    lane.settle(lease, lane.fix(lease, 1, 3))
    batch = lane.fix(lease, 2, 3)
    assert (batch.state, batch.empty_reads, batch.first_empty_read_ms) == (BatchState.UNCERTAIN, 0, None)


def test_leases_and_batches_of_the_former_server_are_void(lane: Lane) -> None:
    """Whoever held a lane holds it no more, and what it had sent is uncertain."""
    lane.append(2)
    lease = lane.claim()
    lane.fix(lease, 1, 1)
    lane.restore()
    assert lane.uncertain() == 2
    with lane.database.writing(_RESTORED_AT_MS) as transaction, pytest.raises(leases.LeaseLostError):
        leases.renew(transaction, lease, lease_ms=_LEASE_MS)
    again = lane.claim()
    assert again.epoch > lease.epoch
    with lane.database.reading() as transaction:
        batch = batches.find_open_batch(transaction, lane.lane_id)
    assert batch is not None
    assert (batch.state, batch.first_empty_read_ms) == (BatchState.UNCERTAIN, _RESTORED_AT_MS)


def test_everything_undelivered_counts_as_uncertain_until_it_is_settled(lane: Lane) -> None:
    """So that `drain` and `status` tell how far reading back is."""
    lane.append(4)
    lane.restore()
    lane.append(1)
    assert lane.uncertain() == 4
    lease = lane.claim()
    lane.settle(lease, lane.fix(lease, 1, 3))
    assert lane.uncertain() == 1
    with lane.database.reading() as transaction:
        assert generations.read_state(transaction).being_read_back == 1


def test_a_lane_whose_beginning_was_not_there_is_not_doubted(lane: Lane) -> None:
    """When the run itself had to be made, the rest of its lane goes out as always."""
    lane.append(5)
    lane.restore()
    with lane.database.writing(_RESTORED_AT_MS + 1) as transaction:
        restored.trust_after(transaction, lane.lane_id, 1)
    lease = lane.claim()
    lane.settle(lease, lane.fix(lease, 1, 5))
    batch = lane.fix(lease, 2, 5)
    assert (batch.first_position, batch.last_position, batch.state) == (2, 5, BatchState.SENT)
