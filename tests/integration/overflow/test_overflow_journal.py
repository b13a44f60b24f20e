"""Overflow in the journal: an entry is in one place at any moment, and no file changes once it is closed."""

import pytest

from server.domain.operations import DeleteRun, DeliverOverflow, LogParam, UpdateRun
from server.domain.workspace_limits import LimitRefusal, WorkspaceLimit
from server.journal import batches, leases, overflow
from server.journal.backlog import measure_backlog
from server.journal.codec import decode_operation
from server.journal.limits import BELIEVED_FOR, learn_limit, read_limits
from server.journal.overflow import Overflowed
from tests.integration.overflow.conftest import LEASE_MS, Bench, metric


def overflow_all(bench: Bench, lease: leases.Lease, first: int, last: int) -> None:
    """A batch of which everything overflows."""
    rows = bench.rows(first, last)
    items = [Overflowed(row, WorkspaceLimit.PARAMS) for row in [*rows.entries, *rows.points]]
    with bench.database.writing(bench.now_ms) as transaction:
        batch = batches.fix_batch(transaction, lease, first, last, lease_ms=LEASE_MS)
        overflow.settle_with_overflow(transaction, lease, batch, items)


def files(bench: Bench) -> list[tuple[int, int, bool]]:
    """Number, entries, and whether it is delivered, of each file."""
    with bench.database.reading() as transaction:
        found = overflow.list_files(transaction, bench.run_pk)
        return [(file.number, file.entries, file.is_delivered) for file in found]


def lane_of(bench: Bench) -> int:
    """The run's overflow lane."""
    with bench.database.reading() as transaction:
        lane_id = overflow.find_lane(transaction, bench.run_pk)
    assert lane_id is not None
    return lane_id


def params(*numbers: int) -> list[LogParam]:
    """One param for each number."""
    return [LogParam(f"p{number}", str(number)) for number in numbers]


def test_entries_move_from_the_lane_to_the_file(bench: Bench) -> None:
    """What overflows is settled in its lane, kept word for word, counted; one entry stands for the file."""
    bench.append(*params(1, 2, 3))
    lease = bench.claim()
    overflow_all(bench, lease, 1, 2)
    overflow_all(bench, lease, 3, 3)
    assert files(bench) == [(1, 3, False)]
    with bench.database.reading() as transaction:
        assert leases.read_lane(transaction, bench.data_lane).settled_position == 3
        kept = overflow.read_file(transaction, bench.run_pk, 1, after=0, limit=10)
        assert [decode_operation(row.kind, row.payload) for row in kept] == params(1, 2, 3)
        assert [
            row.position for row in overflow.read_file(transaction, bench.run_pk, 1, after=1, limit=1)
        ] == [2]
        backlog = measure_backlog(transaction, [bench.data_lane, lane_of(bench)])
        assert (backlog.pending, backlog.overflow) == (1, 3)
        assert measure_backlog(transaction).overflow == 3
        assert measure_backlog(transaction, [bench.data_lane]).overflow == 0


def test_a_lost_lease_moves_nothing(bench: Bench) -> None:
    """A worker that was overtaken cannot put entries into a file as well."""
    bench.append(*params(1))
    lease = bench.claim()
    rows = bench.rows(1, 1)
    with bench.database.writing(bench.now_ms) as transaction:
        batch = batches.fix_batch(transaction, lease, 1, 1, lease_ms=LEASE_MS)
        transaction.run("UPDATE lanes SET lease_token = 'another' WHERE lane_id = ?", (bench.data_lane,))
    items = [Overflowed(rows.entries[0], WorkspaceLimit.PARAMS)]
    with pytest.raises(leases.LeaseLostError), bench.database.writing(bench.now_ms) as transaction:
        overflow.settle_with_overflow(transaction, lease, batch, items)
    assert files(bench) == []


def test_a_full_file_is_followed_by_another(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is closed at its bound, by entries or by bytes, and the next one has an entry of its own."""
    monkeypatch.setattr(overflow, "FILE_ENTRIES", 2)
    bench.append(*params(1, 2, 3, 4, 5))
    lease = bench.claim()
    overflow_all(bench, lease, 1, 5)
    assert files(bench) == [(1, 2, False), (2, 2, False), (3, 1, False)]
    monkeypatch.setattr(overflow, "FILE_ENTRIES", 1000)
    monkeypatch.setattr(overflow, "FILE_BYTES", 300)
    bench.append(*[LogParam("long", "x" * 250) for _ in range(3)])
    overflow_all(bench, lease, 6, 8)
    assert files(bench)[2:] == [(3, 2, False), (4, 1, False), (5, 1, False)]
    with bench.database.reading() as transaction:
        rows = transaction.rows(
            "SELECT kind, payload FROM journal_entries WHERE lane_id = ? ORDER BY position", (lane_of(bench),)
        )
    assert [decode_operation(kind, bytes(payload)) for kind, payload in rows] == [
        DeliverOverflow(number) for number in range(1, 6)
    ]


def test_a_closed_file_takes_nothing_more(bench: Bench) -> None:
    """What comes after the delivery of a file has begun goes into the next one."""
    bench.append(*params(1, 2))
    lease = bench.claim()
    overflow_all(bench, lease, 1, 1)
    with bench.database.writing(bench.now_ms) as transaction:
        overflow.close_file(transaction, bench.run_pk, 1)
    overflow_all(bench, lease, 2, 2)
    assert files(bench) == [(1, 1, False), (2, 1, False)]


def test_a_delivered_file_is_let_go_in_slices(bench: Bench) -> None:
    """Its rows go only when it is marked as delivered; what it held stays counted."""
    bench.append(*params(1, 2, 3))
    overflow_all(bench, bench.claim(), 1, 3)
    with bench.database.writing(bench.now_ms) as transaction:
        assert overflow.remove_delivered(transaction, bench.run_pk, 1, limit=2) == 0
        assert not overflow.is_delivered(transaction, bench.run_pk, 1)
        overflow.mark_delivered(transaction, bench.run_pk, 1)
        assert overflow.is_delivered(transaction, bench.run_pk, 1)
        assert overflow.remove_delivered(transaction, bench.run_pk, 1, limit=2) == 2
        assert overflow.remove_delivered(transaction, bench.run_pk, 1, limit=2) == 1
        assert overflow.count_delivered(transaction, bench.run_pk, with_file=1) == 3
        assert transaction.rows("SELECT * FROM overflow") == []
    assert files(bench) == [(1, 3, True)]


def claimable(bench: Bench, *, is_flushing: bool = False, after_ms: int = 0) -> list[int]:
    """The lanes that a worker could be given now, or some time later."""
    with bench.database.reading() as transaction:
        return leases.list_claimable(
            transaction, now_ms=bench.now_ms + after_ms, limit=10, is_flushing=is_flushing
        )


@pytest.mark.parametrize("ending", [UpdateRun("FINISHED"), DeleteRun()])
def test_the_end_of_a_run_waits_for_its_overflow_and_wakes_it(
    bench: Bench, ending: UpdateRun | DeleteRun
) -> None:
    """The lane with the end is not claimed before the file is delivered; the file's lane is, though young."""
    bench.append(*params(1), ending)
    lease = bench.claim()
    overflow_all(bench, lease, 1, 1)
    lane = lane_of(bench)
    with bench.database.writing(bench.now_ms) as transaction:
        # Its worker has looked, found the file young, and gone.
        transaction.run("UPDATE lanes SET not_before_ms = ? WHERE lane_id = ?", (bench.now_ms + 60_000, lane))
        awaited = overflow.list_undelivered(transaction, bench.run_pk, ending)
        assert [(item.lane_id, item.position) for item in awaited] == [(lane, 1)]
        assert overflow.list_undelivered(transaction, bench.run_pk, UpdateRun("RUNNING")) == []
        assert overflow.list_undelivered(transaction, bench.run_pk, LogParam("p", "x")) == []
    assert claimable(bench) == []
    with bench.database.writing(bench.now_ms) as transaction:
        overflow.await_overflow(transaction, lease, 2, awaited)
        overflow.await_overflow(transaction, lease, 2, awaited)
        leases.release(transaction, lease, not_before_ms=bench.now_ms)
    assert claimable(bench) == [lane]
    file_lease = bench.claim(lane)
    with bench.database.writing(bench.now_ms) as transaction:
        batch = batches.fix_batch(transaction, file_lease, 1, 1, lease_ms=LEASE_MS)
        batches.settle(transaction, file_lease, batch)
        leases.release(transaction, file_lease, not_before_ms=bench.now_ms)
        assert overflow.list_undelivered(transaction, bench.run_pk, ending) == []
    assert claimable(bench) == [bench.data_lane]


def test_a_flush_takes_a_file_that_cannot_grow(bench: Bench) -> None:
    """While the data lane holds something, the file waits for it; then a flush does not let it wait."""
    bench.append(*params(1, 2))
    lease = bench.claim()
    overflow_all(bench, lease, 1, 1)
    lane = lane_of(bench)
    with bench.database.writing(bench.now_ms) as transaction:
        transaction.run("UPDATE lanes SET not_before_ms = ? WHERE lane_id = ?", (bench.now_ms + 60_000, lane))
    assert claimable(bench, is_flushing=True) == []
    overflow_all(bench, lease, 2, 2)
    assert claimable(bench) == []
    assert claimable(bench, is_flushing=True) == [lane]
    assert claimable(bench, after_ms=60_000) == [lane]


def test_points_are_kept_whole(bench: Bench) -> None:
    """A point leaves its row for an operation that says all of it."""
    bench.append(*params(1))
    lease = bench.claim()
    with bench.database.writing(bench.now_ms) as transaction:
        batch = batches.fix_batch(transaction, lease, 1, 1, lease_ms=LEASE_MS)
        overflow.settle_with_overflow(
            transaction, lease, batch, [Overflowed(metric(1, "loss"), WorkspaceLimit.METRIC_NAMES)]
        )
        (kept,) = overflow.read_file(transaction, bench.run_pk, 1, after=0, limit=10)
    point = decode_operation(kept.kind, kept.payload)
    assert repr(point) == f"LogPoint(key='loss', value=0.5, timestamp_ms={bench.now_ms}, step=1)"
    assert kept.limit_name == "metric_names_per_run"


def test_limits_are_learned_and_believed_for_a_day(bench: Bench) -> None:
    """The latest figure counts; a refusal without one teaches none; an old one is tried anew."""
    day_ms = int(BELIEVED_FOR.total_seconds() * 1000)
    with bench.database.writing(bench.now_ms) as transaction:
        learn_limit(transaction, LimitRefusal(WorkspaceLimit.TAGS, 15), "in its words")
        learn_limit(transaction, LimitRefusal(WorkspaceLimit.TAGS, 50), "in other words")
        learn_limit(transaction, LimitRefusal(WorkspaceLimit.PARAMS, None), "without a figure")
        transaction.run(
            "INSERT INTO workspace_limits (name, value, evidence, learned_at_ms)"
            " VALUES ('of_later', 1, '', ?)",
            (bench.now_ms,),
        )
    with bench.database.reading() as transaction:
        assert read_limits(transaction, now_ms=bench.now_ms + day_ms - 1) == {WorkspaceLimit.TAGS: 50}
        assert read_limits(transaction, now_ms=bench.now_ms + day_ms) == {}
        assert transaction.rows("SELECT evidence FROM workspace_limits WHERE name = 'tags_per_run'") == [
            ("in other words",)
        ]
