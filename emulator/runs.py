"""Runs, as MLflow's REST interface has them."""

import json
import sqlite3
import time
import uuid
from collections.abc import Iterable
from typing import Any

from emulator import experiments, metrics, run_rows, search
from emulator.errors import EmptyAnswerError, JsonObject, ServiceError, invalid
from emulator.store import Store
from emulator.workspace import Call, now_ms

MADE_BY = "mlflow"


def create(call: Call) -> JsonObject:
    """The id is the service's: MLflow has no field for one [C]."""
    experiment = experiments.get_active_row(call.store, call.text("experiment_id"))
    tags = read_pairs(call.list("tags"))
    run_id = str(uuid.uuid4())
    name = call.find_text("run_name") or tags.get(run_rows.RUN_NAME) or ""
    run_rows.insert(
        call.store,
        run_id=run_id,
        experiment_id=experiment["experiment_id"],
        name=name,
        user_id=call.find_text("user_id") or tags.get("mlflow.user", ""),
        status="Running",
        start_ms=call.number("start_time", now_ms()),
        parent_run_id=tags.get(run_rows.PARENT),
        created_by=MADE_BY,
    )
    run_rows.put_tags(call.store, call.settings.limits, run_id, tags)
    return {"run": describe(call, run_rows.get_row(call.store, run_id))}


def get(call: Call) -> JsonObject:
    """One run, deleted ones too."""
    return {"run": describe(call, run_rows.get_row(call.store, run_id_of(call)))}


def update(call: Call) -> JsonObject:
    """Status, end time, name: those that are given."""
    row = run_rows.get_active_row(call.store, run_id_of(call))
    run_id = row["run_id"]
    status = call.find_text("status")
    if status:
        run_rows.set_status(call.store, run_id, run_rows.history_status(status), MADE_BY)
    if call.find_text("end_time"):
        run_rows.set_fields(call.store, run_id, end_ms=call.number("end_time", 0))
    name = call.find_text("run_name")
    if name:
        run_rows.set_fields(call.store, run_id, name=name)
        if run_rows.RUN_NAME in run_rows.values_of(call.store, "tags", run_id):
            run_rows.put_tags(call.store, call.settings.limits, run_id, {run_rows.RUN_NAME: name})
    return {"run_info": describe_info(call, run_rows.get_row(call.store, run_id))}


def delete(call: Call) -> JsonObject:
    """Mark it deleted; everything stays."""
    return _move(call, "deleted")


def restore(call: Call) -> JsonObject:
    """Take the mark away."""
    return _move(call, "active")


def search_all(call: Call) -> JsonObject:
    """Attributes decide first, and only the page asked for is described in full."""
    conditions = search.parse(call.find_text("filter") or "", search.RUNS)
    on_attributes = [condition for condition in conditions if condition.kind == "attribute"]
    on_data = [condition for condition in conditions if condition.kind != "attribute"]
    view = call.find_text("run_view_type") or "ACTIVE_ONLY"
    rows = {
        row["run_id"]: row
        for row in _searchable_rows(call)
        if search.is_in_view(row["lifecycle_stage"], view)
    }
    candidates = [{"info": describe_info(call, row)} for row in rows.values()]
    chosen = [run for run in candidates if search.matches_run(run, on_attributes)]
    if on_data:
        described = [describe(call, rows[run["info"]["run_id"]]) for run in chosen]
        chosen = [run for run in described if search.matches_run(run, on_data)]
    ordered = search.order_runs(chosen, [str(order) for order in call.list("order_by")])
    page, token = search.page(call, ordered)
    return {"runs": [describe(call, rows[run["info"]["run_id"]]) for run in page]} | token


def log_metric(call: Call) -> JsonObject:
    """One point."""
    row = run_rows.get_active_row(call.store, run_id_of(call))
    _add_metrics(call, row["run_id"], [call.arguments])
    return {}


def log_parameter(call: Call) -> JsonObject:
    """One param."""
    row = run_rows.get_active_row(call.store, run_id_of(call))
    params = {call.text("key"): call.find_text("value") or ""}
    run_rows.put_params(call.store, call.settings.limits, row["run_id"], params)
    return {}


def set_tag(call: Call) -> JsonObject:
    """One tag."""
    row = run_rows.get_active_row(call.store, run_id_of(call))
    tags = {call.text("key"): call.find_text("value") or ""}
    run_rows.put_tags(call.store, call.settings.limits, row["run_id"], tags)
    return {}


def delete_tag(call: Call) -> JsonObject:
    """Remove one tag; 404 if it is not there."""
    row = run_rows.get_active_row(call.store, run_id_of(call))
    if not run_rows.delete_tag(call.store, row["run_id"], call.text("key")):
        raise ServiceError(404, f"No tag with name: {call.text('key')} in run with id {row['run_id']}")
    return {}


def log_batch(call: Call) -> JsonObject:
    """All of it or none of it; the same path serves the synchronous and the asynchronous call."""
    row = run_rows.get_active_row(call.store, run_id_of(call))
    entries, params, tags = call.list("metrics"), call.list("params"), call.list("tags")
    _check_batch(call, len(entries), len(params), len(tags))
    limits = call.settings.limits
    _check_repeated_params(params)
    run_rows.put_params(call.store, limits, row["run_id"], read_pairs(params))
    _add_metrics(call, row["run_id"], entries)
    run_rows.put_tags(call.store, limits, row["run_id"], read_pairs(tags))
    return {}


def log_batch_async(call: Call) -> JsonObject:
    """Stored at once; `async_lag_seconds` only delays the word that it is [C: proto]."""
    log_batch(call)
    if not call.list("metrics"):
        return {}
    tracking_id = str(uuid.uuid4())
    call.store.run(
        "INSERT INTO async_batches VALUES (?, ?, ?, ?)",
        tracking_id,
        run_id_of(call),
        time.time(),
        call.store.next_seq(),
    )
    return {"batch_tracking_id": tracking_id}


def data_status(call: Call) -> JsonObject:
    """Whether an asynchronous batch is done."""
    row = call.store.find(
        "SELECT arrived FROM async_batches WHERE tracking_id = ? AND run_id = ?",
        call.text("batch_tracking_id"),
        call.text("run_id"),
    )
    if row is None:
        raise ServiceError(404, f"Batch {call.text('batch_tracking_id')} not found")
    return {"is_complete": time.time() - row["arrived"] >= call.settings.async_lag_seconds}


def log_model(call: Call) -> JsonObject:
    """Adds to the history tag, which is the service's own and has no length limit [?]."""
    row = run_rows.get_active_row(call.store, run_id_of(call))
    tags = run_rows.values_of(call.store, "tags", row["run_id"])
    history = json.loads(tags.get("mlflow.log-model.history", "[]"))
    history.append(json.loads(call.text("model_json")))
    call.store.run(
        "INSERT OR REPLACE INTO tags VALUES (?, 'mlflow.log-model.history', ?, ?)",
        row["run_id"],
        json.dumps(history),
        call.store.next_seq(),
    )
    return {}


def log_inputs(call: Call) -> JsonObject:
    """Off unless switched on; the refusal's form is ours [?]."""
    if not call.settings.accepts_log_inputs:
        raise EmptyAnswerError(404)
    row = run_rows.get_active_row(call.store, run_id_of(call))
    for dataset in call.list("datasets"):
        call.store.run(
            "INSERT INTO inputs VALUES (?, ?, ?)", call.store.next_seq(), row["run_id"], json.dumps(dataset)
        )
    return {}


def describe(call: Call, row: sqlite3.Row) -> JsonObject:
    """MLflow's message: info, latest metrics, params, tags."""
    store, run_id = call.store, row["run_id"]
    inputs = [json.loads(found["document"]) for found in inputs_of(store, run_id)]
    return {
        "info": describe_info(call, row),
        "data": {
            "metrics": metrics.latest(store, run_id),
            "params": _pairs(run_rows.values_of(store, "params", run_id)),
            "tags": _pairs(service_tags(row) | run_rows.values_of(store, "tags", run_id)),
        },
        "inputs": {"dataset_inputs": inputs} if inputs else {},
    }


def describe_info(call: Call, row: sqlite3.Row) -> JsonObject:
    """MLflow's RunInfo."""
    info = {
        "run_id": row["run_id"],
        "run_uuid": row["run_id"],
        "run_name": row["name"],
        "experiment_id": row["experiment_id"],
        "user_id": row["user_id"],
        "status": run_rows.TO_MLFLOW[row["status"]],
        "start_time": row["created_ms"] if row["start_ms"] is None else row["start_ms"],
        "artifact_uri": call.artifact_uri(row["experiment_id"], row["run_id"]),
        "lifecycle_stage": row["lifecycle_stage"],
    }
    return info | ({} if row["end_ms"] is None else {"end_time": row["end_ms"]})


def service_tags(row: sqlite3.Row) -> dict[str, str]:
    """Tags the service shows without anyone having set them [I]."""
    tags = {run_rows.RUN_NAME: row["name"], "mlflow.rootRunId": row["root_run_id"]}
    if row["user_id"]:
        tags["mlflow.user"] = row["user_id"]
    if row["parent_run_id"]:
        tags[run_rows.PARENT] = row["parent_run_id"]
    return tags


def inputs_of(store: Store, run_id: str) -> list[sqlite3.Row]:
    """The datasets logged to a run."""
    return store.list("SELECT document FROM inputs WHERE run_id = ? ORDER BY seq", run_id)


def read_pairs(entries: Iterable[Any]) -> dict[str, str]:
    """Key and value of params or tags; the last of a repeated key stands."""
    return {str(entry["key"]): str(entry.get("value", "")) for entry in entries}


def run_id_of(call: Call) -> str:
    """The run a call names, under either of its names [W]."""
    return call.find_text("run_id") or call.text("run_uuid")


def _pairs(values: dict[str, str]) -> list[JsonObject]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _add_metrics(call: Call, run_id: str, entries: list[Any]) -> None:
    points = metrics.read_points(entries)
    metrics.check(call.store, call.settings.limits, run_id, points)
    metrics.add(call.store, run_id, points, is_late=call.settings.metric_lag_seconds > 0)


def _check_batch(call: Call, metrics_count: int, params_count: int, tags_count: int) -> None:
    """MLflow's own caps, in MLflow's words."""
    limits = call.settings.limits
    for noun, count, limit in (
        ("metrics", metrics_count, limits.batch_entries),
        ("params", params_count, limits.batch_params),
        ("tags", tags_count, limits.batch_tags),
        ("metrics, params, and tags", metrics_count + params_count + tags_count, limits.batch_entries),
    ):
        if count > limit:
            raise invalid(f"A batch logging request can contain at most {limit} {noun}. Got {count} {noun}.")


def _check_repeated_params(params: list[Any]) -> None:
    seen: dict[str, str] = {}
    for entry in params:
        key, value = str(entry["key"]), str(entry.get("value", ""))
        if seen.setdefault(key, value) != value:
            raise invalid(f"Duplicate parameter keys have been submitted: ['{key}'].")


def _searchable_rows(call: Call) -> list[sqlite3.Row]:
    newest = time.time() - call.settings.search_lag_seconds
    ids = [str(experiment_id) for experiment_id in call.list("experiment_ids")]
    marks = ", ".join("?" * len(ids))
    return call.store.list(
        f"SELECT * FROM runs WHERE experiment_id IN ({marks}) AND arrived <= ?", *ids, newest
    )


def _move(call: Call, stage: str) -> JsonObject:
    row = run_rows.get_row(call.store, run_id_of(call))
    run_rows.set_fields(call.store, row["run_id"], lifecycle_stage=stage)
    return {}
