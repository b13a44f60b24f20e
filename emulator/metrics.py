"""Metric points, as MLflow sees them.

Every point that arrives is a row, equal ones too. The latest value is the one with the highest step,
then timestamp, then value, as in MLflow.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from emulator import run_rows, search
from emulator.errors import JsonObject, invalid, over_limit
from emulator.limits import Limits
from emulator.store import Store
from emulator.workspace import Call, as_float, as_int, now_ms


@dataclass(frozen=True, slots=True)
class Point:
    """`record` is the row as Run History sent it, where it came that way."""

    key: str
    value: float
    timestamp_ms: int
    step: int
    record: JsonObject | None = None


def get_history(call: Call) -> JsonObject:
    """One page in order of timestamp, step, value. 1000 rows or more are refused [I]."""
    run_id = call.find_text("run_id") or call.text("run_uuid")
    run_rows.get_row(call.store, run_id)
    limit = call.settings.limits.history_max_results
    size = call.number("max_results", limit - 1)
    if size >= limit:
        raise invalid(f"MaxResults = {size} is invalid: MaxResults must be less than {limit}")
    if size <= 0:
        raise invalid(f"MaxResults = {size} is invalid: MaxResults must be positive")
    start = search.read_token(call.find_text("page_token"))
    rows = call.store.list(
        "SELECT * FROM metrics WHERE run_id = ? AND key = ?"
        " AND seq NOT IN (SELECT seq FROM late_metrics WHERE arrived > ?)"
        " ORDER BY timestamp_ms, step, value, seq LIMIT ? OFFSET ?",
        run_id,
        call.text("metric_key"),
        time.time() - call.settings.metric_lag_seconds,
        size + 1,
        start,
    )
    token = {"next_page_token": search.make_token(start + size)} if len(rows) > size else {}
    return {"metrics": [describe(row) for row in rows[:size]]} | token


def read_points(entries: Iterable[Any]) -> list[Point]:
    """Points of an MLflow request."""
    return [
        Point(
            key=_key(entry),
            value=as_float(entry.get("value"), "value"),
            timestamp_ms=as_int(entry.get("timestamp", now_ms()), "timestamp"),
            step=as_int(entry.get("step") or 0, "step"),
        )
        for entry in entries
    ]


def check(store: Store, limits: Limits, run_id: str, points: list[Point]) -> None:
    """Raises the service's refusal if these points may not be added to this run."""
    counts = Counter(point.key for point in points)
    known = {row["key"]: row["rows"] for row in _names(store, run_id)}
    for key, count in counts.items():
        if len(key) > limits.metric_name_chars:
            raise over_limit("MetricV2Dto.Name", limits.metric_name_chars, len(key))
        if count > limits.batch_rows_per_metric:
            raise over_limit("MetricV2Dto.Value/Count", limits.batch_rows_per_metric, count)
        if known.get(key, 0) + count > limits.metric_rows_per_name:
            raise over_limit("MetricV2Dto.Rows", limits.metric_rows_per_name, known.get(key, 0) + count)
    names = len(known | counts)
    if names > limits.metric_names_per_run and len(known) < names:
        raise over_limit("MetricNames", limits.metric_names_per_run, names)


def add(store: Store, run_id: str, points: list[Point], *, is_late: bool = False) -> None:
    """Store points in the order given; `get_history` shows late ones when its lag is over."""
    seqs = [store.next_seq() for _ in points]
    if is_late:
        store.run_many("INSERT INTO late_metrics VALUES (?, ?)", [(seq, time.time()) for seq in seqs])
    store.run_many(
        "INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                seq,
                run_id,
                point.key,
                None if math.isnan(point.value) else point.value,
                point.timestamp_ms,
                point.step,
                None if point.record is None else json.dumps(point.record),
            )
            for seq, point in zip(seqs, points, strict=True)
        ],
    )
    store.run_many(
        "INSERT INTO metric_names VALUES (?, ?, ?, ?)"
        " ON CONFLICT (run_id, key) DO UPDATE SET rows = rows + excluded.rows",
        [
            (run_id, key, count, store.next_seq())
            for key, count in Counter(point.key for point in points).items()
        ],
    )


def latest(store: Store, run_id: str) -> list[JsonObject]:
    """The latest point of each name, in order of first arrival."""
    found = []
    for name in _names(store, run_id):
        row = store.find(
            "SELECT * FROM metrics WHERE run_id = ? AND key = ?"
            " ORDER BY step DESC, timestamp_ms DESC, value DESC LIMIT 1",
            run_id,
            name["key"],
        )
        if row is not None and _is_number(row):
            found.append(describe(row))
    return found


def describe(row: Any) -> JsonObject:
    """MLflow's message of a point."""
    return {
        "key": row["key"],
        "value": wire_number(row["value"]),
        "timestamp": row["timestamp_ms"],
        "step": row["step"],
    }


def wire_number(value: float | None) -> float | str:
    """JSON has no NaN and no infinities: they travel as strings [W]."""
    if value is None:
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _names(store: Store, run_id: str) -> list[Any]:
    return store.list("SELECT key, rows FROM metric_names WHERE run_id = ? ORDER BY seq", run_id)


def _is_number(row: Any) -> bool:
    """A table or text row of Run History has no place in MLflow's view."""
    return row["record"] is None or bool(json.loads(row["record"]).get("is_number", True))


def _key(entry: Any) -> str:
    key = entry.get("key")
    if not key:
        raise invalid("Missing value for required parameter 'key'")
    return str(key)
