"""Who a thing is in the workspace: ids and names there, and how its run was made."""

from dataclasses import dataclass
from typing import Any

import msgspec

from server.database.engine import Transaction
from server.store.registry import DELETED_STAGE

MODEL_HISTORY_TAG = "mlflow.log-model.history"
RUN_TAGS = frozenset({"mlflow.parentRunId", "mlflow.rootRunId", MODEL_HISTORY_TAG})
"""Tags that name runs."""


@dataclass(frozen=True, slots=True)
class ExperimentIds:
    """An experiment here and there."""

    experiment_id: int
    upstream_id: str | None
    upstream_name: str


@dataclass(frozen=True, slots=True)
class RunIds:
    """A run here and there. `create_way` is `history` or `mlflow`, once it has been chosen."""

    run_pk: int
    run_id: str
    upstream_id: str | None
    create_way: str | None
    created_at_ms: int
    experiment: ExperimentIds


_RUN = (
    "SELECT runs.run_pk, runs.run_id, runs.upstream_id, runs.create_way, runs.created_at_ms,"
    " experiments.experiment_id, experiments.upstream_id, experiments.upstream_name FROM runs"
    " JOIN experiments ON experiments.experiment_id = runs.experiment_id"
)


def _run(row: tuple[Any, ...]) -> RunIds:
    run_pk, run_id, upstream_id, create_way, created_at_ms, *experiment = row
    return RunIds(run_pk, run_id, upstream_id, create_way, created_at_ms, ExperimentIds(*experiment))


def find_run(transaction: Transaction, run_pk: int) -> RunIds | None:
    """The run with this key."""
    rows = transaction.rows(f"{_RUN} WHERE runs.run_pk = ?", (run_pk,))
    return _run(rows[0]) if rows else None


def find_run_by_id(transaction: Transaction, run_id: str) -> RunIds | None:
    """The run that clients name so."""
    rows = transaction.rows(f"{_RUN} WHERE runs.run_id = ?", (run_id,))
    return _run(rows[0]) if rows else None


def find_experiment(transaction: Transaction, experiment_id: int) -> ExperimentIds | None:
    """The experiment with this id."""
    rows = transaction.rows(
        "SELECT experiment_id, upstream_id, upstream_name FROM experiments WHERE experiment_id = ?",
        (experiment_id,),
    )
    return ExperimentIds(*rows[0]) if rows else None


def upstream_run_id_of(transaction: Transaction, run_id: str) -> str:
    """A run's id in the workspace; its own id where it is not known to be another."""
    rows = transaction.rows("SELECT upstream_id FROM runs WHERE run_id = ?", (run_id,))
    return rows[0][0] if rows and rows[0][0] else run_id


def upstream_tag_value(transaction: Transaction, key: str, value: str) -> str:
    """A run's tag as the workspace is to hold it: the runs it names under their ids there."""
    if key not in RUN_TAGS:
        return value
    if key != MODEL_HISTORY_TAG:
        return upstream_run_id_of(transaction, value)
    try:
        models = msgspec.json.decode(value, type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeEncodeError):
        return value  # a client wrote something else under this name
    named = {str(model["run_id"]) for model in models if "run_id" in model}
    for run_id in named:
        upstream_id = upstream_run_id_of(transaction, run_id)
        if upstream_id != run_id:
            value = value.replace(f'"{run_id}"', f'"{upstream_id}"')
    return value


def set_experiment_upstream_id(transaction: Transaction, experiment_id: int, upstream_id: str) -> None:
    """The workspace has told us its id."""
    transaction.run(
        "UPDATE experiments SET upstream_id = ? WHERE experiment_id = ?", (upstream_id, experiment_id)
    )


def choose_create_way(
    transaction: Transaction, run_pk: int, way: str | None, upstream_id: str | None
) -> None:
    """Fix how a run is made, before its create is sent."""
    transaction.run(
        "UPDATE runs SET create_way = ?, upstream_id = ? WHERE run_pk = ?", (way, upstream_id, run_pk)
    )


def set_run_upstream_id(transaction: Transaction, run_pk: int, upstream_id: str) -> None:
    """The workspace has chosen another id for a run."""
    transaction.run("UPDATE runs SET upstream_id = ? WHERE run_pk = ?", (upstream_id, run_pk))


def find_model_name(transaction: Transaction, model_pk: int) -> str | None:
    """A registered model's name in the workspace."""
    rows = transaction.rows("SELECT upstream_name FROM registered_models WHERE model_pk = ?", (model_pk,))
    return rows[0][0] if rows else None


def find_upstream_version(transaction: Transaction, model_pk: int, version: int) -> str | None:
    """A version's number in the workspace."""
    rows = transaction.rows(
        "SELECT upstream_version FROM model_versions WHERE model_pk = ? AND version = ?", (model_pk, version)
    )
    return rows[0][0] if rows else None


def list_upstream_versions(transaction: Transaction, model_pk: int) -> list[tuple[int, str | None]]:
    """A registered model's versions, lowest first, each with its number in the workspace."""
    rows = transaction.rows(
        "SELECT version, upstream_version FROM model_versions WHERE model_pk = ? AND current_stage <> ?"
        " ORDER BY version",
        (model_pk, DELETED_STAGE),
    )
    return [(version, upstream_version) for version, upstream_version in rows]


def set_upstream_version(
    transaction: Transaction, model_pk: int, version: int, upstream_version: str
) -> None:
    """The workspace has numbered a version."""
    transaction.run(
        "UPDATE model_versions SET upstream_version = ? WHERE model_pk = ? AND version = ?",
        (upstream_version, model_pk, version),
    )
