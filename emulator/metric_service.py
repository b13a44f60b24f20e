"""Metrics as azureml-core writes and reads them.

It posts tables of named columns to the metric service, `/metric/v2.0{WS}/runs/{run}/batch` [C][W]; Run
History takes the same body at `…/runs/{run}/batch/metrics`. A row of one numeric column is also
a point of MLflow's; every other row is kept for readers of this interface only. The client's `metricId`
is kept and does not de-duplicate: whether the service's does is not known [?].
"""

import json
import math
import sqlite3
from typing import Any

from emulator import metrics, run_rows, search
from emulator.errors import JsonObject, ServiceError, missing, service_body
from emulator.metrics import Point
from emulator.store import Store
from emulator.workspace import Call, as_float, now_ms

SCALAR = "azureml.v1.scalar"
NUMERIC = frozenset({"double", "int", "integer", "long", "float", "boolean"})


def post_batch(call: Call) -> JsonObject:
    """With `reportErrors` a metric that is refused is named in `errors` and the others are kept [C]."""
    row = run_rows.get_row(call.store, call.path["run_id"])
    errors = []
    for metric in call.list("values"):
        points = [_point(metric, value) for value in metric.get("value") or []]
        try:
            metrics.check(call.store, call.settings.limits, row["run_id"], points)
        except ServiceError as error:
            if not call.arguments.get("reportErrors"):
                raise
            errors.append({"metric": metric, "errorResponse": service_body(error, "metric")})
            continue
        metrics.add(call.store, row["run_id"], points)
    return {"errors": errors}


def list_names(call: Call) -> JsonObject:
    """The names a run has metrics under, oldest first."""
    run_id = run_rows.get_row(call.store, call.path["run_id"])["run_id"]
    names = call.store.list("SELECT key FROM metric_names WHERE run_id = ? ORDER BY seq", run_id)
    value = [
        {
            "metricKey": {"namespace": "", "name": name["key"], "labels": {}, "labelsHash": ""},
            "columns": _columns(_rows(call.store, run_id, name["key"], limit=1)[0]),
            "properties": {"uxMetricType": SCALAR},
        }
        for name in names
    ]
    return {"value": value, "continuationToken": None, "nextLink": None}


def read_full(call: Call) -> JsonObject:
    """All rows of one metric in order of arrival, a page at a time; 404 for a name without rows [C]."""
    run_id = run_rows.get_row(call.store, call.path["run_id"])["run_id"]
    name = call.text("metricName")
    start = search.read_token(call.find_text("continuationToken"))
    size = call.settings.limits.search_page_size
    rows = _rows(call.store, run_id, name, limit=size + 1, offset=start)
    if not rows and not start:
        raise missing(f"Metric {name} of run {run_id} not found")
    first = _record(rows[0])
    return {
        "dataContainerId": f"dcid.{run_id}",
        "name": name,
        "columns": _columns(rows[0]),
        "properties": {"uxMetricType": first.get("uxMetricType") or SCALAR},
        "namespace": None,
        "value": [_value(row) for row in rows[:size]],
        "continuationToken": search.make_token(start + size) if len(rows) > size else None,
    }


def _point(metric: JsonObject, value: JsonObject) -> Point:
    """One row; `is_number` says whether MLflow's view shows it."""
    name = str(metric["name"])
    data = value.get("data") or {}
    columns = metric.get("columns") or {}
    is_number = list(data) == [name] and str(columns.get(name, "double")).lower() in NUMERIC
    record = {
        "columns": columns,
        "data": data,
        "metricId": value.get("metricId"),
        "step": value.get("step"),
        "uxMetricType": (metric.get("properties") or {}).get("uxMetricType"),
        "is_number": is_number,
    }
    return Point(
        key=name,
        value=as_float(data[name], name) if is_number else math.nan,
        timestamp_ms=run_rows.from_iso(value.get("createdUtc")) or now_ms(),
        step=int(value.get("step") or 0),
        record=record,
    )


def _rows(store: Store, run_id: str, name: str, *, limit: int, offset: int = 0) -> list[sqlite3.Row]:
    return store.list(
        "SELECT * FROM metrics WHERE run_id = ? AND key = ? ORDER BY seq LIMIT ? OFFSET ?",
        run_id,
        name,
        limit,
        offset,
    )


def _record(row: sqlite3.Row) -> JsonObject:
    record: JsonObject = json.loads(row["record"]) if row["record"] else {}
    return record


def _columns(row: sqlite3.Row) -> dict[str, Any]:
    return _record(row).get("columns") or {row["key"]: "Double"}


def _value(row: sqlite3.Row) -> JsonObject:
    record = _record(row)
    return {
        "metricId": record.get("metricId") or f"{row['run_id']}-{row['seq']}",
        "createdUtc": run_rows.iso(row["timestamp_ms"]),
        "step": record.get("step") if record else row["step"],
        "data": record.get("data") or {row["key"]: metrics.wire_number(row["value"])},
    }
