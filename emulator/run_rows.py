"""Run rows, whoever writes them: the MLflow facade and Run History work on the same run.

The status kept is Run History's, which is the finer one; MLflow's is derived from it [C][D]. A run has one
row per id, for ever: a second create of the same id is a modification.
"""

import json
import secrets
import sqlite3
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from emulator.errors import JsonObject, ServiceError, invalid, missing, over_limit
from emulator.limits import Limits
from emulator.store import Store
from emulator.workspace import now_ms

TO_MLFLOW = {
    "NotStarted": "SCHEDULED",
    "Unapproved": "SCHEDULED",
    "Provisioning": "SCHEDULED",
    "Starting": "SCHEDULED",
    "Preparing": "SCHEDULED",
    "Queued": "SCHEDULED",
    "Pausing": "RUNNING",
    "Paused": "RUNNING",
    "Running": "RUNNING",
    "Finalizing": "RUNNING",
    "CancelRequested": "RUNNING",
    "Completed": "FINISHED",
    "Failed": "FAILED",
    "Canceled": "KILLED",
}
FROM_MLFLOW = {
    "SCHEDULED": "Queued",
    "RUNNING": "Running",
    "FINISHED": "Completed",
    "FAILED": "Failed",
    "KILLED": "Canceled",
}
TERMINAL = frozenset({"Completed", "Failed", "Canceled"})
RUN_NAME = "mlflow.runName"
PARENT = "mlflow.parentRunId"
ADJECTIVES = ("bold", "calm", "eager", "gentle", "jolly", "keen", "lucid", "mighty", "quiet", "witty")
NOUNS = ("arch", "bear", "cloud", "drum", "fig", "goat", "lamp", "moon", "pear", "star", "tree", "wolf")


def insert(
    store: Store,
    *,
    run_id: str,
    experiment_id: str,
    name: str,
    user_id: str,
    status: str,
    start_ms: int | None,
    parent_run_id: str | None,
    created_by: str,
) -> None:
    """A new run; the id must be free."""
    parent = find_row(store, parent_run_id) if parent_run_id else None
    number = store.count("SELECT count(*) FROM runs WHERE experiment_id = ?", experiment_id) + 1
    store.run(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, 'active', ?, ?, ?, ?, '{}', ?, ?)",
        run_id,
        str(uuid.uuid4()),
        number,
        experiment_id,
        name or _invented_name(),
        user_id,
        status,
        start_ms,
        parent_run_id,
        parent["root_run_id"] if parent else parent_run_id or run_id,
        created_by,
        now_ms(),
        time.time(),
        store.next_seq(),
    )
    _note_status(store, run_id, status, created_by)


def find_row(store: Store, run_id: str) -> sqlite3.Row | None:
    """The row, or nothing."""
    return store.find("SELECT * FROM runs WHERE run_id = ?", run_id)


def get_row(store: Store, run_id: str) -> sqlite3.Row:
    """The row; 404 if there is none."""
    row = find_row(store, run_id)
    if row is None:
        raise missing(f"Run with id={run_id} not found")
    return row


def get_active_row(store: Store, run_id: str) -> sqlite3.Row:
    """The row of a run that takes writes."""
    row = get_row(store, run_id)
    if row["lifecycle_stage"] != "active":
        raise invalid(f"The run {run_id} must be in the 'active' state. Current state is deleted.")
    return row


def set_status(store: Store, run_id: str, status: str, made_by: str) -> None:
    """Every write of a status is kept, a repeated one too."""
    store.run("UPDATE runs SET status = ? WHERE run_id = ?", status, run_id)
    _note_status(store, run_id, status, made_by)


def set_fields(store: Store, run_id: str, **fields: str | int | None) -> None:
    """Set columns of `runs`; the names are ours, never a caller's."""
    for column, value in fields.items():
        store.run(f"UPDATE runs SET {column} = ? WHERE run_id = ?", value, run_id)


def put_tags(store: Store, limits: Limits, run_id: str, tags: Mapping[str, str]) -> None:
    """Overwrite or add tags; a name tag names the run, a parent tag places it."""
    for key, value in tags.items():
        _check_tag(limits, key, value)
    _check_count(store, "tags", run_id, tags, limits.tags_per_run, "Tags")
    for key, value in tags.items():
        store.run("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?)", run_id, key, value, store.next_seq())
    if RUN_NAME in tags:
        set_fields(store, run_id, name=tags[RUN_NAME])
    if PARENT in tags:
        set_fields(store, run_id, parent_run_id=tags[PARENT])


def put_params(store: Store, limits: Limits, run_id: str, params: Mapping[str, str]) -> None:
    """Add params; the same value again is fine, another one is refused (MLflow's rule)."""
    known = values_of(store, "params", run_id)
    for key, value in params.items():
        if len(key) > limits.param_key_chars:
            raise over_limit("ParameterName", limits.param_key_chars, len(key))
        if len(value) > limits.param_value_chars:
            raise over_limit("ParameterValue", limits.param_value_chars, len(value))
        if known.get(key, value) != value:
            raise invalid(
                f"Changing param values is not allowed. Param with key='{key}' was already logged with"
                f" value='{known[key]}' for run ID='{run_id}'. Attempted logging new value '{value}'."
            )
    _check_count(store, "params", run_id, params, limits.params_per_run, "Parameters")
    for key, value in params.items():
        if key not in known:
            store.run("INSERT INTO params VALUES (?, ?, ?, ?)", run_id, key, value, store.next_seq())


def put_properties(store: Store, limits: Limits, run_id: str, properties: Mapping[str, str]) -> None:
    """Add properties; they are written once [D]."""
    known = values_of(store, "properties", run_id)
    changed = [key for key, value in properties.items() if known.get(key, value) != value]
    if changed:
        raise invalid(f"Properties are immutable: {', '.join(changed)}")
    _check_count(store, "properties", run_id, properties, limits.properties_per_run, "Properties")
    for key, value in properties.items():
        store.run(
            "INSERT OR REPLACE INTO properties VALUES (?, ?, ?, ?)", run_id, key, value, store.next_seq()
        )


def delete_tag(store: Store, run_id: str, key: str) -> bool:
    """Remove a tag; says whether it was there."""
    return store.run("DELETE FROM tags WHERE run_id = ? AND key = ?", run_id, key) > 0


def values_of(store: Store, table: str, run_id: str) -> dict[str, str]:
    """Params, tags or properties of a run, oldest first."""
    rows = store.list(f"SELECT key, value FROM {table} WHERE run_id = ? ORDER BY seq", run_id)
    return {row["key"]: row["value"] for row in rows}


def document_of(row: sqlite3.Row) -> JsonObject:
    """The Run History fields that have no column."""
    document: JsonObject = json.loads(row["document"])
    return document


def history_status(mlflow_status: str) -> str:
    """Run History's word for MLflow's status."""
    if mlflow_status not in FROM_MLFLOW:
        raise invalid(f"Invalid value {mlflow_status} for parameter 'status' supplied.")
    return FROM_MLFLOW[mlflow_status]


def check_history_status(status: str) -> str:
    """The status itself, if it is one."""
    if status not in TO_MLFLOW:
        raise ServiceError(400, f"Unknown run status '{status}'.", code="ValidationError")
    return status


def iso(ms: int | None) -> str | None:
    """The service's timestamps: UTC with an offset."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def from_iso(text: str | None) -> int | None:
    """Milliseconds of an ISO 8601 time; one without an offset is UTC."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise invalid(f"Not a timestamp: {text}", code="ValidationError") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _note_status(store: Store, run_id: str, status: str, made_by: str) -> None:
    moment = datetime.now(UTC).isoformat()
    store.run(
        "INSERT INTO status_changes VALUES (?, ?, ?, ?, ?)", store.next_seq(), run_id, status, made_by, moment
    )


def _check_tag(limits: Limits, key: str, value: str) -> None:
    if len(key) > limits.tag_key_chars:
        raise over_limit("TagName", limits.tag_key_chars, len(key))
    if len(value) > limits.tag_value_chars:
        raise over_limit("TagValue", limits.tag_value_chars, len(value))


def _check_count(
    store: Store, table: str, run_id: str, added: Mapping[str, str], limit: int, field: str
) -> None:
    known = values_of(store, table, run_id)
    size = len(known.keys() | added.keys())
    if size > limit and size > len(known):
        raise over_limit(field, limit, size)


def _invented_name() -> str:
    return f"{secrets.choice(ADJECTIVES)}_{secrets.choice(NOUNS)}_{uuid.uuid4().hex[:8]}"
