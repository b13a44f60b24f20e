"""Logged models (MLflow 3), their params, tags and metrics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.database.engine import Transaction
from server.domain.entities import LifecycleStage

_COLUMNS = (
    "model_pk, model_id, experiment_id, name, artifact_uri, status, status_message, model_type,"
    " source_run_id, lifecycle_stage, creation_timestamp_ms, last_updated_timestamp_ms, upstream_folder"
)
_STAGE_COLUMN = 9
_LATEST_METRICS = (
    "SELECT latest.model_id, latest.key, latest.value, latest.is_nan, latest.timestamp_ms, latest.step,"
    " latest.dataset_name, latest.dataset_digest, runs.run_id FROM (SELECT model_id, key, value, is_nan,"
    " timestamp_ms, step, dataset_name, dataset_digest, run_pk, ROW_NUMBER() OVER (PARTITION BY"
    " model_id, key, dataset_name, dataset_digest, run_pk ORDER BY timestamp_ms DESC, step DESC) AS place"
    " FROM logged_model_metrics WHERE model_id"
)


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A logged model without its params, tags and metrics."""

    model_pk: int
    model_id: str
    experiment_id: int
    name: str
    artifact_uri: str
    status: str
    status_message: str | None
    model_type: str | None
    source_run_id: str | None
    lifecycle_stage: LifecycleStage
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    upstream_folder: str | None


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """The latest point of one metric of a logged model, from one run, on one dataset or none."""

    key: str
    value: float
    is_nan: bool
    timestamp_ms: int
    step: int
    dataset_name: str | None
    dataset_digest: str | None
    run_id: str | None


def _model(row: tuple[Any, ...]) -> LoggedModel:
    values = list(row)
    values[_STAGE_COLUMN] = LifecycleStage(row[_STAGE_COLUMN])
    return LoggedModel(*values)


def find(transaction: Transaction, model_id: str) -> LoggedModel | None:
    """The logged model with this id, deleted or not. Whoever asks for it knows it."""
    found = find_made(transaction, model_id)
    if found is not None:
        transaction.named.add(model_id)
    return found


def find_made(transaction: Transaction, model_id: str) -> LoggedModel | None:
    """Like `find`, for an id that no request named: the proxy itself remembers it."""
    rows = transaction.rows(f"SELECT {_COLUMNS} FROM logged_models WHERE model_id = ?", (model_id,))
    return _model(rows[0]) if rows else None


def get_many(transaction: Transaction, model_pks: Sequence[int]) -> list[LoggedModel]:
    """The logged models that exist, in the order asked for."""
    rows = transaction.rows_in(f"SELECT {_COLUMNS} FROM logged_models WHERE model_pk", model_pks)
    found = {row[0]: _model(row) for row in rows}
    return [found[model_pk] for model_pk in model_pks if model_pk in found]


def find_by_upstream_folder(transaction: Transaction, source_run_id: str, folder: str) -> LoggedModel | None:
    """The logged model of the run, deleted or not, that has its files under this folder."""
    rows = transaction.rows(
        f"SELECT {_COLUMNS} FROM logged_models WHERE source_run_id = ? AND upstream_folder = ?",
        (source_run_id, folder),
    )
    return _model(rows[0]) if rows else None


def insert(
    transaction: Transaction,
    model: LoggedModel,
    *,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    principal: str | None,
) -> int:
    """Store a new logged model with its params and tags; its model_pk. That of `model` is not looked at."""
    model_pk = int(
        transaction.rows(
            "INSERT INTO logged_models (model_id, experiment_id, name, artifact_uri, status, status_message,"
            " model_type, source_run_id, lifecycle_stage, creation_timestamp_ms, last_updated_timestamp_ms,"
            " upstream_folder, born, principal) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " RETURNING model_pk",
            (
                model.model_id,
                model.experiment_id,
                model.name,
                model.artifact_uri,
                model.status,
                model.status_message,
                model.model_type,
                model.source_run_id,
                model.lifecycle_stage.value,
                model.creation_timestamp_ms,
                model.last_updated_timestamp_ms,
                model.upstream_folder,
                "proxy",
                principal,
            ),
        )[0][0]
    )
    add_params(transaction, model_pk, params)
    set_tags(transaction, model_pk, tags)
    return model_pk


def set_status(transaction: Transaction, model_pk: int, status: str) -> None:
    """Change the status."""
    transaction.run(
        "UPDATE logged_models SET status = ?, last_updated_timestamp_ms = ? WHERE model_pk = ?",
        (status, transaction.now_ms, model_pk),
    )


def set_lifecycle_stage(transaction: Transaction, model_pk: int, stage: LifecycleStage) -> None:
    """Delete softly, or restore."""
    transaction.run(
        "UPDATE logged_models SET lifecycle_stage = ?, last_updated_timestamp_ms = ? WHERE model_pk = ?",
        (stage.value, transaction.now_ms, model_pk),
    )


def list_params(transaction: Transaction, model_pks: Iterable[int]) -> dict[int, list[tuple[str, str]]]:
    """The params of these models."""
    return _grouped(transaction, "logged_model_params", model_pks)


def list_tags(transaction: Transaction, model_pks: Iterable[int]) -> dict[int, list[tuple[str, str]]]:
    """The tags of these models."""
    return _grouped(transaction, "logged_model_tags", model_pks)


def _grouped(
    transaction: Transaction, table: str, model_pks: Iterable[int]
) -> dict[int, list[tuple[str, str]]]:
    grouped: dict[int, list[tuple[str, str]]] = {}
    for model_pk, key, value in transaction.rows_in(
        f"SELECT model_pk, key, value FROM {table} WHERE model_pk",
        model_pks,
        suffix=" ORDER BY model_pk, key",
    ):
        grouped.setdefault(model_pk, []).append((key, value))
    return grouped


def add_params(transaction: Transaction, model_pk: int, params: Mapping[str, str]) -> None:
    """Store params that are not there yet."""
    transaction.run_many(
        "INSERT INTO logged_model_params (model_pk, key, value) VALUES (?, ?, ?)",
        [(model_pk, key, value) for key, value in params.items()],
    )


def set_tags(transaction: Transaction, model_pk: int, tags: Mapping[str, str]) -> None:
    """Set tags, over what they were."""
    transaction.run_many(
        "INSERT INTO logged_model_tags (model_pk, key, value) VALUES (?, ?, ?)"
        " ON CONFLICT (model_pk, key) DO UPDATE SET value = excluded.value",
        [(model_pk, key, value) for key, value in tags.items()],
    )


def delete_tag(transaction: Transaction, model_pk: int, key: str) -> bool:
    """Delete a tag; whether it was there."""
    return (
        transaction.run("DELETE FROM logged_model_tags WHERE model_pk = ? AND key = ?", (model_pk, key)) > 0
    )


def list_latest_metrics(transaction: Transaction, model_ids: Iterable[str]) -> dict[str, list[ModelMetric]]:
    """The latest point of every metric of these models, for each run and dataset it was logged with."""
    latest: dict[str, list[ModelMetric]] = {}
    for row in transaction.rows_in(
        _LATEST_METRICS,
        model_ids,
        suffix=") AS latest LEFT JOIN runs ON runs.run_pk = latest.run_pk WHERE latest.place = 1"
        " ORDER BY latest.model_id, latest.key, latest.timestamp_ms, latest.step",
    ):
        latest.setdefault(row[0], []).append(ModelMetric(row[1], row[2], bool(row[3]), *row[4:9]))
    return latest
