"""A run in a database of its own, and what its data lane holds."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from server.database.engine import Database, Transaction
from server.database.migration import prepare_schema
from server.domain.entities import RunStatus
from server.domain.operations import LogParam, Operation, SetTag
from server.journal import leases
from server.journal.contents import Contents, EntryRow, read_range
from server.journal.entries import Appends, append_entry
from server.journal.lanes import LaneKind, NewLane
from server.journal.leases import Lease
from server.journal.points import PointRow
from server.services.experiments import add_default_experiment
from server.store import runs

NOW_MS = 1_700_000_000_000
LEASE_MS = 60_000


@dataclass(slots=True)
class Bench:
    """One run; every method is a transaction of its own."""

    database: Database
    run_pk: int
    data_lane: int
    now_ms: int = NOW_MS

    def append(self, *operations: Operation) -> None:
        """Append to the run's data lane."""
        with self.database.writing(self.now_ms) as transaction:
            for operation in operations:
                append_entry(transaction, self.data_lane, operation, principal=None)

    def claim(self, lane_id: int | None = None) -> Lease:
        """Claim a lane: the data lane, or another."""
        with self.database.writing(self.now_ms) as transaction:
            lane = self.data_lane if lane_id is None else lane_id
            lease = leases.claim(transaction, lane, owner="test", lease_ms=LEASE_MS)
        assert lease is not None
        return lease

    def rows(self, first: int, last: int) -> Contents:
        """What the data lane holds there."""
        with self.database.reading() as transaction:
            return read_range(transaction, self.data_lane, first, last, limit=20_000)


@pytest.fixture
def bench(database_url: str) -> Iterator[Bench]:
    """A run that nothing was logged to."""
    database = Database(database_url)
    prepare_schema(database)
    with database.writing(NOW_MS) as transaction:
        add_default_experiment(transaction)
        data_lane, run_pk = _make_run(transaction)
    yield Bench(database, run_pk, data_lane)
    database.close()


def _make_run(transaction: Transaction) -> tuple[int, int]:
    new = runs.NewRun(
        run_id="0" * 32,
        experiment_id=0,
        name="run",
        user_id="",
        status=RunStatus.RUNNING,
        start_time_ms=None,
        artifact_uri="mlflow-artifacts:/0/run/artifacts",
        parent_run_id=None,
        principal=None,
        tags=[],
    )
    [keys] = runs.take_keys(transaction, 1)
    lanes = {
        keys.data_lane: NewLane(LaneKind.RUN_DATA, keys.run_pk),
        keys.artifact_lane: NewLane(LaneKind.RUN_ARTIFACTS, keys.run_pk),
    }
    opened = Appends(transaction, opened=lanes).changes()
    transaction.run_all([*runs.inserted(transaction, [(new, keys)]), *opened])
    return keys.data_lane, keys.run_pk


def param(position: int, key: str, value: str = "x") -> EntryRow:
    """A param as a lane holds it."""
    return EntryRow(position, "LogParam", b"", LogParam(key, value), NOW_MS, None)


def tag(position: int, key: str, value: str = "x") -> EntryRow:
    """A tag as a lane holds it."""
    return EntryRow(position, "SetTag", b"", SetTag(key, value), NOW_MS, None)


def metric(position: int, key: str) -> PointRow:
    """A point as a lane holds it."""
    return PointRow(position, key, 0.5, False, NOW_MS, position, NOW_MS)


def contents(*rows: EntryRow | PointRow) -> Contents:
    """Rows as delivery reads them."""
    return Contents(
        [row for row in rows if isinstance(row, EntryRow)], [row for row in rows if isinstance(row, PointRow)]
    )
