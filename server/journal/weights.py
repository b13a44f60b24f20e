"""How many bytes the journal counts for what it holds.

`lanes.undelivered_bytes` is the sum over a lane's rows: added where positions are given out, taken away
where rows are removed. Small artifacts lie in the database until they are delivered, so they count too.
"""

from server.database.engine import Transaction
from server.domain.operations import Operation, UploadArtifact
from server.journal.codec import CorruptEntryError, decode_operation
from server.journal.points import count_points

_ROW_BYTES = 64
_UPLOAD = UploadArtifact.__name__
POINT_BYTES = _ROW_BYTES


def entry_bytes(operation: Operation, payload: bytes) -> int:
    """What one entry counts."""
    return _ROW_BYTES + len(payload) + _inline_bytes(operation)


def range_bytes(transaction: Transaction, lane_id: int, first: int, last: int) -> int:
    """What the rows in a range of positions count."""
    bounds = (lane_id, first, last)
    where = "WHERE lane_id = ? AND position BETWEEN ? AND ?"
    entries = transaction.rows(
        f"SELECT length(payload), CASE WHEN kind = '{_UPLOAD}' THEN payload END FROM journal_entries {where}",
        bounds,
    )
    total = POINT_BYTES * count_points(transaction, lane_id, first, last)
    for length, upload in entries:
        total += _ROW_BYTES + int(length) + (0 if upload is None else _inline_bytes_of(bytes(upload)))
    return total


def _inline_bytes(operation: Operation) -> int:
    if isinstance(operation, UploadArtifact) and operation.spool_name is None:
        return operation.size_bytes
    return 0


def _inline_bytes_of(payload: bytes) -> int:
    try:
        return _inline_bytes(decode_operation(_UPLOAD, payload))
    except CorruptEntryError:
        return 0  # a lane that is all settled counts nothing, whatever was added for this row
