"""How much has still to be delivered."""

from dataclasses import dataclass

from server.database.engine import Transaction
from server.journal.batch_states import BatchState
from server.journal.lanes import LaneKind
from server.journal.overflow import count_overflow


@dataclass(frozen=True, slots=True)
class Backlog:
    """What has still to be delivered, and what never will be by an operator's decision (`dropped`)."""

    pending: int
    uncertain: int
    parked: int
    overflow: int
    dropped: int
    undelivered_bytes: int
    oldest_ms: int | None


def measure_backlog(transaction: Transaction, lane_ids: list[int] | None = None) -> Backlog:
    """Counts over all lanes, or over some."""
    only = "" if lane_ids is None else f" AND lane_id IN ({','.join('?' * len(lane_ids))})"
    ids = lane_ids or []
    pending, undelivered_bytes = transaction.rows(
        "SELECT coalesce(sum(last_position - settled_position), 0), coalesce(sum(undelivered_bytes), 0)"
        f" FROM lanes WHERE settled_position < last_position{only}",
        ids,
    )[0]
    parked = transaction.rows(f"SELECT count(*) FROM parked WHERE decision IS NULL{only}", ids)[0][0]
    dropped = transaction.rows(f"SELECT count(*) FROM parked WHERE decision = 'dropped'{only}", ids)[0][0]
    return Backlog(
        pending=int(pending),
        uncertain=_count_uncertain(transaction, only, ids),
        parked=int(parked),
        overflow=count_overflow(transaction, lane_ids),
        dropped=int(dropped),
        undelivered_bytes=int(undelivered_bytes),
        oldest_ms=_oldest(transaction, only, ids),
    )


def _count_uncertain(transaction: Transaction, only: str, ids: list[int]) -> int:
    """What may have arrived already: sent with unknown outcome, or expected to be found before it is sent."""
    sent = transaction.rows(
        "SELECT coalesce(sum(last_position - first_position + 1), 0) FROM batches WHERE state = ?"
        " AND first_position > (SELECT uncertain_through FROM lanes WHERE lanes.lane_id = batches.lane_id)"
        f"{only}",
        [BatchState.UNCERTAIN.value, *ids],
    )[0][0]
    expected = transaction.rows(
        "SELECT coalesce(sum(uncertain_through - settled_position), 0) FROM lanes"
        f" WHERE settled_position < last_position AND settled_position < uncertain_through{only}",
        ids,
    )[0][0]
    return int(sent) + int(expected)


def count_pending_by_kind(transaction: Transaction) -> dict[str, int]:
    """How many entries have still to be delivered, for each kind of lane; kinds without any are there too."""
    rows = transaction.rows(
        "SELECT kind, sum(last_position - settled_position) FROM lanes"
        " WHERE settled_position < last_position GROUP BY kind"
    )
    return {kind.value: 0 for kind in LaneKind} | {kind: int(pending) for kind, pending in rows}


def measure_undelivered_bytes(transaction: Transaction) -> int:
    """What everything that has still to be delivered counts (`journal.weights`)."""
    rows = transaction.rows(
        "SELECT coalesce(sum(undelivered_bytes), 0) FROM lanes WHERE settled_position < last_position"
    )
    return int(rows[0][0])


def _oldest(transaction: Transaction, only: str, ids: list[int]) -> int | None:
    """When the oldest undelivered entry was accepted: each lane's next position is looked up."""
    times = []
    for table, position in (("journal_entries", "position"), ("journal_blocks", "first_position")):
        rows = transaction.rows(
            f"SELECT min(heads.accepted) FROM (SELECT (SELECT accepted_at_ms FROM {table}"
            f" WHERE {table}.lane_id = lanes.lane_id ORDER BY {position} LIMIT 1) AS accepted FROM lanes"
            f" WHERE settled_position < last_position{only}) AS heads",
            ids,
        )
        if rows[0][0] is not None:
            times.append(rows[0][0])
    return min(times) if times else None
