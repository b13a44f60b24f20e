"""Giving up what lanes still hold, for good, because what they belong to is removed."""

from collections.abc import Sequence

from server.database.engine import Transaction
from server.journal.lanes import lock_lanes


def discard_rest(transaction: Transaction, lane_ids: Sequence[int]) -> int:
    """Settle the lanes as they are, whoever holds them; how many entries were given up.

    A delivery under way loses its lease: its result is not taken. The rows stay, for nobody to read.
    """
    lock_lanes(transaction, lane_ids)
    rows = transaction.rows_in(
        "SELECT undelivered_bytes, last_position - settled_position FROM lanes WHERE lane_id", lane_ids
    )
    transaction.run_in(
        "UPDATE lanes SET settled_position = last_position, undelivered_bytes = 0, failures = 0,"
        " last_failure = NULL, lease_owner = NULL, lease_token = NULL, lease_until_ms = NULL WHERE lane_id",
        lane_ids,
    )
    transaction.backlog_bytes -= sum(row[0] for row in rows)
    return sum(row[1] for row in rows)
