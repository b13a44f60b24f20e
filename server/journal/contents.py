"""What a lane holds: its entries and points, read back in order.

A row that is not what was written is known as such: an entry by its checksum, a point by the store, which
holds the same point under the same key. Its `fault` says what is wrong, and it is never sent.
"""

from dataclasses import dataclass, field
from typing import Any

from server.database.engine import Transaction
from server.domain.operations import Operation
from server.journal.codec import CorruptEntryError, decode_operation

# A scalar subquery: on both databases a look-up by key for each row, never a join over all points.
_STORED_POINT = (
    "SELECT 1 FROM points WHERE points.series_id = journal_points.series_id"
    " AND points.step = journal_points.step AND points.timestamp_ms = journal_points.timestamp_ms"
    " AND points.value = journal_points.value AND points.is_nan = journal_points.is_nan"
)


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
    fault: str | None = None


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

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.entries) + len(self.points)

    @property
    def fault(self) -> str | None:
        """What is wrong with the first row that cannot be read back, if there is one."""
        rows: list[EntryRow | PointRow] = [*self.entries, *self.points]
        return next((row.fault for row in rows if row.fault is not None), None)


def read_range(transaction: Transaction, lane_id: int, first: int, last: int, *, limit: int) -> Contents:
    """Up to `limit` rows of each table in a range of positions, in order."""
    bounds = (lane_id, first, last, limit)
    entries = transaction.rows(
        f"SELECT position, {_raw_text(transaction, 'kind')}, payload, accepted_at_ms,"
        f" {_raw_text(transaction, 'principal')} FROM journal_entries"
        " WHERE lane_id = ? AND position BETWEEN ? AND ? ORDER BY position LIMIT ?",
        bounds,
    )
    points = transaction.rows(
        "SELECT journal_points.position, series.key, journal_points.value, journal_points.is_nan,"
        " journal_points.timestamp_ms, journal_points.step, journal_points.accepted_at_ms,"
        f" ({_STORED_POINT}) FROM journal_points"
        " LEFT JOIN series ON series.series_id = journal_points.series_id"
        " WHERE lane_id = ? AND position BETWEEN ? AND ? ORDER BY position LIMIT ?",
        bounds,
    )
    return Contents([_entry(row) for row in entries], [_point(row) for row in points])


def _raw_text(transaction: Transaction, column: str) -> str:
    """The column so that SQLite gives even text that is no text any more; Postgres checks what it gives."""
    return column if transaction.is_postgres else f"CAST({column} AS BLOB)"


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _entry(row: tuple[Any, ...]) -> EntryRow:
    position, raw_kind, raw_payload, accepted_at_ms, raw_principal = row
    kind, payload = _text(raw_kind), bytes(raw_payload)
    principal = None if raw_principal is None else _text(raw_principal)
    try:
        return EntryRow(position, kind, payload, decode_operation(kind, payload), accepted_at_ms, principal)
    except CorruptEntryError as error:
        return EntryRow(position, kind, payload, None, accepted_at_ms, principal, str(error))


def _point(row: tuple[Any, ...]) -> PointRow:
    position, key, value, is_nan, timestamp_ms, step, accepted_at_ms, is_stored = row
    fault = None
    if not is_stored:
        fault = f"Journal point at position {position} is not what was written: the store has no such point."
    return PointRow(position, key or "", value, bool(is_nan), timestamp_ms, step, accepted_at_ms, fault)
