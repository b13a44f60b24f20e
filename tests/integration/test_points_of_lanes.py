"""Reading points back out of a lane's blocks, whatever range of positions is asked for."""

from collections.abc import Iterator

import pytest

from server.database.engine import Database, Transaction
from server.database.migration import create_schema
from server.domain.entities import PointKey
from server.journal.blocks import INSERT_BLOCK, MOST_POINTS, pack
from server.journal.points import (
    PointRow,
    count_points,
    find_last_point,
    list_series,
    read_points,
    read_points_of_series,
    remove_points,
)
from server.store.metrics import SeriesState, insert_new, insert_points

LANE, OTHER_LANE = 3, 4
ACCEPTED_MS = 1_700_000_000_000
FIRST_STRETCH = range(2, 2 + 2 * MOST_POINTS + 5)
SECOND_STRETCH = range(FIRST_STRETCH.stop + 2, FIRST_STRETCH.stop + 2 + MOST_POINTS)
POSITIONS = [*FIRST_STRETCH, *SECOND_STRETCH]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A lane with points of two metrics in turn, in two stretches, and another lane that must not be seen."""
    database = Database(database_url)
    create_schema(database)
    with database.writing(ACCEPTED_MS) as transaction:
        insert_new(
            transaction, [SeriesState.starting_with(1, key, (0, 0, 0.0, 0)) for key in ("even", "odd")]
        )
        for lane_id, stretch in ((LANE, FIRST_STRETCH), (LANE, SECOND_STRETCH), (OTHER_LANE, range(1, 200))):
            points = [point_at(transaction, position) for position in stretch]
            transaction.run_all([insert_points(points)])
            rows = list(pack(lane_id, stretch.start, points, accepted_at_ms=ACCEPTED_MS))
            transaction.run_together(INSERT_BLOCK, rows)
    yield database
    database.close()


def key_of(position: int) -> str:
    """The metric of the point at a position."""
    return "odd" if position % 2 else "even"


def point_at(transaction: Transaction, position: int) -> PointKey:
    """The point at a position."""
    rows = transaction.rows("SELECT series_id FROM series WHERE key = ?", (key_of(position),))
    return rows[0][0], position, ACCEPTED_MS + position, position / 4, 0


def row_at(position: int) -> PointRow:
    """The point at a position, as it is read."""
    moment = ACCEPTED_MS + position
    return PointRow(position, key_of(position), position / 4, False, moment, position, ACCEPTED_MS)


def test_any_range(database: Database) -> None:
    """A range holds exactly the points at its positions, wherever it begins and ends within blocks."""
    ends = [*range(0, POSITIONS[-1] + 3, 3), POSITIONS[-1]]
    with database.reading() as transaction:
        for first in ends:
            for last in (end for end in ends if end >= first):
                wanted = [row_at(position) for position in POSITIONS if first <= position <= last]
                assert read_points(transaction, LANE, first, last) == wanted
                assert count_points(transaction, LANE, first, last) == len(wanted)
                found = find_last_point(transaction, LANE, after=first - 1, through=last)
                assert found == (wanted[-1] if wanted else None)


def test_one_series(database: Database) -> None:
    """Of one metric, the points in a range are given in order, up to the limit."""
    odd = [row_at(position) for position in POSITIONS if position % 2 and 9 < position <= 70]
    with database.reading() as transaction:
        series_id = point_at(transaction, 1)[0]
        found = read_points_of_series(transaction, LANE, series_id, after=9, through=70, limit=1000)
        few = read_points_of_series(transaction, LANE, series_id, after=9, through=70, limit=7)
        everything = list_series(transaction, LANE, after=9, through=70)
        one = list_series(transaction, LANE, after=9, through=10)
        even_id = point_at(transaction, 2)[0]
    assert found == odd
    assert few == odd[:7]
    assert sorted(everything) == sorted([series_id, even_id])
    assert one == [even_id]


def test_settled_step_by_step(database: Database) -> None:
    """Whatever steps a lane is settled in, each leaves what comes after it; at the end nothing is left."""
    for step in (1, 10, MOST_POINTS, MOST_POINTS + 1, 100):
        with database.writing(ACCEPTED_MS) as transaction:
            transaction.run("SAVEPOINT before")
            for first in range(1, POSITIONS[-1] + 1, step):
                last = first + step - 1
                remove_points(transaction, LANE, first, last)
                rest = [row_at(position) for position in POSITIONS if position > last]
                assert read_points(transaction, LANE, last + 1, POSITIONS[-1]) == rest
            blocks = transaction.rows("SELECT lane_id FROM journal_blocks")
            assert {row[0] for row in blocks} == {OTHER_LANE}
            transaction.run("ROLLBACK TO SAVEPOINT before")


def test_damage_is_told_point_by_point(database: Database) -> None:
    """Of a block with flipped bits, only the points they are in are at fault; of one cut short, all."""
    with database.writing(ACCEPTED_MS) as transaction:
        (first, packed), (second, other) = transaction.rows(
            "SELECT first_position, points FROM journal_blocks WHERE lane_id = ?"
            " ORDER BY first_position LIMIT 2",
            (LANE,),
        )
        flipped = bytearray(packed)
        flipped[4 + 33 * 5] ^= 1
        change = "UPDATE journal_blocks SET points = ? WHERE lane_id = ? AND first_position = ?"
        transaction.run(change, (bytes(flipped), LANE, first))
        transaction.run(change, (bytes(other)[:-1], LANE, second))
        rows = read_points(transaction, LANE, 1, POSITIONS[-1])
    assert [row.position for row in rows] == POSITIONS
    at_fault = {row.position for row in rows if row.fault is not None}
    assert at_fault == {first + 5, *range(second, second + MOST_POINTS)}
    assert [row for row in rows if row.fault is None] == [
        row_at(position) for position in POSITIONS if position not in at_fault
    ]
