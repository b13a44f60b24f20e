"""How much has still to be delivered."""

from dataclasses import dataclass

from server.database.engine import Transaction
from server.journal.batch_states import BatchState


@dataclass(frozen=True, slots=True)
class Backlog:
    """What has still to be delivered."""

    pending: int
    uncertain: int
    parked: int
    overflow: int
    oldest_ms: int | None


def measure_backlog(transaction: Transaction, lane_ids: list[int] | None = None) -> Backlog:
    """Counts over all lanes, or over some."""
    only = "" if lane_ids is None else f" AND lane_id IN ({','.join('?' * len(lane_ids))})"
    ids = lane_ids or []
    pending = transaction.rows(
        "SELECT coalesce(sum(last_position - settled_position), 0) FROM lanes"
        f" WHERE settled_position < last_position{only}",
        ids,
    )[0][0]
    uncertain = transaction.rows(
        f"SELECT coalesce(sum(last_position - first_position + 1), 0) FROM batches WHERE state = ?{only}",
        [BatchState.UNCERTAIN.value, *ids],
    )[0][0]
    parked = transaction.rows(f"SELECT count(*) FROM parked WHERE decision IS NULL{only}", ids)[0][0]
    overflowed = transaction.rows(f"SELECT count(*) FROM overflow WHERE 1 = 1{only}", ids)[0][0]
    return Backlog(
        int(pending), int(uncertain), int(parked), int(overflowed), _oldest(transaction, only, ids)
    )


def _oldest(transaction: Transaction, only: str, ids: list[int]) -> int | None:
    """When the oldest undelivered entry was accepted: each lane's next position is looked up."""
    times = []
    for table in ("journal_entries", "journal_points"):
        rows = transaction.rows(
            f"SELECT min(heads.accepted) FROM (SELECT (SELECT accepted_at_ms FROM {table}"
            f" WHERE {table}.lane_id = lanes.lane_id ORDER BY position LIMIT 1) AS accepted FROM lanes"
            f" WHERE settled_position < last_position{only}) AS heads",
            ids,
        )
        if rows[0][0] is not None:
            times.append(rows[0][0])
    return min(times) if times else None
