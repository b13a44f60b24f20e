"""What a lane holds: its entries and points, read back in order."""

from dataclasses import dataclass, field
from typing import Any

from server.database.engine import Transaction
from server.domain.operations import Operation
from server.journal.codec import CorruptEntryError, decode_operation


@dataclass(frozen=True, slots=True)
class PointRow:
    """One metric point in a lane."""

    position: int
    key: str
    value: float
    is_nan: bool
    timestamp_ms: int
    step: int
    accepted_at_ms: int


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One other operation in a lane. `operation` is None where the row cannot be read back."""

    position: int
    kind: str
    payload: bytes
    operation: Operation | None
    accepted_at_ms: int
    principal: str | None
    fault: str | None = None


@dataclass(slots=True)
class Contents:
    """The rows in a range of positions."""

    entries: list[EntryRow] = field(default_factory=list)
    points: list[PointRow] = field(default_factory=list)


def read_range(transaction: Transaction, lane_id: int, first: int, last: int, *, limit: int) -> Contents:
    """Up to `limit` rows of each table in a range of positions, in order."""
    entries = transaction.rows(
        "SELECT position, kind, payload, accepted_at_ms, principal FROM journal_entries"
        " WHERE lane_id = ? AND position BETWEEN ? AND ? ORDER BY position LIMIT ?",
        (lane_id, first, last, limit),
    )
    points = transaction.rows(
        "SELECT journal_points.position, series.key, journal_points.value, journal_points.is_nan,"
        " journal_points.timestamp_ms, journal_points.step, journal_points.accepted_at_ms"
        " FROM journal_points JOIN series ON series.series_id = journal_points.series_id"
        " WHERE lane_id = ? AND position BETWEEN ? AND ? ORDER BY position LIMIT ?",
        (lane_id, first, last, limit),
    )
    return Contents(
        [_entry(row) for row in entries],
        [PointRow(row[0], row[1], row[2], bool(row[3]), *row[4:7]) for row in points],
    )


def _entry(row: tuple[Any, ...]) -> EntryRow:
    position, kind, payload, accepted_at_ms, principal = row
    try:
        return EntryRow(
            position, kind, bytes(payload), decode_operation(kind, bytes(payload)), accepted_at_ms, principal
        )
    except CorruptEntryError as error:
        return EntryRow(position, kind, bytes(payload), None, accepted_at_ms, principal, str(error))
