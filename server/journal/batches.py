"""Batches: what one upstream call carries.

A batch is written down before its first send, so what was sent and not settled is known to be *uncertain*
after a restart. Every change needs the lane's lease.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from server.database.engine import Transaction
from server.domain.operations import LogPoint
from server.journal.batch_states import EMPTY_READS_NEEDED, BatchState
from server.journal.codec import encode_operation, encode_unreadable
from server.journal.contents import Contents, EntryRow, read_range
from server.journal.lanes import OF_A_RUN, settle_positions
from server.journal.leases import Lane, Lease, require_lease
from server.journal.points import PointRow, remove_points
from server.journal.restored import restored_at
from server.journal.weights import range_bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """What one upstream call carries: a range of positions, fixed durably before the first send."""

    batch_id: int
    lane_id: int
    first_position: int
    last_position: int
    state: BatchState
    attempt: int
    empty_reads: int
    first_empty_read_ms: int | None


def find_open_batch(transaction: Transaction, lane_id: int) -> Batch | None:
    """The lane's batch that was sent and is not settled."""
    rows = transaction.rows(
        "SELECT batch_id, lane_id, first_position, last_position, state, attempt, empty_reads,"
        " first_empty_read_ms"
        " FROM batches WHERE lane_id = ? ORDER BY first_position LIMIT 1",
        (lane_id,),
    )
    if not rows:
        return None
    batch_id, lane, first, last, state, attempt, empty_reads, first_empty_read_ms = rows[0]
    return Batch(batch_id, lane, first, last, BatchState(state), attempt, empty_reads, first_empty_read_ms)


def fix_batch(transaction: Transaction, lease: Lease, first: int, last: int, *, lease_ms: int) -> Batch:
    """Write down what is about to be sent; or, to be read back first, what may have arrived already.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    lane = require_lease(transaction, lease, lease_ms=lease_ms)
    is_restored = first <= lane.restored_through
    through = lane.restored_through if is_restored else lane.uncertain_through
    if first <= through:
        return _fix_uncertain(transaction, lease, first, min(last, through), is_restored=is_restored)
    rows = transaction.rows(
        "INSERT INTO batches (lane_id, first_position, last_position, state, attempt, epoch, sent_at_ms)"
        " VALUES (?, ?, ?, ?, 1, ?, ?) RETURNING batch_id",
        (lease.lane.lane_id, first, last, BatchState.SENT.value, lease.epoch, transaction.now_ms),
    )
    return Batch(rows[0][0], lease.lane.lane_id, first, last, BatchState.SENT, 1, 0, None)


def _fix_uncertain(
    transaction: Transaction, lease: Lease, first: int, last: int, *, is_restored: bool
) -> Batch:
    """A batch to be read back. What was restored counts as looked for in vain since the restore.

    Whoever may have sent that was gone by then, so one more look is enough when the settle time has passed.
    """
    state = BatchState.UNCERTAIN
    since = restored_at(transaction) if is_restored else None
    empty_reads = 0 if since is None else EMPTY_READS_NEEDED - 1
    rows = transaction.rows(
        "INSERT INTO batches (lane_id, first_position, last_position, state, attempt, epoch, sent_at_ms,"
        " empty_reads, first_empty_read_ms) VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?) RETURNING batch_id",
        (lease.lane.lane_id, first, last, state.value, lease.epoch, since or 0, empty_reads, since),
    )
    return Batch(rows[0][0], lease.lane.lane_id, first, last, state, 0, empty_reads, since)


def mark_sent(transaction: Transaction, lease: Lease, batch: Batch, *, lease_ms: int) -> None:
    """Write down that a fixed batch is about to be sent (once more).

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    require_lease(transaction, lease, lease_ms=lease_ms)
    transaction.run(
        "UPDATE batches SET state = ?, attempt = attempt + 1, empty_reads = 0, first_empty_read_ms = NULL,"
        " sent_at_ms = ?, epoch = ? WHERE batch_id = ?",
        (BatchState.SENT.value, transaction.now_ms, lease.epoch, batch.batch_id),
    )


def mark_uncertain(transaction: Transaction, lease: Lease, batch: Batch, failure: str) -> None:
    """The outcome of a batch is unknown.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    require_lease(transaction, lease)
    transaction.run(
        "UPDATE batches SET state = ? WHERE batch_id = ?", (BatchState.UNCERTAIN.value, batch.batch_id)
    )
    _note_failure(transaction, lease, failure)


def note_empty_read(transaction: Transaction, lease: Lease, batch: Batch) -> Batch:
    """An uncertain batch was looked for and not (all) found.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    require_lease(transaction, lease)
    first = batch.first_empty_read_ms or transaction.now_ms
    transaction.run(
        "UPDATE batches SET empty_reads = empty_reads + 1, first_empty_read_ms = ? WHERE batch_id = ?",
        (first, batch.batch_id),
    )
    return Batch(
        batch.batch_id,
        batch.lane_id,
        batch.first_position,
        batch.last_position,
        batch.state,
        batch.attempt,
        batch.empty_reads + 1,
        first,
    )


def forget_batch(transaction: Transaction, lease: Lease, batch: Batch, failure: str) -> None:
    """A batch was definitely not applied: its positions are free to be batched anew.

    One of the halves of a larger batch stays fixed: the other halves must not go before it.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    require_lease(transaction, lease)
    behind = transaction.rows(
        "SELECT 1 FROM batches WHERE lane_id = ? AND first_position > ? LIMIT 1",
        (batch.lane_id, batch.last_position),
    )
    if behind:
        transaction.run(
            "UPDATE batches SET state = ? WHERE batch_id = ?", (BatchState.FIXED.value, batch.batch_id)
        )
    else:
        transaction.run("DELETE FROM batches WHERE batch_id = ?", (batch.batch_id,))
    _note_failure(transaction, lease, failure)


def split_batch(
    transaction: Transaction, lease: Lease, batch: Batch, *, state: BatchState, failure: str
) -> None:
    """A batch holds something that is refused: it becomes two halves, in the given state.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    require_lease(transaction, lease)
    middle = (batch.first_position + batch.last_position) // 2
    halves = ((batch.first_position, middle), (middle + 1, batch.last_position))
    transaction.run("DELETE FROM batches WHERE batch_id = ?", (batch.batch_id,))
    transaction.run_many(
        "INSERT INTO batches (lane_id, first_position, last_position, parent_batch_id, state, attempt, epoch,"
        " sent_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                batch.lane_id,
                first,
                last,
                batch.batch_id,
                state.value,
                batch.attempt,
                lease.epoch,
                transaction.now_ms,
            )
            for first, last in halves
        ],
    )
    _note_failure(transaction, lease, failure)


def settle(transaction: Transaction, lease: Lease, batch: Batch) -> None:
    """A batch is delivered: the watermark moves, its rows leave the journal.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    require_lease(transaction, lease)
    freed = range_bytes(transaction, batch.lane_id, batch.first_position, batch.last_position)
    _remove_range(transaction, batch)
    settle_positions(transaction, batch.lane_id, batch.last_position, freed)


def park(
    transaction: Transaction, lease: Lease, batch: Batch, contents: Contents, *, reason: str, message: str
) -> None:
    """Set a batch's entries aside, and let the lane go on behind them.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    lane = require_lease(transaction, lease)
    _insert_parked(transaction, lane, contents, reason=reason, message=message)
    settle(transaction, lease, batch)


def set_aside(
    transaction: Transaction,
    lease: Lease,
    batch: Batch,
    entries: Sequence[tuple[EntryRow, str]],
    *,
    reason: str,
) -> None:
    """Park some entries of a batch, each with its message; what is left of it stays to be delivered.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    lane = require_lease(transaction, lease)
    for entry, message in entries:
        _insert_parked(transaction, lane, Contents([entry]), reason=reason, message=message)
    transaction.run_many(
        "DELETE FROM journal_entries WHERE lane_id = ? AND position = ?",
        [(batch.lane_id, entry.position) for entry, _ in entries],
    )
    if not read_range(transaction, batch.lane_id, batch.first_position, batch.last_position, limit=1).count:
        settle(transaction, lease, batch)


def _insert_parked(
    transaction: Transaction, lane: Lane, contents: Contents, *, reason: str, message: str
) -> None:
    run_pk = lane.subject_id if lane.kind in OF_A_RUN else None
    rows = [
        (lane.lane_id, row.position, run_pk, row.kind, row.payload, row.principal, row.accepted_at_ms)
        for row in contents.entries
    ]
    for point in contents.points:
        kind, payload = _point_payload(point)
        rows.append((lane.lane_id, point.position, run_pk, kind, payload, None, point.accepted_at_ms))
    transaction.run_many(
        "INSERT INTO parked (lane_id, position, run_pk, kind, payload, principal, accepted_at_ms,"
        " reason, message,"
        " parked_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(*row, reason, message, transaction.now_ms) for row in rows],
    )


def _point_payload(point: PointRow) -> tuple[str, bytes]:
    value = None if point.is_nan else point.value
    if point.fault is None:
        return encode_operation(LogPoint(point.key, value, point.timestamp_ms, point.step))
    held = {"key": point.key, "value": value, "timestamp_ms": point.timestamp_ms, "step": point.step}
    return LogPoint.__name__, encode_unreadable(held)


def _remove_range(transaction: Transaction, batch: Batch) -> None:
    where = " WHERE lane_id = ? AND position BETWEEN ? AND ?"
    bounds = (batch.lane_id, batch.first_position, batch.last_position)
    for table in ("journal_entries", "barriers"):
        transaction.run(f"DELETE FROM {table}{where}", bounds)
    remove_points(transaction, *bounds)
    transaction.run("DELETE FROM batches WHERE batch_id = ?", (batch.batch_id,))


def _note_failure(transaction: Transaction, lease: Lease, failure: str) -> None:
    transaction.run(
        "UPDATE lanes SET failures = failures + 1, last_failure = ? WHERE lane_id = ?",
        (failure, lease.lane.lane_id),
    )
