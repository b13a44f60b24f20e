"""Lanes: what must reach the workspace in order, and the row that gives out positions.

Positions come from the lane's row inside the writer's transaction, never from a database
sequence: sequence order is not commit order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from server.database.engine import Transaction
from server.database.together import Change, Together, insert

_ADVANCE = Together(
    "UPDATE lanes SET last_position = ?, undelivered_bytes = undelivered_bytes + ? WHERE lane_id = ?",
    "UPDATE lanes SET last_position = column1, undelivered_bytes = undelivered_bytes + column2"
    " FROM {given} WHERE lane_id = column3",
    ("BIGINT", "BIGINT", "BIGINT"),
)
_OPEN = insert(
    "lanes",
    {
        "lane_id": "BIGINT",
        "kind": "TEXT",
        "subject_id": "BIGINT",
        "last_position": "BIGINT",
        "undelivered_bytes": "BIGINT",
    },
)


class LaneKind(StrEnum):
    """What a lane belongs to."""

    EXPERIMENT = "experiment"
    RUN_DATA = "run_data"
    RUN_ARTIFACTS = "run_artifacts"
    RUN_OVERFLOW = "run_overflow"
    REGISTERED_MODEL = "registered_model"


@dataclass(frozen=True, slots=True)
class NewLane:
    """A lane that is about to be opened: its kind, and the key of what it belongs to."""

    kind: LaneKind
    subject_id: int


OF_A_RUN = frozenset({LaneKind.RUN_DATA, LaneKind.RUN_ARTIFACTS, LaneKind.RUN_OVERFLOW})
"""The kinds of lane whose subject is a run."""


def open_lane(transaction: Transaction, kind: LaneKind, subject_id: int) -> int:
    """Make the lane of a new thing; its id."""
    return int(
        transaction.rows(
            "INSERT INTO lanes (kind, subject_id) VALUES (?, ?) RETURNING lane_id", (kind.value, subject_id)
        )[0][0]
    )


def open_lanes(
    transaction: Transaction,
    opened: Mapping[int, NewLane],
    last_positions: Mapping[int, int],
    added_bytes: Mapping[int, int],
) -> Change:
    """The change that makes lanes under ids that were taken for them, with what they hold from the start.

    The transaction is told of it at once, as `advance` does.
    """
    filled = last_positions.keys() & opened.keys()
    transaction.touched_lanes |= filled
    transaction.backlog_bytes += sum(added_bytes[lane_id] for lane_id in filled)
    return _OPEN, [
        (
            lane_id,
            lane.kind.value,
            lane.subject_id,
            last_positions.get(lane_id, 0),
            added_bytes.get(lane_id, 0),
        )
        for lane_id, lane in opened.items()
    ]


def lock_lanes(transaction: Transaction, lane_ids: Iterable[int]) -> dict[int, int]:
    """Hold the lanes until the transaction ends; the last position of each.

    Always in id order, so that two writers cannot wait for each other. SQLite has one writer.
    """
    suffix = " ORDER BY lane_id FOR UPDATE" if transaction.is_postgres else ""
    rows = transaction.rows_in(
        "SELECT lane_id, last_position FROM lanes WHERE lane_id", sorted(set(lane_ids)), suffix=suffix
    )
    return {row[0]: row[1] for row in rows}


def advance(
    transaction: Transaction, last_positions: Mapping[int, int], added_bytes: Mapping[int, int]
) -> Change:
    """The change that records the positions that were given out, and what their rows count.

    The transaction is told of it at once. What a row counts is `journal.weights`' matter.
    """
    transaction.touched_lanes.update(last_positions)
    transaction.backlog_bytes += sum(added_bytes[lane_id] for lane_id in last_positions)
    rows = [(position, added_bytes[lane_id], lane_id) for lane_id, position in last_positions.items()]
    return _ADVANCE, rows


def settle_positions(transaction: Transaction, lane_id: int, position: int, freed_bytes: int) -> None:
    """Move a lane's watermark; the rows up to it are gone, and counted `freed_bytes`.

    A lane that has settled all it held counts nothing, whatever became of its rows.
    """
    transaction.run(
        "UPDATE lanes SET settled_position = ?, failures = 0, last_failure = NULL,"
        " undelivered_bytes = CASE WHEN last_position <= ? OR undelivered_bytes < ? THEN 0"
        " ELSE undelivered_bytes - ? END WHERE lane_id = ?",
        (position, position, freed_bytes, freed_bytes, lane_id),
    )
    transaction.backlog_bytes -= freed_bytes


def expect_uncertain(transaction: Transaction, lane_id: int, position: int) -> None:
    """What the lane holds up to that position may have arrived already: it is read back before it is sent."""
    transaction.run(
        "UPDATE lanes SET uncertain_through = ? WHERE lane_id = ? AND uncertain_through < ?",
        (position, lane_id, position),
    )


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
