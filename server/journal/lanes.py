"""Lanes: what must reach the workspace in order, and the row that gives out positions.

Positions come from the lane's row inside the writer's transaction, never from a database
sequence: sequence order is not commit order.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from server.database.engine import Transaction


class LaneKind(StrEnum):
    """What a lane belongs to."""

    EXPERIMENT = "experiment"
    RUN_DATA = "run_data"
    RUN_ARTIFACTS = "run_artifacts"
    REGISTERED_MODEL = "registered_model"


def open_lane(transaction: Transaction, kind: LaneKind, subject_id: int) -> int:
    """Make the lane of a new thing; its id."""
    return int(
        transaction.rows(
            "INSERT INTO lanes (kind, subject_id) VALUES (?, ?) RETURNING lane_id", (kind.value, subject_id)
        )[0][0]
    )


def lock_lanes(transaction: Transaction, lane_ids: Iterable[int]) -> dict[int, int]:
    """Hold the lanes until the transaction ends; the last position of each.

    Always in id order, so that two writers cannot wait for each other. SQLite has one writer.
    """
    suffix = " ORDER BY lane_id FOR UPDATE" if transaction.is_postgres else ""
    rows = transaction.rows_in(
        "SELECT lane_id, last_position FROM lanes WHERE lane_id", sorted(set(lane_ids)), suffix=suffix
    )
    return {row[0]: row[1] for row in rows}


def advance_lanes(transaction: Transaction, last_positions: Mapping[int, int]) -> None:
    """Record the positions that were given out."""
    transaction.run_many(
        "UPDATE lanes SET last_position = ? WHERE lane_id = ?",
        [(position, lane_id) for lane_id, position in last_positions.items()],
    )
    transaction.touched_lanes.update(last_positions)


def list_pending_lanes(transaction: Transaction, lane_ids: Iterable[int]) -> list[int]:
    """Those of the lanes that hold something not yet settled."""
    return [
        row[0]
        for row in transaction.rows_in(
            "SELECT lane_id FROM lanes WHERE settled_position < last_position AND lane_id", lane_ids
        )
    ]


def is_settled(transaction: Transaction, lane_id: int, position: int) -> bool:
    """Whether the lane has settled everything up to that position."""
    rows = transaction.rows("SELECT settled_position FROM lanes WHERE lane_id = ?", (lane_id,))
    return bool(rows) and rows[0][0] >= position
