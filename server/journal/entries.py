"""Appending entries to lanes."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.database.engine import Transaction
from server.domain.operations import Operation
from server.journal.codec import encode_operation
from server.journal.lanes import advance_lanes, lock_lanes

INSERT_ENTRY = (
    "INSERT INTO journal_entries (lane_id, position, kind, payload, accepted_at_ms, principal)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
INSERT_POINT = (
    "INSERT INTO journal_points"
    " (lane_id, position, series_id, step, timestamp_ms, value, is_nan, accepted_at_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_BARRIER = (
    "INSERT INTO barriers (lane_id, position, awaited_lane_id, awaited_position) VALUES (?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Awaited:
    """A barrier's condition: that lane has settled up to that position."""

    lane_id: int
    position: int


def append_entry(
    transaction: Transaction,
    lane_id: int,
    operation: Operation,
    *,
    principal: str | None,
    awaits: Sequence[Awaited] = (),
    awaits_end_of: Sequence[int] = (),
) -> int:
    """Append one operation to a lane; its position.

    `awaits_end_of` names lanes that must settle all they hold at this moment.
    """
    last_positions = lock_lanes(transaction, [lane_id, *awaits_end_of])
    position = last_positions[lane_id] + 1
    kind, payload = encode_operation(operation)
    transaction.run(INSERT_ENTRY, (lane_id, position, kind, payload, transaction.now_ms, principal))
    ends = [Awaited(awaited, last_positions[awaited]) for awaited in awaits_end_of]
    transaction.run_many(
        INSERT_BARRIER,
        [
            (lane_id, position, awaited.lane_id, awaited.position)
            for awaited in [*awaits, *ends]
            if awaited.position
        ],
    )
    advance_lanes(transaction, {lane_id: position})
    return position
