"""Writing metric series and their points; `histories`, `charts` and `run_data` read them.

A series is one metric of one run. Its row carries the latest point, so that a run is shown
without touching its points. Points are clustered by (series, step, timestamp, value, is_nan),
which is MLflow's identity of a point.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.database.engine import Transaction
from server.database.together import Change, Together, insert
from server.domain.entities import Metric, Point, PointKey

_NOT_YET_STORED = 0
_KEY_TYPES = ("BIGINT", "TEXT")
_VALUES = {
    "points": "BIGINT",
    "highest_timestamp_ms": "BIGINT",
    "in_time_order": "SMALLINT",
    "latest_step": "BIGINT",
    "latest_timestamp_ms": "BIGINT",
    "latest_value": "DOUBLE PRECISION",
    "latest_is_nan": "SMALLINT",
}
_POINT = {
    "series_id": "BIGINT",
    "step": "BIGINT",
    "timestamp_ms": "BIGINT",
    "value": "DOUBLE PRECISION",
    "is_nan": "SMALLINT",
}
_READ_SERIES = (
    f"SELECT series.series_id, series.run_pk, series.key, {', '.join(f'series.{name}' for name in _VALUES)}"
    " FROM wanted JOIN series ON series.run_pk = wanted.column1 AND series.key = wanted.column2"
)
_READ_IDS = (
    "SELECT series.run_pk, series.key, series.series_id FROM wanted"
    " JOIN series ON series.run_pk = wanted.column1 AND series.key = wanted.column2"
)
_READ_POINTS = (
    "SELECT points.series_id, points.step, points.timestamp_ms, points.value, points.is_nan FROM wanted"
    " JOIN points ON points.series_id = wanted.column1 AND points.step = wanted.column2"
    " AND points.timestamp_ms = wanted.column3 AND points.value = wanted.column4"
    " AND points.is_nan = wanted.column5"
)
_INSERT_SERIES = insert("series", {"run_pk": "BIGINT", "key": "TEXT", **_VALUES})
_UPDATE_SERIES = Together(
    f"UPDATE series SET {', '.join(f'{name} = ?' for name in _VALUES)} WHERE series_id = ?",
    f"UPDATE series SET {', '.join(f'{name} = column{number}' for number, name in enumerate(_VALUES, 1))}"
    f" FROM {{given}} WHERE series_id = column{len(_VALUES) + 1}",
    (*_VALUES.values(), "BIGINT"),
)
_INSERT_POINTS = insert("points", _POINT, "ON CONFLICT DO NOTHING")
_UPSERT_MODEL_METRIC = (
    "INSERT INTO logged_model_metrics (model_id, key, timestamp_ms, step, run_pk, value, is_nan,"
    " dataset_name, dataset_digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)


@dataclass(slots=True)
class SeriesState:
    """A series' row while a group of writes is decided. `series_id` is 0 until it is stored.

    `latest` is the highest point by step, timestamp and value. `in_time_order`: whoever reads the points by
    step reads them by timestamp too. `added` are the points that the group adds.
    """

    series_id: int
    run_pk: int
    key: str
    points: int
    highest_timestamp_ms: int
    in_time_order: bool
    latest: Point
    added: list[Point] = field(default_factory=list)
    _looked_up: set[Point] | None = None
    _looked_up_to: int = 0

    @classmethod
    def starting_with(cls, run_pk: int, key: str, point: Point) -> "SeriesState":
        """The series that this point begins."""
        return cls(_NOT_YET_STORED, run_pk, key, 1, point[1], True, point, added=[point])

    def add(self, point: Point, known: set[PointKey]) -> bool:
        """Add a point, unless the series has it already; whether it was added."""
        if point[0] > self.latest[0]:
            # As nearly all are: no other point can equal it, or be later.
            self.latest = point
        elif self._has(point, known):
            return False
        elif point[:3] > self.latest[:3]:
            self.latest = point
        else:
            self.in_time_order = False
        self.added.append(point)
        self.points += 1
        if point[1] >= self.highest_timestamp_ms:
            self.highest_timestamp_ms = point[1]
        else:
            self.in_time_order = False
        return True

    def forget_added(self) -> None:
        """What was added is stored, and the series is what it is in the database."""
        self.added = []
        self._looked_up = None
        self._looked_up_to = 0

    def _has(self, point: Point, known: set[PointKey]) -> bool:
        """Whether the series has the point: among the stored ones that are `known`, or those just added."""
        looked_up = self._looked_up
        if looked_up is None:
            looked_up = self._looked_up = set()
        looked_up.update(self.added[self._looked_up_to :])
        self._looked_up_to = len(self.added)
        return point in looked_up or (self.series_id, *point) in known


def _state_of(row: tuple[Any, ...]) -> SeriesState:
    series_id, run_pk, key, points, highest_timestamp_ms, in_time_order, *latest = row
    step, timestamp_ms, value, is_nan = latest
    return SeriesState(
        series_id,
        run_pk,
        key,
        points,
        highest_timestamp_ms,
        bool(in_time_order),
        (step, timestamp_ms, value, is_nan),
    )


def read_series(transaction: Transaction, keys: Sequence[tuple[int, str]]) -> list[SeriesState]:
    """The series named by (run_pk, key) that exist."""
    return [_state_of(row) for row in transaction.rows_joined(_READ_SERIES, _KEY_TYPES, keys)]


def read_known_points(transaction: Transaction, keys: Sequence[PointKey]) -> set[PointKey]:
    """Those of the points that are stored."""
    if not keys:
        return set()
    rows = transaction.rows_joined(_READ_POINTS, tuple(_POINT.values()), keys)
    return {(row[0], row[1], row[2], row[3], row[4]) for row in rows}


def insert_new(transaction: Transaction, changed: Iterable[SeriesState]) -> None:
    """Store the rows of new series, which learn their ids."""
    new = [series for series in changed if series.series_id == _NOT_YET_STORED]
    if not new:
        return
    transaction.run_all([(_INSERT_SERIES, [(s.run_pk, s.key, *_values(s)) for s in new])])
    rows = transaction.rows_joined(_READ_IDS, _KEY_TYPES, [(s.run_pk, s.key) for s in new])
    ids = {(row[0], row[1]): row[2] for row in rows}
    for series in new:
        series.series_id = ids[series.run_pk, series.key]


def update(changed: Iterable[SeriesState]) -> Change:
    """The change that stores what became of series that are stored."""
    return _UPDATE_SERIES, [(*_values(series), series.series_id) for series in changed]


def insert_points(points: Sequence[PointKey]) -> Change:
    """The change that stores points."""
    return _INSERT_POINTS, points


def insert_model_metrics(
    transaction: Transaction,
    rows: Sequence[tuple[str, Metric, int, str | None, str | None]],
) -> None:
    """Store points of logged models: (model id, metric, run_pk, dataset name, dataset digest)."""
    transaction.named.update(row[0] for row in rows)
    transaction.run_many(
        _UPSERT_MODEL_METRIC,
        [
            (model_id, m.key, m.timestamp_ms, m.step, run_pk, m.value, m.is_nan, dataset, digest)
            for model_id, m, run_pk, dataset, digest in rows
        ],
    )


def _values(series: SeriesState) -> tuple[Any, ...]:
    return (series.points, series.highest_timestamp_ms, int(series.in_time_order), *series.latest)
