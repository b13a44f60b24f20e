"""Experiments: the MLflow calls, and what the other services need to know of them.

Ids are GUIDs. A name with `/` is accepted and then cannot be found by name or by search [I]. Renaming is
refused [D].
"""

import sqlite3
import time
import uuid

from emulator import search
from emulator.errors import JsonObject, ServiceError, invalid, missing, over_limit
from emulator.store import Store
from emulator.workspace import Call, now_ms

ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"


def create(call: Call) -> JsonObject:
    """A new one; a name that was ever taken is refused."""
    name = call.text("name")
    limit = call.settings.limits.experiment_name_chars
    if len(name) > limit:
        raise over_limit("ExperimentName", limit, len(name))
    if call.store.find("SELECT 1 FROM experiments WHERE name = ?", name):
        raise ServiceError(400, f"Experiment with name '{name}' already exists.", error_code=ALREADY_EXISTS)
    experiment_id = insert(call.store, name)
    for tag in call.list("tags"):
        put_tag(call.store, experiment_id, str(tag["key"]), str(tag.get("value", "")))
    return {"experiment_id": experiment_id}


def get(call: Call) -> JsonObject:
    """One by id, deleted ones too."""
    return {"experiment": describe(call.store, get_row(call.store, call.text("experiment_id")))}


def get_by_name(call: Call) -> JsonObject:
    """One by name, deleted ones too."""
    name = call.text("experiment_name")
    row = find_by_name(call.store, name)
    if row is None:
        raise missing(f"Could not find experiment with name '{name}'")
    return {"experiment": describe(call.store, row)}


def search_all(call: Call) -> JsonObject:
    """Also `experiments/list` of MLflow 1."""
    view = call.find_text("view_type") or "ACTIVE_ONLY"
    conditions = search.parse(call.find_text("filter") or "", search.EXPERIMENTS)
    newest = time.time() - call.settings.search_lag_seconds
    rows = call.store.list("SELECT * FROM experiments WHERE arrived <= ? ORDER BY seq DESC", newest)
    found = [
        described
        for row in rows
        if "/" not in row["name"] and search.is_in_view(row["lifecycle_stage"], view)
        for described in [describe(call.store, row)]
        if search.matches_experiment(described, conditions)
    ]
    page, token = search.page(call, found)
    return {"experiments": page} | token


def update(call: Call) -> JsonObject:
    """Always refused."""
    raise invalid("Renaming an experiment is not supported.")


def delete(call: Call) -> JsonObject:
    """Delete it and its runs."""
    return _move(call, "deleted")


def restore(call: Call) -> JsonObject:
    """Restore it and its runs."""
    return _move(call, "active")


def set_tag(call: Call) -> JsonObject:
    """Add or overwrite one tag."""
    row = get_row(call.store, call.text("experiment_id"))
    put_tag(call.store, row["experiment_id"], call.text("key"), call.find_text("value") or "")
    return {}


def insert(store: Store, name: str, experiment_id: str | None = None) -> str:
    """Store a new one and return its id; the name must be free."""
    experiment_id = experiment_id or str(uuid.uuid4())
    now = now_ms()
    store.run(
        "INSERT INTO experiments VALUES (?, ?, 'active', NULL, ?, ?, ?, ?)",
        experiment_id,
        name,
        now,
        now,
        time.time(),
        store.next_seq(),
    )
    return experiment_id


def put_tag(store: Store, experiment_id: str, key: str, value: str) -> None:
    """Add or overwrite one tag."""
    store.run(
        "INSERT OR REPLACE INTO experiment_tags VALUES (?, ?, ?, ?)",
        experiment_id,
        key,
        value,
        store.next_seq(),
    )


def find_by_name(store: Store, name: str) -> sqlite3.Row | None:
    """The row, or nothing; names with `/` are never found."""
    if "/" in name:
        return None
    return store.find("SELECT * FROM experiments WHERE name = ?", name)


def find_row(store: Store, experiment_id: str) -> sqlite3.Row | None:
    """The row, or nothing."""
    return store.find("SELECT * FROM experiments WHERE experiment_id = ?", experiment_id)


def get_row(store: Store, experiment_id: str) -> sqlite3.Row:
    """The row; 404 if there is none."""
    row = find_row(store, experiment_id)
    if row is None:
        raise missing(f"No Experiment with id={experiment_id} exists")
    return row


def get_active_row(store: Store, experiment_id: str) -> sqlite3.Row:
    """The row of one that takes runs."""
    row = get_row(store, experiment_id)
    if row["lifecycle_stage"] != "active":
        raise invalid(
            f"The experiment {experiment_id} must be in the 'active' state. Current state is deleted."
        )
    return row


def tags_of(store: Store, experiment_id: str) -> dict[str, str]:
    """Its tags, in any order."""
    rows = store.list("SELECT key, value FROM experiment_tags WHERE experiment_id = ?", experiment_id)
    return {row["key"]: row["value"] for row in rows}


def describe(store: Store, row: sqlite3.Row) -> JsonObject:
    """MLflow's message."""
    tags = tags_of(store, row["experiment_id"])
    return {
        "experiment_id": row["experiment_id"],
        "name": row["name"],
        "artifact_location": "",
        "lifecycle_stage": row["lifecycle_stage"],
        "creation_time": row["created_ms"],
        "last_update_time": row["updated_ms"],
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }


def move(store: Store, experiment_id: str, stage: str) -> None:
    """Delete or restore it with all its runs."""
    store.run(
        "UPDATE experiments SET lifecycle_stage = ?, updated_ms = ? WHERE experiment_id = ?",
        stage,
        now_ms(),
        experiment_id,
    )
    store.run("UPDATE runs SET lifecycle_stage = ? WHERE experiment_id = ?", stage, experiment_id)


def _move(call: Call, stage: str) -> JsonObject:
    row = get_row(call.store, call.text("experiment_id"))
    move(call.store, row["experiment_id"], stage)
    return {}
