"""Points of one metric for a chart: so many of all, spread evenly, without reading the others.

MLflow's rule goes by the place of a point among all, and to find the millionth a database walks over a
million keys. So the key of every thousandth point is kept in memory, as a *mark*: the next chart of the same
metric walks from the nearest one. Marks are believed only while the number of points says so: points are only
ever added, and if as many lie before the last mark as did, none was added before it.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, cast

from server.database.engine import Transaction
from server.store.histories import POINT, Point

_BLOCK = 1000
_FEW = 10 * _BLOCK
"""A series with no more points is read without marks."""
_MOST_MARKS = 50_000
"""Marks kept in memory, of all series together: some ten megabytes."""

_FROM = f"SELECT {POINT} FROM points WHERE series_id = ? AND ({POINT}) >= (?, ?, ?, ?) ORDER BY {POINT}"
_WALK = (
    f"WITH RECURSIVE walk AS ((SELECT {POINT} FROM points WHERE series_id = ? AND ({POINT}) >= (?, ?, ?, ?)"
    f" ORDER BY {POINT} LIMIT 1) UNION ALL SELECT next.* FROM walk CROSS JOIN LATERAL"
    f" (SELECT {POINT} FROM points WHERE series_id = ? AND ({POINT})"
    " >= (walk.step, walk.timestamp_ms, walk.value, walk.is_nan)"
    f" ORDER BY {POINT} LIMIT 1 OFFSET {_BLOCK}) AS next) SELECT {POINT} FROM walk ORDER BY {POINT}"
)
_AT = (
    "SELECT found.* FROM wanted CROSS JOIN LATERAL"
    f" (SELECT {POINT} FROM points WHERE series_id = wanted.column1 AND ({POINT})"
    " >= (wanted.column2, wanted.column3, wanted.column4, wanted.column5)"
    f" ORDER BY {POINT} LIMIT 1 OFFSET wanted.column6) AS found ORDER BY {POINT}"
)
_AT_TYPES = ("BIGINT", "BIGINT", "BIGINT", "DOUBLE PRECISION", "SMALLINT", "BIGINT")


@dataclass(slots=True)
class _Marks:
    """The first point of every block of one series. Never changed once it is kept."""

    keys: list[Point] = field(default_factory=list)

    @property
    def before_last(self) -> int:
        """How many points lie before the last mark."""
        return (len(self.keys) - 1) * _BLOCK


class Charts:
    """Samples series, and remembers marks of long ones. Used by several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._marks: OrderedDict[tuple[str, str], _Marks] = OrderedDict()
        self._kept = 0

    def sample_points(
        self,
        transaction: Transaction,
        run: tuple[int, str],
        key: str,
        *,
        most: int,
        steps: tuple[int, int] | None,
    ) -> list[Point]:
        """At most `most` points of a metric of a run (run_pk, run_id), spread evenly over all, by step.

        MLflow's rule: the points, in order, fall into `most` buckets of equal size (NTILE); the first
        point of each bucket is shown, and the very last point in place of the last of these. `steps` are
        the first and the last step to look at.
        """
        run_pk, run_id = run
        found = transaction.rows(
            "SELECT series_id, points FROM series WHERE run_pk = ? AND key = ?", (run_pk, key)
        )
        if not found:
            return []
        series_id, count = found[0]
        if count <= _FEW:
            return _sample_few(transaction, series_id, most, steps)
        marks = self._marks_of(transaction, (run_id, key), series_id, count)
        first, last = 0, count
        if steps is not None:
            first = _count_below(transaction, series_id, marks, steps[0], "<")
            last = _count_below(transaction, series_id, marks, steps[1], "<=")
        ordinals = [first + ordinal for ordinal in bucket_starts(last - first, most)]
        return _at(transaction, series_id, marks, ordinals)

    def _marks_of(
        self, transaction: Transaction, name: tuple[str, str], series_id: int, count: int
    ) -> _Marks:
        with self._lock:
            kept = self._marks.get(name)
        start: Sequence[Point] = ()
        if (
            kept is not None
            and kept.before_last + _count_from(transaction, series_id, kept.keys[-1]) == count
        ):
            start = kept.keys
        marks = _Marks([*start[:-1], *_walk(transaction, series_id, start[-1] if start else None)])
        self._keep(name, marks)
        return marks

    def _keep(self, name: tuple[str, str], marks: _Marks) -> None:
        with self._lock:
            former = self._marks.pop(name, None)
            self._kept += len(marks.keys) - (len(former.keys) if former is not None else 0)
            self._marks[name] = marks
            while self._kept > _MOST_MARKS:
                _, oldest = self._marks.popitem(last=False)
                self._kept -= len(oldest.keys)


def _sample_few(
    transaction: Transaction, series_id: int, most: int, steps: tuple[int, int] | None
) -> list[Point]:
    where, parameters = ("", ()) if steps is None else (" AND step BETWEEN ? AND ?", steps)
    rows = transaction.rows(
        f"SELECT {POINT} FROM points WHERE series_id = ?{where} ORDER BY {POINT}", (series_id, *parameters)
    )
    return [cast(Point, rows[ordinal - 1]) for ordinal in bucket_starts(len(rows), most)]


def bucket_starts(count: int, most: int) -> list[int]:
    """The ordinals (from 1) of the points to show."""
    if count <= most:
        return list(range(1, count + 1))
    size, larger = divmod(count, most)
    starts = [1 + bucket * size + min(bucket, larger) for bucket in range(most)]
    starts[-1] = count
    return starts


# --- by marks -------------------------------------------------------------------------------

_LOWEST: Point = (-(2**63), -(2**63), -1.7976931348623157e308, 0)


def _walk(transaction: Transaction, series_id: int, start: Point | None) -> list[Point]:
    """The point at `start`, or else the first, and every thousandth behind it."""
    key = _LOWEST if start is None else start
    if transaction.is_postgres:
        return cast(list[Point], transaction.rows(_WALK, (series_id, *key, series_id)))
    found: list[Point] = []
    rows = transaction.rows(f"{_FROM} LIMIT 1", (series_id, *key))
    while rows:
        found += cast(list[Point], rows)
        rows = transaction.rows(f"{_FROM} LIMIT 1 OFFSET {_BLOCK}", (series_id, *found[-1]))
    return found


def _count_from(transaction: Transaction, series_id: int, key: Point) -> int:
    [(count,)] = transaction.rows(
        f"SELECT count(*) FROM points WHERE series_id = ? AND ({POINT}) >= (?, ?, ?, ?)", (series_id, *key)
    )
    return int(count)


def _count_below(transaction: Transaction, series_id: int, marks: _Marks, step: int, below: str) -> int:
    """How many points have a step below this one (`<`, or `<=`)."""
    find = bisect_left if below == "<" else bisect_right
    passed = find(marks.keys, step, key=lambda point: point[0])
    if passed == 0:
        return 0
    [(count,)] = transaction.rows(
        f"SELECT count(*) FROM points WHERE series_id = ? AND ({POINT}) >= (?, ?, ?, ?) AND step {below} ?",
        (series_id, *marks.keys[passed - 1], step),
    )
    return (passed - 1) * _BLOCK + int(count)


def _at(transaction: Transaction, series_id: int, marks: _Marks, ordinals: Sequence[int]) -> list[Point]:
    """The points at these ordinals (from 1)."""
    wanted: list[tuple[Any, ...]] = []
    for ordinal in ordinals:
        block, rest = divmod(ordinal - 1, _BLOCK)
        if block < len(marks.keys):
            wanted.append((series_id, *marks.keys[block], rest))
    if transaction.is_postgres:
        return cast(list[Point], transaction.rows_joined(_AT, _AT_TYPES, wanted))
    found = [transaction.rows(f"{_FROM} LIMIT 1 OFFSET ?", each) for each in wanted]
    return [cast(Point, rows[0]) for rows in found if rows]
