"""Registered models and their versions, as MLflow's REST interface has them.

Renaming and deleting a registered model are refused, and only `name =` finds one [D]. Aliases are
undocumented: off unless switched on, and then the route answers 404 without a body [?].
"""

import sqlite3
from typing import Any

from emulator import run_rows, search
from emulator.errors import EmptyAnswerError, JsonObject, ServiceError, invalid, missing, over_limit
from emulator.store import Store
from emulator.workspace import Call, as_int, now_ms

STAGES = ("None", "Staging", "Production", "Archived")
OF_MODEL = 0  # tags of the model itself carry version 0


def create(call: Call) -> JsonObject:
    """A new model; a name that is taken is refused."""
    name = call.text("name")
    limit = call.settings.limits.model_name_chars
    if len(name) > limit:
        raise over_limit("ModelName", limit, len(name))
    if _find_model(call.store, name):
        raise ServiceError(
            400, f"Registered Model (name={name}) already exists.", error_code="RESOURCE_ALREADY_EXISTS"
        )
    now = now_ms()
    call.store.run(
        "INSERT INTO models VALUES (?, ?, ?, ?, 0, ?)",
        name,
        call.find_text("description") or "",
        now,
        now,
        call.store.next_seq(),
    )
    _put_tags(call.store, name, OF_MODEL, call.list("tags"))
    return {"registered_model": describe_model(call.store, get_model(call.store, name))}


def get(call: Call) -> JsonObject:
    """One model."""
    return {"registered_model": describe_model(call.store, get_model(call.store, call.text("name")))}


def update(call: Call) -> JsonObject:
    """Change the description."""
    model = get_model(call.store, call.text("name"))
    call.store.run(
        "UPDATE models SET description = ?, updated_ms = ? WHERE name = ?",
        call.find_text("description") or "",
        now_ms(),
        model["name"],
    )
    return get(call)


def rename(call: Call) -> JsonObject:
    """Always refused."""
    raise invalid("Renaming a registered model is not supported.")


def delete(call: Call) -> JsonObject:
    """Always refused."""
    raise invalid("Deleting a registered model is not supported.")


def search_all(call: Call) -> JsonObject:
    """Models by name."""
    conditions = search.parse(call.find_text("filter") or "", search.MODELS)
    rows = call.store.list("SELECT * FROM models ORDER BY name")
    names = {str(condition.value) for condition in conditions}
    found = [describe_model(call.store, row) for row in rows if names <= {row["name"]}]
    page, token = search.page(call, found, default=100)
    return {"registered_models": page} | token


def latest_versions(call: Call) -> JsonObject:
    """The newest version of each stage."""
    model = get_model(call.store, call.text("name"))
    stages = {str(stage) for stage in call.list("stages")}
    found = _latest_by_stage(call.store, model["name"])
    return {
        "model_versions": [version for version in found if not stages or version["current_stage"] in stages]
    }


def set_tag(call: Call) -> JsonObject:
    """Add or overwrite a tag of the model."""
    model = get_model(call.store, call.text("name"))
    _put_tags(call.store, model["name"], OF_MODEL, [call.arguments])
    return {}


def delete_tag(call: Call) -> JsonObject:
    """Remove a tag of the model."""
    model = get_model(call.store, call.text("name"))
    _delete_tag(call.store, model["name"], OF_MODEL, call.text("key"))
    return {}


def set_alias(call: Call) -> JsonObject:
    """Point an alias at a version."""
    _require_aliases(call)
    version = get_version(call)
    call.store.run(
        "INSERT OR REPLACE INTO aliases VALUES (?, ?, ?, ?)",
        version["name"],
        call.text("alias"),
        version["version"],
        call.store.next_seq(),
    )
    return {}


def delete_alias(call: Call) -> JsonObject:
    """Remove an alias."""
    _require_aliases(call)
    model = get_model(call.store, call.text("name"))
    call.store.run("DELETE FROM aliases WHERE name = ? AND alias = ?", model["name"], call.text("alias"))
    return {}


def get_by_alias(call: Call) -> JsonObject:
    """The version an alias points at."""
    _require_aliases(call)
    name, alias = call.text("name"), call.text("alias")
    row = call.store.find("SELECT version FROM aliases WHERE name = ? AND alias = ?", name, alias)
    if row is None:
        raise invalid(f"Registered model alias {alias} not found.")
    found = _find_version(call.store, name, row["version"])
    if found is None:
        raise missing(f"Model Version (name={name}, version={row['version']}) not found")
    return {"model_version": describe_version(call.store, found)}


def create_version(call: Call) -> JsonObject:
    """READY at once, so clients do not poll [W]."""
    model = get_model(call.store, call.text("name"))
    version, now = model["last_version"] + 1, now_ms()
    call.store.run(
        "INSERT INTO model_versions VALUES (?, ?, ?, ?, ?, ?, 'None', 'READY', '', ?, ?, ?)",
        model["name"],
        version,
        call.text("source"),
        call.find_text("run_id") or "",
        call.find_text("run_link") or "",
        call.find_text("description") or "",
        now,
        now,
        call.store.next_seq(),
    )
    call.store.run(
        "UPDATE models SET last_version = ?, updated_ms = ? WHERE name = ?", version, now, model["name"]
    )
    _put_tags(call.store, model["name"], version, call.list("tags"))
    found = _find_version(call.store, model["name"], version)
    assert found is not None
    return {"model_version": describe_version(call.store, found)}


def get_one_version(call: Call) -> JsonObject:
    """One version."""
    return {"model_version": describe_version(call.store, get_version(call))}


def update_version(call: Call) -> JsonObject:
    """Change a version's description."""
    _set_version(call, get_version(call), "description", call.find_text("description") or "")
    return get_one_version(call)


def delete_version(call: Call) -> JsonObject:
    """Remove a version with its tags and aliases; its number is not used again."""
    row = get_version(call)
    for table in ("model_versions", "model_tags", "aliases"):
        call.store.run(f"DELETE FROM {table} WHERE name = ? AND version = ?", row["name"], row["version"])
    return {}


def search_versions(call: Call) -> JsonObject:
    """Versions, newest first."""
    conditions = search.parse(call.find_text("filter") or "", search.MODELS)
    names = {str(condition.value) for condition in conditions}
    newest_ms = now_ms() - int(call.settings.search_lag_seconds * 1000)
    rows = call.store.list(
        "SELECT * FROM model_versions WHERE created_ms <= ? ORDER BY name, version DESC", newest_ms
    )
    found = [describe_version(call.store, row) for row in rows if names <= {row["name"]}]
    page, token = search.page(call, found)
    return {"model_versions": page} | token


def download_uri(call: Call) -> JsonObject:
    """Where the artifact clients find the files: an address they parse [C]."""
    source = str(get_version(call)["source"])
    scheme, _, rest = source.partition(":/")
    if scheme != "runs":
        return {"artifact_uri": source}
    run_id, _, path = rest.lstrip("/").partition("/")
    run = run_rows.get_row(call.store, run_id)
    return {"artifact_uri": f"{call.artifact_uri(run['experiment_id'], run_id)}/{path}"}


def transition(call: Call) -> JsonObject:
    """Stage names are case-sensitive; several versions may share one [D]."""
    row, stage = get_version(call), call.text("stage")
    if stage not in STAGES:
        raise invalid(f"Invalid Model Version stage: {stage}. Value must be one of {', '.join(STAGES)}.")
    if call.arguments.get("archive_existing_versions") in (True, "true"):
        call.store.run(
            "UPDATE model_versions SET stage = 'Archived' WHERE name = ? AND stage = ?", row["name"], stage
        )
    _set_version(call, row, "stage", stage)
    return get_one_version(call)


def set_version_tag(call: Call) -> JsonObject:
    """Add or overwrite a tag of a version."""
    row = get_version(call)
    _put_tags(call.store, row["name"], row["version"], [call.arguments])
    return {}


def delete_version_tag(call: Call) -> JsonObject:
    """Remove a tag of a version."""
    row = get_version(call)
    _delete_tag(call.store, row["name"], row["version"], call.text("key"))
    return {}


def get_model(store: Store, name: str) -> sqlite3.Row:
    """The model's row; 404 if there is none."""
    row = _find_model(store, name)
    if row is None:
        raise missing(f"Registered Model with name={name} not found")
    return row


def get_version(call: Call) -> sqlite3.Row:
    """The row of the version the call names; 404 if there is none."""
    name, version = call.text("name"), as_int(call.text("version"), "version")
    row = _find_version(call.store, name, version)
    if row is None:
        raise missing(f"Model Version (name={name}, version={version}) not found")
    return row


def describe_model(store: Store, row: sqlite3.Row) -> JsonObject:
    """MLflow's message of a model."""
    aliases = store.list("SELECT alias, version FROM aliases WHERE name = ? ORDER BY alias", row["name"])
    model = {
        "name": row["name"],
        "creation_timestamp": row["created_ms"],
        "last_updated_timestamp": row["updated_ms"],
        "description": row["description"],
        "latest_versions": _latest_by_stage(store, row["name"]),
        "tags": _tags_of(store, row["name"], OF_MODEL),
    }
    if aliases:
        model["aliases"] = [{"alias": found["alias"], "version": str(found["version"])} for found in aliases]
    return model


def describe_version(store: Store, row: sqlite3.Row) -> JsonObject:
    """MLflow's message of a version."""
    aliases = store.list(
        "SELECT alias FROM aliases WHERE name = ? AND version = ?", row["name"], row["version"]
    )
    version = {
        "name": row["name"],
        "version": str(row["version"]),
        "creation_timestamp": row["created_ms"],
        "last_updated_timestamp": row["updated_ms"],
        "current_stage": row["stage"],
        "description": row["description"],
        "source": row["source"],
        "run_id": row["run_id"],
        "run_link": row["run_link"],
        "status": row["status"],
        "tags": _tags_of(store, row["name"], row["version"]),
    }
    return version | ({"aliases": [found["alias"] for found in aliases]} if aliases else {})


def versions_of(store: Store, name: str) -> list[JsonObject]:
    """All versions with their place in the order of arrival."""
    rows = store.list("SELECT * FROM model_versions WHERE name = ? ORDER BY version", name)
    return [describe_version(store, row) | {"seq": row["seq"]} for row in rows]


def _require_aliases(call: Call) -> None:
    if not call.settings.accepts_aliases:
        raise EmptyAnswerError(404)


def _find_model(store: Store, name: str) -> sqlite3.Row | None:
    return store.find("SELECT * FROM models WHERE name = ?", name)


def _find_version(store: Store, name: str, version: int) -> sqlite3.Row | None:
    return store.find("SELECT * FROM model_versions WHERE name = ? AND version = ?", name, version)


def _latest_by_stage(store: Store, name: str) -> list[JsonObject]:
    rows = store.list("SELECT * FROM model_versions WHERE name = ? ORDER BY version", name)
    latest = {row["stage"]: row for row in rows}
    return [describe_version(store, row) for row in latest.values()]


def _set_version(call: Call, row: sqlite3.Row, column: str, value: str) -> None:
    call.store.run(
        f"UPDATE model_versions SET {column} = ?, updated_ms = ? WHERE name = ? AND version = ?",
        value,
        now_ms(),
        row["name"],
        row["version"],
    )


def _put_tags(store: Store, name: str, version: int, tags: list[Any]) -> None:
    for tag in tags:
        store.run(
            "INSERT OR REPLACE INTO model_tags VALUES (?, ?, ?, ?, ?)",
            name,
            version,
            str(tag["key"]),
            str(tag.get("value", "")),
            store.next_seq(),
        )


def _delete_tag(store: Store, name: str, version: int, key: str) -> None:
    store.run("DELETE FROM model_tags WHERE name = ? AND version = ? AND key = ?", name, version, key)


def _tags_of(store: Store, name: str, version: int) -> list[JsonObject]:
    rows = store.list(
        "SELECT key, value FROM model_tags WHERE name = ? AND version = ? ORDER BY key", name, version
    )
    return [{"key": row["key"], "value": row["value"]} for row in rows]
