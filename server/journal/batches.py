"""Batches: what one upstream call carries.

A batch is written down before its first send, so what was sent and not settled is known to be *uncertain*
after a restart. Every change needs the lane's lease.
"""

from dataclasses import dataclass

from server.database.engine import Transaction
from server.domain.operations import LogPoint
from server.journal.batch_states import BatchState
from server.journal.codec import encode_operation
from server.journal.contents import Contents
from server.journal.lanes import LaneKind
from server.journal.leases import Lease, require_lease


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
    """Write down what is about to be sent.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    require_lease(transaction, lease, lease_ms=lease_ms)
    rows = transaction.rows(
        "INSERT INTO batches (lane_id, first_position, last_position, state, attempt, epoch, sent_at_ms)"
        " VALUES (?, ?, ?, ?, 1, ?, ?) RETURNING batch_id",
        (lease.lane.lane_id, first, last, BatchState.SENT.value, lease.epoch, transaction.now_ms),
    )
    return Batch(rows[0][0], lease.lane.lane_id, first, last, BatchState.SENT, 1, 0, None)


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

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    require_lease(transaction, lease)
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
    _remove_range(transaction, batch)
    transaction.run(
        "UPDATE lanes SET settled_position = ?, failures = 0, last_failure = NULL WHERE lane_id = ?",
        (batch.last_position, batch.lane_id),
    )


def park(
    transaction: Transaction, lease: Lease, batch: Batch, contents: Contents, *, reason: str, message: str
) -> None:
    """Set a batch's entries aside, and let the lane go on behind them.

    Raises:
        LeaseLostError: another worker holds the lane.
    """
    lane = require_lease(transaction, lease)
    run_pk = lane.subject_id if lane.kind in (LaneKind.RUN_DATA, LaneKind.RUN_ARTIFACTS) else None
    rows = [
        (lane.lane_id, row.position, run_pk, row.kind, row.payload, row.principal, row.accepted_at_ms)
        for row in contents.entries
    ]
    for point in contents.points:
        value = None if point.is_nan else point.value
        kind, payload = encode_operation(LogPoint(point.key, value, point.timestamp_ms, point.step))
        rows.append((lane.lane_id, point.position, run_pk, kind, payload, None, point.accepted_at_ms))
    transaction.run_many(
        "INSERT INTO parked (lane_id, position, run_pk, kind, payload, principal, accepted_at_ms,"
        " reason, message,"
        " parked_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(*row, reason, message, transaction.now_ms) for row in rows],
    )
    settle(transaction, lease, batch)


def _remove_range(transaction: Transaction, batch: Batch) -> None:
    where = " WHERE lane_id = ? AND position BETWEEN ? AND ?"
    bounds = (batch.lane_id, batch.first_position, batch.last_position)
    for table in ("journal_entries", "journal_points", "barriers"):
        transaction.run(f"DELETE FROM {table}{where}", bounds)
    transaction.run("DELETE FROM batches WHERE batch_id = ?", (batch.batch_id,))


def _note_failure(transaction: Transaction, lease: Lease, failure: str) -> None:
    transaction.run(
        "UPDATE lanes SET failures = failures + 1, last_failure = ? WHERE lane_id = ?",
        (failure, lease.lane.lane_id),
    )
