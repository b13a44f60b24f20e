"""Overflow as the lines of its file."""

import math

from server.database.engine import Transaction
from server.domain.operations import LogParam, LogPoint, Operation, SetTag
from server.domain.overflow_files import OverflowKind, OverflowLine, encode_line
from server.domain.verdicts import Verdict
from server.journal.codec import CorruptEntryError, decode_operation
from server.journal.overflow import KeptRow, read_file
from server.store import upstream_ids
from server.upstream.failures import UpstreamFailure


def read_lines(
    transaction: Transaction, *, run_pk: int, file_number: int, after: int, limit: int
) -> list[tuple[int, bytes]]:
    """Up to `limit` lines of a file behind position `after`, in order, each with its entry's position.

    Raises:
        UpstreamFailure: a row is not what was written.
    """
    rows = read_file(transaction, run_pk, file_number, after=after, limit=limit)
    return [(row.position, _line(transaction, row)) for row in rows]


def _line(transaction: Transaction, row: KeptRow) -> bytes:
    try:
        operation = decode_operation(row.kind, row.payload)
    except CorruptEntryError as error:
        raise UpstreamFailure(Verdict.PARK, "CORRUPT_ENTRY", str(error)) from error
    return encode_line(_value_of(transaction, operation, row))


def _value_of(transaction: Transaction, operation: Operation, row: KeptRow) -> OverflowLine:
    """The value to be told. Tags that name runs name them as the workspace does."""
    match operation:
        case LogPoint(key, value, timestamp_ms, step):
            number = math.nan if value is None else value
            return OverflowLine(OverflowKind.METRIC, key, number, timestamp_ms, row.limit_name, step)
        case LogParam(key, text):
            return OverflowLine(OverflowKind.PARAM, key, text, row.accepted_at_ms, row.limit_name)
        case SetTag(key, text):
            shown = upstream_ids.upstream_tag_value(transaction, key, text)
            return OverflowLine(OverflowKind.TAG, key, shown, row.accepted_at_ms, row.limit_name)
        case other:
            raise TypeError(f"{type(other).__name__} cannot overflow")
