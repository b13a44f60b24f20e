"""Undelivered points are packed, many to a row, and Postgres leaves room for changed series."""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# As blocks are at this revision, whatever becomes of them later (`server.journal.blocks`).
_MOST_POINTS = 28
_POINT = struct.Struct("<qqqdB")
_PLACE = struct.Struct("<qq")
_ROWS_AT_ONCE = 2000

_Row = Sequence[Any]

_POINTS = (
    "SELECT lane_id, position, accepted_at_ms, series_id, step, timestamp_ms, value, is_nan,"
    " (SELECT 1 FROM points WHERE points.series_id = journal_points.series_id"
    " AND points.step = journal_points.step AND points.timestamp_ms = journal_points.timestamp_ms"
    " AND points.value = journal_points.value AND points.is_nan = journal_points.is_nan)"
    " FROM journal_points ORDER BY lane_id, position"
)
_BLOCKS = sa.text(
    "INSERT INTO journal_blocks (lane_id, first_position, last_position, points, accepted_at_ms)"
    " VALUES (:lane_id, :first_position, :last_position, :points, :accepted_at_ms)"
)


def upgrade() -> None:
    op.create_table(
        "journal_blocks",
        sa.Column("lane_id", sa.BigInteger(), nullable=False),
        sa.Column("first_position", sa.BigInteger(), nullable=False),
        sa.Column("last_position", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.LargeBinary(), nullable=False, comment="Undelivered metric points, packed."),
        sa.Column("accepted_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lane_id", "first_position", name=op.f("pk_journal_blocks")),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    rows = connection.exec_driver_sql(_POINTS, execution_options={"yield_per": _ROWS_AT_ONCE})
    held: list[dict[str, Any]] = []
    for block in _blocks_of(rows):
        held.append(block)
        if len(held) == _ROWS_AT_ONCE:
            connection.execute(_BLOCKS, held)
            held = []
    if held:
        connection.execute(_BLOCKS, held)
    op.drop_table("journal_points")
    if connection.dialect.name == "postgresql":
        op.execute("ALTER TABLE series SET (fillfactor = 50)")


def _blocks_of(rows: Iterable[_Row]) -> Iterator[dict[str, Any]]:
    held: list[_Row] = []
    for row in rows:
        if held and not _goes_on(held, row):
            yield _block(held)
            held = []
        held.append(row)
    if held:
        yield _block(held)


def _goes_on(held: Sequence[_Row], row: _Row) -> bool:
    last = held[-1]
    follows = row[:3] == (last[0], last[1] + 1, last[2])
    return follows and len(held) < _MOST_POINTS and bool(last[-1]) and bool(row[-1])


def _block(held: Sequence[_Row]) -> dict[str, Any]:
    """Points that the store does not have as well stay known as damaged: their block's checksum is wrong."""
    lane_id, first, accepted_at_ms, *_ = held[0]
    try:
        body = b"".join(_POINT.pack(*row[3:8]) for row in held)
    except (struct.error, TypeError):
        body = repr(held[0][3:8]).encode()
    checksum = zlib.crc32(body, zlib.crc32(_PLACE.pack(lane_id, first)))
    if not held[0][-1]:
        checksum ^= 0xFFFFFFFF
    return {
        "lane_id": lane_id,
        "first_position": first,
        "last_position": held[-1][1],
        "points": checksum.to_bytes(4, "big") + body,
        "accepted_at_ms": accepted_at_ms,
    }
