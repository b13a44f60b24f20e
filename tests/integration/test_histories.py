"""Histories and charts of stored series, against what sorting all points in Python gives."""

import random
from collections.abc import Iterator

import pytest

from server.database.engine import Database, Transaction
from server.database.migration import create_schema
from server.store.charts import Charts, bucket_starts
from server.store.histories import Point, list_points
from server.store.metrics import SeriesState, insert_new, insert_points, read_series, update

_RUN = (1, "a" * 32)
_MANY = 12_500
_PAGE = 700


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty store."""
    database = Database(database_url)
    create_schema(database)
    yield database
    database.close()


def _store(transaction: Transaction, points: list[Point], key: str = "m") -> None:
    """Store the points of a metric, in turn, as a group of writes does."""
    known = {series.key: series for series in read_series(transaction, [(_RUN[0], key)])}
    rest = iter(points)
    series = known.get(key)
    if series is None:
        if (first := next(rest, None)) is None:
            return
        series = SeriesState.starting_with(_RUN[0], key, first)
        insert_new(transaction, [series])
    for point in rest:
        series.add(point, set())
    stored = [(series.series_id, *point) for point in series.added]
    transaction.run_all([update([series]), insert_points(stored)])


def _forget_order(transaction: Transaction) -> None:
    """As series are that were stored before they told their order."""
    transaction.run("UPDATE series SET in_time_order = 0")


def _by_time(points: list[Point]) -> list[Point]:
    return sorted(points, key=lambda point: (point[1], point[0], point[2], point[3]))


def _steady(count: int) -> list[Point]:
    """A training run: a step at a time, several of them in one millisecond."""
    return [(step, 1000 + step // 3, step % 7 / 2, 0) for step in range(count)]


def _unsteady(count: int) -> list[Point]:
    """Steps with gaps and repeats, times that go back, and NaN beside 0."""
    draw = random.Random(7)
    found: set[Point] = set()
    while len(found) < count:
        is_nan = int(draw.random() < 0.1)
        value = 0.0 if is_nan else draw.randrange(5) / 4
        found.add((draw.randrange(-count, 3 * count), draw.randrange(2 * count), value, is_nan))
    return sorted(found)


def _set_back(count: int) -> list[Point]:
    """A steady series whose very last step was logged with an early time."""
    return [*_steady(count - 1), (count, 5, 1.0, 0)]


SHAPES = {"steady": _steady, "unsteady": _unsteady, "set back": _set_back}


@pytest.mark.parametrize("is_order_known", [True, False], ids=["order known", "order unknown"])
@pytest.mark.parametrize("shape", SHAPES)
def test_pages_join_to_the_whole_history(database: Database, shape: str, is_order_known: bool) -> None:
    """Page after page, by position or by offset, is what MLflow's order of all points is."""
    points = SHAPES[shape](3000)
    with database.writing(0) as transaction:
        _store(transaction, points)
        if not is_order_known:
            _forget_order(transaction)
    with database.reading() as transaction:
        by_position: list[Point] = []
        while page := list_points(
            transaction, _RUN[0], "m", limit=_PAGE, after=by_position[-1] if by_position else None
        ):
            by_position += page
        by_offset: list[Point] = []
        while page := list_points(transaction, _RUN[0], "m", limit=_PAGE, offset=len(by_offset)):
            by_offset += page
    assert by_position == by_offset == _by_time(points)


def test_a_series_tells_its_order(database: Database) -> None:
    """Only where each point comes behind the others by step and not before them by time, group by group."""
    for number, (shape, make) in enumerate(SHAPES.items()):
        points = make(300)
        with database.writing(0) as transaction:
            _store(transaction, points[:-1], key=shape)
        with database.writing(0) as transaction:
            _store(transaction, points[-1:], key=shape)
        with database.reading() as transaction:
            [(told,)] = transaction.rows("SELECT in_time_order FROM series WHERE key = ?", (shape,))
        assert told == (number == 0), shape


@pytest.mark.parametrize("is_order_known", [True, False], ids=["order known", "order unknown"])
def test_a_point_logged_late_comes_in_its_time(database: Database, is_order_known: bool) -> None:
    """What is logged between two pages with a later time but an earlier step is on a later page."""
    points = _steady(50)
    late: Point = (-3, 5000, 1.0, 0)
    with database.writing(0) as transaction:
        _store(transaction, points)
        if not is_order_known:
            _forget_order(transaction)
    with database.reading() as transaction:
        first = list_points(transaction, _RUN[0], "m", limit=20)
    with database.writing(0) as transaction:
        _store(transaction, [late])
    with database.reading() as transaction:
        rest = list_points(transaction, _RUN[0], "m", limit=100, after=first[-1])
    assert first + rest == [*_by_time(points), late]


def _expected(points: list[Point], most: int, steps: tuple[int, int] | None) -> list[Point]:
    shown = [point for point in sorted(points) if steps is None or steps[0] <= point[0] <= steps[1]]
    return [shown[ordinal - 1] for ordinal in bucket_starts(len(shown), most)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_chart_of_many_points_is_the_sample_of_all(database: Database, shape: str) -> None:
    """By marks the same points are found as by counting, whole or between steps, few or many."""
    points = SHAPES[shape](_MANY)
    charts = Charts()
    with database.writing(0) as transaction:
        _store(transaction, points)
    middle = sorted(points)[_MANY // 2][0]
    with database.reading() as transaction:
        for most in (1, 2, 320, 2500):
            for steps in (
                None,
                (middle, middle),
                (middle, middle + 5000),
                (points[1000][0], middle),
                (-(2**63), 2**63 - 1),
                (10**9, 10**10),
            ):
                sampled = charts.sample_points(transaction, _RUN, "m", most=most, steps=steps)
                assert sampled == _expected(points, most, steps), (most, steps)


def test_a_chart_follows_what_is_logged(database: Database) -> None:
    """Points behind all others, before them and between them are in the next chart."""
    charts = Charts()
    points = _steady(_MANY)
    additions: list[list[Point]] = [
        [(step, 9000, 1.0, 0) for step in range(_MANY, _MANY + 2345)],
        [(-5, 1, 1.0, 0)],
        [(6000, 2, 0.25, 0)],
        [(_MANY + 9000, 3, 1.0, 0)],
    ]
    with database.writing(0) as transaction:
        _store(transaction, points)
    for added in [[], *additions]:
        points += added
        with database.writing(0) as transaction:
            _store(transaction, added)
        with database.reading() as transaction:
            sampled = charts.sample_points(transaction, _RUN, "m", most=320, steps=None)
        assert sampled == _expected(points, 320, None)
