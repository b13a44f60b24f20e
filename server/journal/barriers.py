"""Barriers: entries that wait until another lane has settled a position."""

from collections.abc import Iterable

from server.database.engine import Transaction


def list_unmet_barriers(
    transaction: Transaction, lane_id: int, first: int, last: int
) -> dict[int, list[int]]:
    """Position → lanes it still waits for, in a range of positions."""
    unmet: dict[int, list[int]] = {}
    for position, awaited in transaction.rows(
        "SELECT barriers.position, barriers.awaited_lane_id FROM barriers"
        " JOIN lanes ON lanes.lane_id = barriers.awaited_lane_id"
        " WHERE barriers.lane_id = ? AND barriers.position BETWEEN ? AND ?"
        " AND lanes.settled_position < barriers.awaited_position ORDER BY barriers.position",
        (lane_id, first, last),
    ):
        unmet.setdefault(position, []).append(awaited)
    return unmet


def list_waiting_lanes(transaction: Transaction, awaited: Iterable[int]) -> list[int]:
    """Lanes that have a barrier on one of these lanes."""
    return [
        row[0]
        for row in transaction.rows_in("SELECT DISTINCT lane_id FROM barriers WHERE awaited_lane_id", awaited)
    ]
