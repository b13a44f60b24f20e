"""Filling the database of `mlflow server` directly: through its interface 10,000 runs take half an hour.

The rows are those that its own store writes for the same calls (mlflow.store.tracking.dbmodels of
MLflow 3: runs, metrics, latest_metrics, params, tags).
"""

import random
import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from benchmarks.load.workloads import run_content
from benchmarks.systems.kinds import POSTGRES, Place

_EPOCH_MS = 1_700_000_000_000
_RUNS_PER_COMMIT = 1000
_COLUMNS = {
    "runs": "run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,"
    " end_time, source_version, lifecycle_stage, artifact_uri, experiment_id",
    "metrics": "key, value, timestamp, run_uuid, step, is_nan",
    "latest_metrics": "key, value, timestamp, step, is_nan, run_uuid",
    "params": "key, value, run_uuid",
    "tags": "key, value, run_uuid",
}

Rows = dict[str, list[tuple[Any, ...]]]


def add_runs(place: Place, experiment_id: str, runs: int, *, metrics: int, params: int, tags: int) -> None:
    """Runs with the content that `seed-run` gives runs of the same number."""
    for start in range(0, runs, _RUNS_PER_COMMIT):
        rows: Rows = {table: [] for table in _COLUMNS}
        for number in range(start, min(start + _RUNS_PER_COMMIT, runs)):
            run_id = _add_run(rows, experiment_id, number)
            content = run_content(number, metrics=metrics, params=params, tags=tags)
            for point in content["metrics"]:
                key, value, time_ms, step = point["key"], point["value"], point["timestamp"], point["step"]
                rows["metrics"].append((key, value, time_ms, run_id, step, False))
                rows["latest_metrics"].append((key, value, time_ms, step, False, run_id))
            for table in ("params", "tags"):
                rows[table].extend((item["key"], item["value"], run_id) for item in content[table])
        _insert(place, rows)


def add_history(place: Place, experiment_id: str, key: str, points: int) -> str:
    """A run with one long history; its id."""
    rows: Rows = {table: [] for table in _COLUMNS}
    run_id = _add_run(rows, experiment_id, 0)
    draw = random.Random(5).random
    rows["metrics"] = [(key, draw(), _EPOCH_MS + step, run_id, step, False) for step in range(points)]
    _, value, time_ms, _, step, _ = rows["metrics"][-1]
    rows["latest_metrics"] = [(key, value, time_ms, step, False, run_id)]
    _insert(place, rows)
    return run_id


def _add_run(rows: Rows, experiment_id: str, number: int) -> str:
    run_id = uuid.uuid4().hex
    name, started = f"run-{number}", _EPOCH_MS + number
    uri = f"mlflow-artifacts:/{experiment_id}/{run_id}/artifacts"
    state = ("RUNNING", started, None, "", "active", uri, int(experiment_id))
    rows["runs"].append((run_id, name, "UNKNOWN", "", "", "someone", *state))
    rows["tags"].append(("mlflow.runName", name, run_id))
    return run_id


def _insert(place: Place, rows: Rows) -> None:
    if place.kind == POSTGRES:
        _copy(place.postgres_url(), rows)
    else:
        with sqlite3.connect(place.sqlite_file, timeout=60) as connection:
            for table, values in rows.items():
                connection.executemany(_insert_statement(table), values)


def _insert_statement(table: str) -> str:
    columns: Sequence[str] = _COLUMNS[table].split(",")
    return f"INSERT INTO {table} ({_COLUMNS[table]}) VALUES ({','.join('?' * len(columns))})"


def _copy(url: str, rows: dict[str, Any] | Rows) -> None:
    with psycopg.connect(url) as connection:
        for table, values in rows.items():
            _copy_table(connection, table, values)


def _copy_table(connection: "psycopg.Connection[Any]", table: str, values: Iterable[Any]) -> None:
    with connection.cursor().copy(f"COPY {table} ({_COLUMNS[table]}) FROM STDIN") as copy:
        for row in values:
            copy.write_row(row)
