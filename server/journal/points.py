"""Reading a lane's metric points back out of their blocks.

A point is known to be what was written by its block's checksum. Where that is wrong, each of the block's
points is compared with the store, which holds the same point under the same key: what is not there has a
`fault` that says so, and is never sent.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from server.database.engine import Transaction
from server.domain.entities import PointKey
from server.journal.blocks import MOST_POINTS, is_whole, may_hold, unpack

_STORED = (
    "SELECT 1 FROM points WHERE series_id = ? AND step = ? AND timestamp_ms = ? AND value = ? AND is_nan = ?"
)
_BLOCKS_AT_ONCE = 1000
_UNREADABLE: PointKey = (0, 0, 0, 0.0, 0)


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
class _Block:
    """One row of the journal's points."""

    lane_id: int
    first: int
    last: int
    packed: bytes
    accepted_at_ms: int


def read_points(transaction: Transaction, lane_id: int, first: int, last: int) -> list[PointRow]:
    """The points in a range of positions, in order."""
    blocks = list(_blocks(transaction, lane_id, first, last))
    held = [
        (position, point, fault, block.accepted_at_ms)
        for block in blocks
        for position, point, fault in _points_of(transaction, block)
        if first <= position <= last
    ]
    keys = _keys(transaction, {point[0] for _, point, _, _ in held})
    return [
        _row(position, point, accepted_at_ms, keys.get(point[0]), fault)
        for position, point, fault, accepted_at_ms in held
    ]


def read_points_of_series(
    transaction: Transaction, lane_id: int, series_id: int, *, after: int, through: int, limit: int
) -> list[PointRow]:
    """Up to `limit` points of one series in a range of positions, in order."""
    key = _keys(transaction, [series_id]).get(series_id)
    found: list[PointRow] = []
    for block in _blocks(transaction, lane_id, after + 1, through):
        if not may_hold(block.packed, series_id):
            continue
        for position, point, fault in _points_of(transaction, block):
            if point[0] == series_id and after < position <= through:
                found.append(_row(position, point, block.accepted_at_ms, key, fault))
                if len(found) == limit:
                    return found
    return found


def list_series(transaction: Transaction, lane_id: int, *, after: int, through: int) -> list[int]:
    """The series that have points in a range of positions."""
    found: dict[int, None] = {}
    for block in _blocks(transaction, lane_id, after + 1, through):
        for position, point, fault in _points_of(transaction, block):
            if fault is None and after < position <= through:
                found[point[0]] = None
    return list(found)


def find_last_point(transaction: Transaction, lane_id: int, *, after: int, through: int) -> PointRow | None:
    """The last point in a range of positions, if there is one."""
    rows = transaction.rows(
        "SELECT max(last_position) FROM journal_blocks"
        " WHERE lane_id = ? AND first_position <= ? AND last_position > ?",
        (lane_id, through, after),
    )
    if rows[0][0] is None:
        return None
    position = min(rows[0][0], through)
    return read_points(transaction, lane_id, position, position)[0]


def count_points(transaction: Transaction, lane_id: int, first: int, last: int) -> int:
    """How many points there are in a range of positions."""
    bounds = _bounds(lane_id, first, last)
    rows = transaction.rows(f"SELECT first_position, last_position FROM journal_blocks {_WITHIN}", bounds)
    return sum(min(row[1], last) - max(row[0], first) + 1 for row in rows)


def remove_points(transaction: Transaction, lane_id: int, first: int, last: int) -> None:
    """Remove what ends in a range of positions that is settled, as all before it is."""
    transaction.run(
        "DELETE FROM journal_blocks WHERE lane_id = ? AND first_position BETWEEN ? AND ?"
        " AND last_position BETWEEN ? AND ?",
        (lane_id, first - MOST_POINTS, last, first, last),
    )


_WITHIN = "WHERE lane_id = ? AND first_position BETWEEN ? AND ? AND last_position >= ?"


def _bounds(lane_id: int, first: int, last: int) -> tuple[int, int, int, int]:
    """The values of `_WITHIN`: no block that reaches the range begins further before it."""
    return lane_id, first - MOST_POINTS, last, first


def _blocks(transaction: Transaction, lane_id: int, first: int, last: int) -> Iterator[_Block]:
    """The blocks that reach into a range of positions, in order, some at a time."""
    while True:
        rows = transaction.rows(
            f"SELECT first_position, last_position, points, accepted_at_ms FROM journal_blocks {_WITHIN}"
            " ORDER BY first_position LIMIT ?",
            (*_bounds(lane_id, first, last), _BLOCKS_AT_ONCE),
        )
        for begins, ends, packed, accepted_at_ms in rows:
            yield _Block(lane_id, begins, ends, bytes(packed), accepted_at_ms)
        if len(rows) < _BLOCKS_AT_ONCE:
            return
        first = rows[-1][1] + 1


def _points_of(transaction: Transaction, block: _Block) -> Iterator[tuple[int, PointKey, str | None]]:
    """Each point of a block with its position, and what is wrong with it."""
    count = block.last - block.first + 1
    points = unpack(block.packed, count)
    if points is not None and is_whole(block.lane_id, block.first, block.packed):
        for position, point in enumerate(points, block.first):
            yield position, point, None
        return
    for position, point in enumerate(points or [_UNREADABLE] * count, block.first):
        yield position, point, _fault(transaction, position, point)


def _fault(transaction: Transaction, position: int, point: PointKey) -> str | None:
    is_stored = point != _UNREADABLE and transaction.rows(_STORED, point)
    what = f"Journal point at position {position} is not what was written"
    return None if is_stored else f"{what}: the store has no such point."


def _keys(transaction: Transaction, series_ids: Iterable[int]) -> dict[int, str]:
    rows = transaction.rows_in("SELECT series_id, key FROM series WHERE series_id", sorted(series_ids))
    return {row[0]: row[1] for row in rows}


def _row(position: int, point: PointKey, accepted_at_ms: int, key: str | None, fault: str | None) -> PointRow:
    _, step, timestamp_ms, value, is_nan = point
    if key is None and fault is None:
        fault = f"Journal point at position {position} is of no metric that the store has."
    return PointRow(position, key or "", value, bool(is_nan), timestamp_ms, step, accepted_at_ms, fault)
