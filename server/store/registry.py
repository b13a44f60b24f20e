"""Registered models and their versions, with tags and aliases.

A deleted version keeps its row, in a stage of its own: what is still on its way to the workspace
needs the number it has there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.database.engine import Transaction

DELETED_STAGE = "Deleted_Internal"
VersionKey = tuple[int, int]

_MODEL = (
    "model_pk, name, description, creation_timestamp_ms, last_updated_timestamp_ms, born, upstream_name,"
    " lane_id"
)
_VERSION = (
    "model_pk, version, creation_timestamp_ms, last_updated_timestamp_ms, description, user_id,"
    " current_stage, source, storage_location, run_id, run_link, model_id, status, status_message"
)
_KEY_TYPES = ("BIGINT", "BIGINT")
_OF_WANTED = " ON {table}.model_pk = wanted.column1 AND {table}.version = wanted.column2"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered model without its tags, aliases and versions."""

    model_pk: int
    name: str
    description: str | None
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    born: str
    upstream_name: str
    lane_id: int


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version without its tags and aliases."""

    model_pk: int
    version: int
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    description: str | None
    user_id: str | None
    current_stage: str
    source: str
    storage_location: str | None
    run_id: str | None
    run_link: str | None
    model_id: str | None
    status: str
    status_message: str | None


# --- registered models ----------------------------------------------------------------------


def find(transaction: Transaction, name: str) -> RegisteredModel | None:
    """The registered model with this name."""
    rows = transaction.rows(f"SELECT {_MODEL} FROM registered_models WHERE name = ?", (name,))
    return RegisteredModel(*rows[0]) if rows else None


def get_many(transaction: Transaction, model_pks: Sequence[int]) -> list[RegisteredModel]:
    """The registered models that exist, in the order asked for."""
    rows = transaction.rows_in(
        f"SELECT {_MODEL} FROM registered_models WHERE model_pk", dict.fromkeys(model_pks)
    )
    found = {row[0]: RegisteredModel(*row) for row in rows}
    return [found[model_pk] for model_pk in model_pks if model_pk in found]


def upstream_name_is_taken(transaction: Transaction, name: str) -> bool:
    """Whether a model here is delivered, or to be delivered, under this name."""
    return bool(transaction.rows("SELECT 1 FROM registered_models WHERE upstream_name = ?", (name,)))


def insert(
    transaction: Transaction,
    *,
    name: str,
    upstream_name: str,
    description: str | None,
    principal: str | None,
    lane_id: int,
) -> int:
    """Store a new registered model; its model_pk."""
    model_pk = int(
        transaction.rows(
            "INSERT INTO registered_models (name, description, creation_timestamp_ms,"
            " last_updated_timestamp_ms, last_version, born, upstream_name, principal, lane_id)"
            " VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?) RETURNING model_pk",
            (
                name,
                description,
                transaction.now_ms,
                transaction.now_ms,
                "proxy",
                upstream_name,
                principal,
                lane_id,
            ),
        )[0][0]
    )
    transaction.run("UPDATE lanes SET subject_id = ? WHERE lane_id = ?", (model_pk, lane_id))
    return model_pk


def is_announced(transaction: Transaction, lane_id: int) -> bool:
    """Whether anything has ever been put on the model's lane; the first is always its create."""
    return bool(transaction.rows("SELECT 1 FROM lanes WHERE lane_id = ? AND last_position > 0", (lane_id,)))


def set_name(transaction: Transaction, model_pk: int, name: str) -> None:
    """Rename; the versions count as updated too."""
    now_ms = transaction.now_ms
    transaction.run(
        "UPDATE registered_models SET name = ?, last_updated_timestamp_ms = ? WHERE model_pk = ?",
        (name, now_ms, model_pk),
    )
    transaction.run(
        "UPDATE model_versions SET last_updated_timestamp_ms = ? WHERE model_pk = ? AND current_stage != ?",
        (now_ms, model_pk, DELETED_STAGE),
    )


def set_description(transaction: Transaction, model_pk: int, description: str | None) -> None:
    """Change the description."""
    transaction.run(
        "UPDATE registered_models SET description = ?, last_updated_timestamp_ms = ? WHERE model_pk = ?",
        (description, transaction.now_ms, model_pk),
    )


def touch(transaction: Transaction, model_pk: int) -> None:
    """Note that something of the model has changed."""
    transaction.run(
        "UPDATE registered_models SET last_updated_timestamp_ms = ? WHERE model_pk = ?",
        (transaction.now_ms, model_pk),
    )


def delete(transaction: Transaction, model_pk: int) -> None:
    """Remove the model with all it has. What its lane still holds belongs to no model any more."""
    transaction.run(
        "UPDATE lanes SET subject_id = 0"
        " WHERE lane_id = (SELECT lane_id FROM registered_models WHERE model_pk = ?)",
        (model_pk,),
    )
    for table in (
        "model_version_tags",
        "model_versions",
        "registered_model_aliases",
        "registered_model_tags",
        "registered_models",
    ):
        transaction.run(f"DELETE FROM {table} WHERE model_pk = ?", (model_pk,))


def list_tags(transaction: Transaction, model_pks: Iterable[int]) -> dict[int, list[tuple[str, str]]]:
    """The tags of these models."""
    tags: dict[int, list[tuple[str, str]]] = {}
    for model_pk, key, value in transaction.rows_in(
        "SELECT model_pk, key, value FROM registered_model_tags WHERE model_pk",
        model_pks,
        suffix=" ORDER BY model_pk, key",
    ):
        tags.setdefault(model_pk, []).append((key, value))
    return tags


def set_tags(transaction: Transaction, model_pk: int, tags: Mapping[str, str]) -> None:
    """Set tags, over what they were."""
    transaction.run_many(
        "INSERT INTO registered_model_tags (model_pk, key, value) VALUES (?, ?, ?)"
        " ON CONFLICT (model_pk, key) DO UPDATE SET value = excluded.value",
        [(model_pk, key, value) for key, value in tags.items()],
    )


def delete_tag(transaction: Transaction, model_pk: int, key: str) -> bool:
    """Delete a tag; whether it was there."""
    sql = "DELETE FROM registered_model_tags WHERE model_pk = ? AND key = ?"
    return transaction.run(sql, (model_pk, key)) > 0


def list_aliases(transaction: Transaction, model_pks: Iterable[int]) -> dict[int, list[tuple[str, int]]]:
    """The aliases of these models, as (alias, version)."""
    aliases: dict[int, list[tuple[str, int]]] = {}
    for model_pk, alias, version in transaction.rows_in(
        "SELECT model_pk, alias, version FROM registered_model_aliases WHERE model_pk",
        model_pks,
        suffix=" ORDER BY model_pk, alias",
    ):
        aliases.setdefault(model_pk, []).append((alias, version))
    return aliases


def find_alias(transaction: Transaction, model_pk: int, alias: str) -> int | None:
    """The version that an alias points to."""
    rows = transaction.rows(
        "SELECT version FROM registered_model_aliases WHERE model_pk = ? AND alias = ?", (model_pk, alias)
    )
    return rows[0][0] if rows else None


def set_alias(transaction: Transaction, model_pk: int, alias: str, version: int) -> None:
    """Point an alias to a version."""
    transaction.run(
        "INSERT INTO registered_model_aliases (model_pk, alias, version) VALUES (?, ?, ?)"
        " ON CONFLICT (model_pk, alias) DO UPDATE SET version = excluded.version",
        (model_pk, alias, version),
    )


def delete_alias(transaction: Transaction, model_pk: int, alias: str) -> None:
    """Delete an alias, if it is there."""
    transaction.run(
        "DELETE FROM registered_model_aliases WHERE model_pk = ? AND alias = ?", (model_pk, alias)
    )


# --- versions -------------------------------------------------------------------------------


def take_version(transaction: Transaction, model_pk: int) -> int:
    """The model's next version number; never given out again."""
    return int(
        transaction.rows(
            "UPDATE registered_models SET last_version = last_version + 1, last_updated_timestamp_ms = ?"
            " WHERE model_pk = ? RETURNING last_version",
            (transaction.now_ms, model_pk),
        )[0][0]
    )


def insert_version(
    transaction: Transaction, version: ModelVersion, tags: Mapping[str, str], *, principal: str | None
) -> None:
    """Store a new version with its tags."""
    transaction.run(
        f"INSERT INTO model_versions ({_VERSION}, principal)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            version.model_pk,
            version.version,
            version.creation_timestamp_ms,
            version.last_updated_timestamp_ms,
            version.description,
            version.user_id,
            version.current_stage,
            version.source,
            version.storage_location,
            version.run_id,
            version.run_link,
            version.model_id,
            version.status,
            version.status_message,
            principal,
        ),
    )
    set_version_tags(transaction, (version.model_pk, version.version), tags)


def find_version(transaction: Transaction, model_pk: int, version: int) -> ModelVersion | None:
    """A version that is not deleted. Whoever asks for it knows it."""
    found = get_versions(transaction, [(model_pk, version)])
    if not found:
        return None
    transaction.named.add(version_subject(model_pk, version))
    return found[0]


def version_subject(model_pk: int, version: int) -> str:
    """A version in one word, as `Transaction.named` has it."""
    return f"{model_pk}/{version}"


def version_key(subject: str) -> VersionKey:
    """The version that `version_subject` put in one word."""
    model_pk, _, version = subject.partition("/")
    return int(model_pk), int(version)


def get_versions(transaction: Transaction, keys: Sequence[VersionKey]) -> list[ModelVersion]:
    """The versions that are not deleted, in the order asked for."""
    columns = ", ".join(f"model_versions.{column}" for column in _VERSION.split(", "))
    rows = transaction.rows_joined(
        f"SELECT {columns} FROM wanted JOIN model_versions{_OF_WANTED.format(table='model_versions')}",
        _KEY_TYPES,
        keys,
    )
    found = {(row[0], row[1]): ModelVersion(*row) for row in rows if row[6] != DELETED_STAGE}
    return [found[key] for key in keys if key in found]


def list_latest(transaction: Transaction, model_pks: Iterable[int]) -> list[ModelVersion]:
    """The latest version of each stage of these models, by model and version."""
    rows = transaction.rows_in(
        "SELECT model_pk, MAX(version) FROM model_versions"
        f" WHERE current_stage != '{DELETED_STAGE}' AND model_pk",
        model_pks,
        suffix=" GROUP BY model_pk, current_stage",
    )
    return get_versions(transaction, sorted((row[0], row[1]) for row in rows))


def list_in_stage(transaction: Transaction, model_pk: int, stage: str) -> list[int]:
    """The versions of a model that are in a stage."""
    rows = transaction.rows(
        "SELECT version FROM model_versions WHERE model_pk = ? AND current_stage = ?", (model_pk, stage)
    )
    return [row[0] for row in rows]


def set_stage(transaction: Transaction, keys: Iterable[VersionKey], stage: str) -> None:
    """Move versions to a stage."""
    transaction.run_many(
        "UPDATE model_versions SET current_stage = ?, last_updated_timestamp_ms = ?"
        " WHERE model_pk = ? AND version = ?",
        [(stage, transaction.now_ms, *key) for key in keys],
    )


def set_version_description(transaction: Transaction, key: VersionKey, description: str | None) -> None:
    """Change the description of a version."""
    transaction.run(
        "UPDATE model_versions SET description = ?, last_updated_timestamp_ms = ?"
        " WHERE model_pk = ? AND version = ?",
        (description, transaction.now_ms, *key),
    )


def delete_version(transaction: Transaction, key: VersionKey) -> None:
    """Delete a version with its tags and the aliases that point to it; its number stays taken."""
    transaction.run("DELETE FROM registered_model_aliases WHERE model_pk = ? AND version = ?", key)
    transaction.run("DELETE FROM model_version_tags WHERE model_pk = ? AND version = ?", key)
    transaction.run(
        "UPDATE model_versions SET current_stage = ?, last_updated_timestamp_ms = ?, description = NULL,"
        " user_id = NULL, run_id = NULL, run_link = NULL, model_id = NULL, status_message = NULL"
        " WHERE model_pk = ? AND version = ?",
        (DELETED_STAGE, transaction.now_ms, *key),
    )


def list_version_tags(
    transaction: Transaction, keys: Sequence[VersionKey]
) -> dict[VersionKey, list[tuple[str, str]]]:
    """The tags of these versions."""
    rows = transaction.rows_joined(
        "SELECT model_version_tags.model_pk, model_version_tags.version, model_version_tags.key,"
        " model_version_tags.value FROM wanted JOIN model_version_tags"
        f"{_OF_WANTED.format(table='model_version_tags')}",
        _KEY_TYPES,
        keys,
    )
    tags: dict[VersionKey, list[tuple[str, str]]] = {}
    for model_pk, version, key, value in sorted(rows):
        tags.setdefault((model_pk, version), []).append((key, value))
    return tags


def set_version_tags(transaction: Transaction, key: VersionKey, tags: Mapping[str, str]) -> None:
    """Set tags of a version, over what they were."""
    transaction.run_many(
        "INSERT INTO model_version_tags (model_pk, version, key, value) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (model_pk, version, key) DO UPDATE SET value = excluded.value",
        [(*key, name, value) for name, value in tags.items()],
    )


def delete_version_tag(transaction: Transaction, key: VersionKey, name: str) -> bool:
    """Delete a tag of a version; whether it was there."""
    sql = "DELETE FROM model_version_tags WHERE model_pk = ? AND version = ? AND key = ?"
    return transaction.run(sql, (*key, name)) > 0
