"""The points of one metric in MLflow's order of a history: by timestamp, then step, then value.

Points are clustered by step first. In nearly every series time never goes back while steps go on, and then
both orders are one: a page is read from where it begins. A series says so. Where it does not, because time
went back or the series is older than that promise, each page is looked at, over the timestamps alone; where
it does not hold for a page the whole series is sorted.
"""

from itertools import pairwise
from typing import Any, cast

from server.database.engine import Transaction

Point = tuple[int, int, float, int]
"""(step, timestamp_ms, value, is_nan)"""

POINT = "step, timestamp_ms, value, is_nan"
_IN_TIME = "timestamp_ms, step, value, is_nan"


def list_points(
    transaction: Transaction,
    run_pk: int,
    key: str,
    *,
    limit: int,
    offset: int = 0,
    after: Point | None = None,
) -> list[Point]:
    """Points of a metric by timestamp, step, value: those behind `after`, or else from `offset` on.

    One row more than a page tells whether there is another.
    """
    found = transaction.rows(
        "SELECT series_id, in_time_order FROM series WHERE run_pk = ? AND key = ?", (run_pk, key)
    )
    if not found or limit <= 0:
        return []
    series_id, in_time_order = found[0]
    if in_time_order:
        return _by_step(transaction, series_id, after, offset, limit)
    if after is not None or not offset:
        rows = _by_step(transaction, series_id, after, 0, limit)
        if _are_next_in_time(transaction, series_id, rows, after, is_rest=len(rows) < limit):
            return rows
    return _by_time(transaction, series_id, after, offset, limit)


def _by_step(
    transaction: Transaction, series_id: int, after: Point | None, offset: int, limit: int
) -> list[Point]:
    where, parameters = "", cast(tuple[Any, ...], ())
    if after is not None:
        where, parameters, offset = f" AND ({POINT}) > (?, ?, ?, ?)", after, 0
    return cast(
        list[Point],
        transaction.rows(
            f"SELECT {POINT} FROM points WHERE series_id = ?{where} ORDER BY {POINT} LIMIT ? OFFSET ?",
            (series_id, *parameters, limit, offset),
        ),
    )


def _are_next_in_time(
    transaction: Transaction, series_id: int, rows: list[Point], after: Point | None, *, is_rest: bool
) -> bool:
    """Whether these rows, in their order, are the points that come next by time too."""
    in_turn = rows if after is None else [after, *rows]
    if any(former[1] > latter[1] for former, latter in pairwise(in_turn)):
        return False
    if after is not None and _goes_beyond(transaction, "max", series_id, "<=", after):
        return False
    return is_rest or not _goes_beyond(transaction, "min", series_id, ">", rows[-1])


def _goes_beyond(transaction: Transaction, extreme: str, series_id: int, side: str, point: Point) -> bool:
    """Whether a point on one side of this one by step is on its other side by time."""
    [(found,)] = transaction.rows(
        f"SELECT {extreme}(timestamp_ms) FROM points WHERE series_id = ? AND ({POINT}) {side} (?, ?, ?, ?)",
        (series_id, *point),
    )
    if found is None:
        return False
    return bool(found > point[1] if extreme == "max" else found < point[1])


def _by_time(
    transaction: Transaction, series_id: int, after: Point | None, offset: int, limit: int
) -> list[Point]:
    where, parameters = "", cast(tuple[Any, ...], ())
    if after is not None:
        step, timestamp_ms, value, is_nan = after
        where, parameters = f" AND ({_IN_TIME}) > (?, ?, ?, ?)", (timestamp_ms, step, value, is_nan)
        offset = 0
    return cast(
        list[Point],
        transaction.rows(
            f"SELECT {POINT} FROM points WHERE series_id = ?{where} ORDER BY {_IN_TIME} LIMIT ? OFFSET ?",
            (series_id, *parameters, limit, offset),
        ),
    )
