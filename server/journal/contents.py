"""What a lane holds: its entries and points, read back in order.

A row that is not what was written is known as such. Its `fault` says what is wrong, and it is never sent.
"""

from dataclasses import dataclass, field
from typing import Any

from server.database.engine import Transaction
from server.domain.operations import Operation
from server.journal.codec import CorruptEntryError, decode_operation
from server.journal.points import PointRow, read_points


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
    points = read_points(transaction, lane_id, first, last)[:limit]
    return Contents([_entry(row) for row in entries], points)


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
