"""A backlog of a million points in seconds: written into a proxy's database as the proxy would have."""

from collections.abc import Iterator
from itertools import islice

from sqlalchemy import Connection, create_engine, text

from server.domain.entities import PointKey
from server.journal.blocks import MOST_POINTS, pack

METRICS = 4
_BASE_MS = 1_700_000_000_000
_POINT_BYTES = 64
_NUMBERS = {
    "postgresql": "SELECT generate_series(0, :count - 1) AS number",
    "sqlite": (
        "WITH RECURSIVE numbers(number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM numbers"
        " WHERE number < :count - 1) SELECT number FROM numbers"
    ),
}


def add_backlog(database_url: str, run_ids: list[str], points: int) -> None:
    """Give each run so many points that are still to be delivered. No server may be running."""
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.begin() as connection:
            for run_id in run_ids:
                _add_to_run(connection, run_id, points // METRICS)
    finally:
        engine.dispose()


def _add_to_run(connection: Connection, run_id: str, count: int) -> None:
    run_pk, lane_id, last = connection.execute(
        text(
            "SELECT run_pk, lane_id, last_position FROM runs JOIN lanes ON lane_id = data_lane_id"
            " WHERE run_id = :run_id"
        ),
        {"run_id": run_id},
    ).one()
    numbers = _NUMBERS[connection.dialect.name]
    series_ids = [_add_series(connection, run_pk, f"behind{metric}", count) for metric in range(METRICS)]
    for series_id in series_ids:
        connection.execute(
            text(
                "INSERT INTO points (series_id, step, timestamp_ms, value, is_nan)"
                f" SELECT :series_id, number, :base + number, 0.5, 0 FROM ({numbers}) AS n"
            ),
            {"count": count, "series_id": series_id, "base": _BASE_MS},
        )
    _add_to_journal(connection, lane_id, last + 1, _points(series_ids, count))
    connection.execute(
        text(
            "UPDATE lanes SET last_position = last_position + :points,"
            " undelivered_bytes = undelivered_bytes + :bytes WHERE lane_id = :lane_id"
        ),
        {"points": count * METRICS, "bytes": count * METRICS * _POINT_BYTES, "lane_id": lane_id},
    )


def _points(series_ids: list[int], count: int) -> Iterator[PointKey]:
    for step in range(count):
        for series_id in series_ids:
            yield series_id, step, _BASE_MS + step, 0.5, 0


def _add_to_journal(connection: Connection, lane_id: int, first: int, points: Iterator[PointKey]) -> None:
    while some := list(islice(points, 1000 * MOST_POINTS)):
        rows = pack(lane_id, first, some, accepted_at_ms=_BASE_MS)
        names = ("lane_id", "first_position", "last_position", "points", "accepted_at_ms")
        connection.execute(
            text(
                f"INSERT INTO journal_blocks ({', '.join(names)})"
                f" VALUES ({', '.join(f':{name}' for name in names)})"
            ),
            [dict(zip(names, row, strict=True)) for row in rows],
        )
        first += len(some)


def _add_series(connection: Connection, run_pk: int, key: str, count: int) -> int:
    row = {
        "run_pk": run_pk,
        "key": key,
        "points": count,
        "latest_step": count - 1,
        "latest_ms": _BASE_MS + count - 1,
    }
    return int(
        connection.execute(
            text(
                "INSERT INTO series (run_pk, key, points, highest_timestamp_ms, in_time_order, latest_step,"
                " latest_timestamp_ms, latest_value, latest_is_nan)"
                " VALUES (:run_pk, :key, :points, :latest_ms, 1, :latest_step, :latest_ms, 0.5, 0)"
                " RETURNING series_id"
            ),
            row,
        ).scalar_one()
    )
