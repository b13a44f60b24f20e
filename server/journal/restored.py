"""A journal that was restored from a backup: what it holds may have been delivered since the backup was made.

Every undelivered entry is *uncertain* then. Each lane keeps the last position that is (`restored_through`);
batches up to there are read back before anything of them is sent, and never reach beyond.
"""

from server.database.engine import Transaction
from server.domain.fact_names import RESTORED_AT as RESTORED_AT
from server.domain.operations import Operation
from server.journal.batch_states import EMPTY_READS_NEEDED, BatchState
from server.journal.codec import CorruptEntryError, decode_operation

RESTORED_FROM = "restored_from_ms"
"""The fact that holds the moment of the backup: whatever it does not hold happened after it."""


def doubt_undelivered(transaction: Transaction) -> None:
    """From now on nobody knows what became of the entries that are not settled. Nobody holds a lane."""
    transaction.run(
        "UPDATE lanes SET restored_through = last_position, uncertain_through = last_position"
        " WHERE settled_position < last_position"
    )
    transaction.run(
        "UPDATE lanes SET lease_owner = NULL, lease_token = NULL, lease_until_ms = NULL,"
        " lease_epoch = lease_epoch + 1, not_before_ms = 0, failures = 0"
        " WHERE settled_position < last_position OR lease_token IS NOT NULL"
    )
    transaction.run(
        "UPDATE batches SET state = ?, attempt = 0, empty_reads = ?, first_empty_read_ms = ?",
        (BatchState.UNCERTAIN.value, EMPTY_READS_NEEDED - 1, restored_at(transaction)),
    )


def restored_at(transaction: Transaction) -> int | None:
    """When this journal was restored; None if it never was."""
    return _find_moment(transaction, RESTORED_AT)


def restored_from(transaction: Transaction) -> int | None:
    """When the backup was made that this journal was restored from; None if it never was."""
    return _find_moment(transaction, RESTORED_FROM)


def _find_moment(transaction: Transaction, name: str) -> int | None:
    rows = transaction.rows("SELECT value FROM facts WHERE name = ?", (name,))
    return int(rows[0][0]) if rows else None


def count_doubted(transaction: Transaction) -> int:
    """How many entries from before the restore are still to be read back."""
    return int(
        transaction.rows(
            "SELECT coalesce(sum(restored_through - settled_position), 0) FROM lanes"
            " WHERE settled_position < last_position AND settled_position < restored_through"
        )[0][0]
    )


def trust_after(transaction: Transaction, lane_id: int, position: int) -> None:
    """Nothing of what was restored of the lane behind this position was ever sent."""
    transaction.run(
        "UPDATE lanes SET restored_through = ?, uncertain_through ="
        " CASE WHEN uncertain_through = restored_through THEN ? ELSE uncertain_through END"
        " WHERE lane_id = ? AND restored_through > ?",
        (position, position, lane_id, position),
    )


def read_operations(
    transaction: Transaction, lane_id: int, *, after: int, through: int, limit: int
) -> list[tuple[int, Operation | None]]:
    """Up to `limit` operations with their positions, in order, points left out; None for a corrupt one."""
    rows = transaction.rows(
        "SELECT position, kind, payload FROM journal_entries WHERE lane_id = ? AND position > ?"
        " AND position <= ? ORDER BY position LIMIT ?",
        (lane_id, after, through, limit),
    )
    return [(position, _decoded(kind, bytes(payload))) for position, kind, payload in rows]


def _decoded(kind: str, payload: bytes) -> Operation | None:
    try:
        return decode_operation(kind, payload)
    except CorruptEntryError:
        return None
