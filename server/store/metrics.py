"""Metric series and their points.

A series is one metric of one run. Its row carries the latest point, so that a run is shown
without touching its points. Points are clustered by (series, step, timestamp, value, is_nan),
which is MLflow's identity of a point.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from server.database.engine import Transaction
from server.domain.entities import Metric

PointKey = tuple[int, int, int, float, int]

_SERIES_COLUMNS = (
    "series.series_id, series.run_pk, series.key, series.points, series.lowest_step, series.highest_step,"
    " series.lowest_timestamp_ms, series.highest_timestamp_ms, series.latest_step,"
    " series.latest_timestamp_ms, series.latest_value, series.latest_is_nan"
)
_READ_SERIES = (
    f"SELECT {_SERIES_COLUMNS} FROM wanted"
    " JOIN series ON series.run_pk = wanted.column1 AND series.key = wanted.column2"
)
_READ_POINTS = (
    "SELECT points.series_id, points.step, points.timestamp_ms, points.value, points.is_nan FROM wanted"
    " JOIN points ON points.series_id = wanted.column1 AND points.step = wanted.column2"
    " AND points.timestamp_ms = wanted.column3 AND points.value = wanted.column4"
    " AND points.is_nan = wanted.column5"
)
_POINT_TYPES = ("BIGINT", "BIGINT", "BIGINT", "DOUBLE PRECISION", "SMALLINT")
_INSERT_SERIES = (
    "INSERT INTO series (run_pk, key, points, lowest_step, highest_step, lowest_timestamp_ms,"
    " highest_timestamp_ms, latest_step, latest_timestamp_ms, latest_value, latest_is_nan)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE_SERIES = (
    "UPDATE series SET points = ?, lowest_step = ?, highest_step = ?, lowest_timestamp_ms = ?,"
    " highest_timestamp_ms = ?, latest_step = ?, latest_timestamp_ms = ?, latest_value = ?,"
    " latest_is_nan = ? WHERE series_id = ?"
)
_NEW_SERIES_IDS = (
    "SELECT series.run_pk, series.key, series.series_id FROM wanted"
    " JOIN series ON series.run_pk = wanted.column1 AND series.key = wanted.column2"
)
_INSERT_POINTS = (
    "INSERT INTO points (series_id, step, timestamp_ms, value, is_nan) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING"
)
_UPSERT_MODEL_METRIC = (
    "INSERT INTO logged_model_metrics (model_id, key, timestamp_ms, step, run_pk, value, is_nan,"
    " dataset_name, dataset_digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_NOT_YET_STORED = 0


@dataclass(slots=True)
class SeriesState:
    """A series' row while a group of writes is decided. `series_id` is 0 until it is stored."""

    series_id: int
    run_pk: int
    key: str
    points: int
    lowest_step: int
    highest_step: int
    lowest_timestamp_ms: int
    highest_timestamp_ms: int
    latest: tuple[int, int, float]
    latest_is_nan: bool
    added: set[tuple[int, int, float, int]] = field(default_factory=set)

    @classmethod
    def starting_with(cls, run_pk: int, metric: Metric) -> "SeriesState":
        """The series that this point begins."""
        step, timestamp = metric.step, metric.timestamp_ms
        return cls(
            _NOT_YET_STORED,
            run_pk,
            metric.key,
            1,
            step,
            step,
            timestamp,
            timestamp,
            (step, timestamp, metric.value),
            metric.is_nan,
            {(step, timestamp, metric.value, int(metric.is_nan))},
        )

    def add(self, metric: Metric, known: set[PointKey]) -> bool:
        """Add a point, unless the series has it already; whether it was added."""
        identity = (metric.step, metric.timestamp_ms, metric.value, int(metric.is_nan))
        if identity in self.added or (self.series_id, *identity) in known:
            return False
        self.added.add(identity)
        self.points += 1
        self.lowest_step = min(self.lowest_step, metric.step)
        self.highest_step = max(self.highest_step, metric.step)
        self.lowest_timestamp_ms = min(self.lowest_timestamp_ms, metric.timestamp_ms)
        self.highest_timestamp_ms = max(self.highest_timestamp_ms, metric.timestamp_ms)
        candidate = (metric.step, metric.timestamp_ms, metric.value)
        if candidate > self.latest:
            self.latest = candidate
            self.latest_is_nan = metric.is_nan
        return True


def point_key(series_id: int, metric: Metric) -> PointKey:
    """MLflow's identity of a point, within a series."""
    return (series_id, metric.step, metric.timestamp_ms, metric.value, int(metric.is_nan))


def _series(row: tuple[Any, ...]) -> SeriesState:
    *head, step, timestamp_ms, value, is_nan = row
    series_id, run_pk, key, count, lowest, highest, earliest, newest = head
    return SeriesState(
        series_id,
        run_pk,
        key,
        count,
        lowest,
        highest,
        earliest,
        newest,
        (step, timestamp_ms, value),
        bool(is_nan),
    )


def read_series(
    transaction: Transaction, keys: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], SeriesState]:
    """The series named by (run_pk, key) that exist."""
    return {
        (row[1], row[2]): _series(row)
        for row in transaction.rows_joined(_READ_SERIES, ("BIGINT", "TEXT"), keys)
    }


def read_known_points(transaction: Transaction, keys: Sequence[PointKey]) -> set[PointKey]:
    """Those of the points that are stored."""
    if not keys:
        return set()
    return {
        (row[0], row[1], row[2], row[3], row[4])
        for row in transaction.rows_joined(_READ_POINTS, _POINT_TYPES, keys)
    }


def write_series(transaction: Transaction, changed: Sequence[SeriesState]) -> None:
    """Store the rows of series that got points; new ones learn their id."""
    new = [series for series in changed if series.series_id == _NOT_YET_STORED]
    known = [series for series in changed if series.series_id != _NOT_YET_STORED]
    transaction.run_many(_UPDATE_SERIES, [(*_series_values(series), series.series_id) for series in known])
    if not new:
        return
    transaction.run_many(_INSERT_SERIES, [(s.run_pk, s.key, *_series_values(s)) for s in new])
    rows = transaction.rows_joined(_NEW_SERIES_IDS, ("BIGINT", "TEXT"), [(s.run_pk, s.key) for s in new])
    ids = {(row[0], row[1]): row[2] for row in rows}
    for series in new:
        series.series_id = ids[series.run_pk, series.key]


def _series_values(series: SeriesState) -> tuple[Any, ...]:
    return (
        series.points,
        series.lowest_step,
        series.highest_step,
        series.lowest_timestamp_ms,
        series.highest_timestamp_ms,
        *series.latest,
        int(series.latest_is_nan),
    )


def insert_points(transaction: Transaction, rows: Sequence[PointKey]) -> None:
    """Store points."""
    transaction.run_many(_INSERT_POINTS, rows)


def insert_model_metrics(
    transaction: Transaction,
    rows: Sequence[tuple[str, Metric, int, str | None, str | None]],
) -> None:
    """Store points of logged models: (model id, metric, run_pk, dataset name, dataset digest)."""
    transaction.named.update(row[0] for row in rows)
    transaction.run_many(
        _UPSERT_MODEL_METRIC,
        [
            (model_id, m.key, m.timestamp_ms, m.step, run_pk, m.value, int(m.is_nan), dataset, digest)
            for model_id, m, run_pk, dataset, digest in rows
        ],
    )


def list_points(
    transaction: Transaction, run_pk: int, key: str, *, offset: int, limit: int
) -> list[tuple[int, int, float, int]]:
    """Points of a metric as (step, timestamp_ms, value, is_nan), by timestamp, step, value.

    This is MLflow's order of a history; one row more than a page tells whether there is another.
    """
    return [
        (row[0], row[1], row[2], row[3])
        for row in transaction.rows(
            "SELECT points.step, points.timestamp_ms, points.value, points.is_nan FROM series"
            " JOIN points ON points.series_id = series.series_id"
            " WHERE series.run_pk = ? AND series.key = ?"
            " ORDER BY points.timestamp_ms, points.step, points.value LIMIT ? OFFSET ?",
            (run_pk, key, limit, offset),
        )
    ]


def list_latest(
    transaction: Transaction, run_pks: Sequence[int]
) -> dict[int, list[tuple[str, float, int, int, int]]]:
    """The latest point of every metric of these runs: run → (key, value, is_nan, timestamp_ms, step)."""
    latest: dict[int, list[tuple[str, float, int, int, int]]] = {}
    for row in transaction.rows_in(
        "SELECT run_pk, key, latest_value, latest_is_nan, latest_timestamp_ms, latest_step"
        " FROM series WHERE run_pk",
        run_pks,
    ):
        latest.setdefault(row[0], []).append((row[1], row[2], row[3], row[4], row[5]))
    return latest


def sample_points(
    transaction: Transaction,
    run_pk: int,
    key: str,
    *,
    most: int,
    steps: tuple[int, int] | None,
) -> list[tuple[int, int, float, int]]:
    """At most `most` points of a metric, spread evenly over all of them, by step.

    MLflow's rule: the points, in order, fall into `most` buckets of equal size (NTILE); the first
    point of each bucket is shown, and the very last point in place of the last of these.
    """
    found = transaction.rows(
        "SELECT series_id, points FROM series WHERE run_pk = ? AND key = ?", (run_pk, key)
    )
    if not found:
        return []
    series_id, count = found[0]
    where = "series_id = ?"
    parameters: list[int] = [series_id]
    if steps is not None:
        where += " AND step BETWEEN ? AND ?"
        parameters.extend(steps)
        count = transaction.rows(f"SELECT count(*) FROM points WHERE {where}", parameters)[0][0]
    ordinals = _bucket_starts(count, most)
    columns = "step, timestamp_ms, value, is_nan"
    if len(ordinals) == count:
        rows = transaction.rows(f"SELECT {columns} FROM points WHERE {where} ORDER BY {columns}", parameters)
    else:
        marks = ",".join("?" * len(ordinals))
        rows = transaction.rows(
            f"SELECT {columns} FROM (SELECT {columns}, row_number() OVER (ORDER BY {columns}) AS ordinal"
            f" FROM points WHERE {where}) AS numbered WHERE ordinal IN ({marks}) ORDER BY {columns}",
            [*parameters, *ordinals],
        )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def _bucket_starts(count: int, most: int) -> list[int]:
    """The ordinals (from 1) of the points to show."""
    if count <= most:
        return list(range(1, count + 1))
    size, larger = divmod(count, most)
    starts = [1 + bucket * size + min(bucket, larger) for bucket in range(most)]
    starts[-1] = count
    return starts
