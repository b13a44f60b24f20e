"""Which deleted runs and experiments may be removed for good, and what stands against it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from server.database.engine import Transaction
from server.domain.overflow_files import path_of_file
from server.store.registry import DELETED_STAGE

_OWN = "runs.lifecycle_stage = 'deleted' AND coalesce(runs.deleted_at_ms, 0) <= ?"
_WITH_EXPERIMENT = (
    "runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'deleted'"
    " AND coalesce(runs.outlived_ms, 0) <> experiments.last_update_time_ms"
    " AND experiments.last_update_time_ms <= ?"
)
_CANDIDATES = (
    "SELECT runs.run_pk, runs.run_id, runs.experiment_id, runs.upstream_id, runs.lifecycle_stage,"
    " runs.data_lane_id, runs.artifact_lane_id, runs.overflow_lane_id, experiments.lifecycle_stage"
    " FROM runs JOIN experiments ON experiments.experiment_id = runs.experiment_id"
    f" WHERE runs.born = 'proxy' AND (({_OWN}) OR ({_WITH_EXPERIMENT}))"
)


class Obstacle(StrEnum):
    """Why a deleted run or experiment stays."""

    UNDELIVERED = "undelivered"
    REGISTERED = "registered"
    MODELS = "models"
    NEWEST = "newest"
    RUNS = "runs"


@dataclass(frozen=True, slots=True)
class Selection:
    """What was deleted before that moment; without ids, anything."""

    deleted_before_ms: int
    run_ids: Sequence[str] | None = None
    experiment_ids: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class DeletedRun:
    """A run that was deleted long enough ago. `is_deleted_itself`: not only with its experiment."""

    run_pk: int
    run_id: str
    experiment_id: int
    upstream_id: str | None
    is_deleted_itself: bool
    lane_ids: tuple[int, ...]
    is_experiment_deleted: bool


def list_runs(
    transaction: Transaction, selection: Selection, *, after_run_pk: int, limit: int
) -> list[DeletedRun]:
    """A page of the runs selected, in the order of `run_pk`."""
    sql, parameters = _CANDIDATES, [selection.deleted_before_ms, selection.deleted_before_ms]
    sql += f" AND runs.run_pk > {int(after_run_pk)}"
    values: list[int | str] = [*parameters]
    for column, wanted in (("run_id", selection.run_ids), ("experiment_id", selection.experiment_ids)):
        if wanted is not None:
            sql += f" AND runs.{column} IN ({','.join('?' * len(wanted))})"
            values += wanted
    return [
        _deleted_run(row) for row in transaction.rows(f"{sql} ORDER BY runs.run_pk LIMIT {limit}", values)
    ]


def reread_run(transaction: Transaction, selection: Selection, run_pk: int) -> DeletedRun | None:
    """The run as it is now, if it is still selected."""
    values = (selection.deleted_before_ms, selection.deleted_before_ms, run_pk)
    rows = transaction.rows(f"{_CANDIDATES} AND runs.run_pk = ?", values)
    return _deleted_run(rows[0]) if rows else None


def _deleted_run(row: tuple[object, ...]) -> DeletedRun:
    run_pk, run_id, experiment_id, upstream_id, stage, *lanes, experiment_stage = row
    return DeletedRun(
        int(str(run_pk)),
        str(run_id),
        int(str(experiment_id)),
        None if upstream_id is None else str(upstream_id),
        stage == "deleted",
        tuple(int(str(lane)) for lane in lanes if lane is not None),
        experiment_stage == "deleted",
    )


def find_obstacle(
    transaction: Transaction, run: DeletedRun, *, discards_undelivered: bool, takes_models: bool
) -> Obstacle | None:
    """What stands against removing the run."""
    if not discards_undelivered and has_undelivered(transaction, run.lane_ids, run.run_pk):
        return Obstacle.UNDELIVERED
    if _is_registered(transaction, run):
        return Obstacle.REGISTERED
    if not takes_models and not run.is_experiment_deleted and _has_active_models(transaction, run):
        return Obstacle.MODELS
    # SQLite would give its number out again, and parts of this process remember runs by it.
    if not transaction.is_postgres and transaction.rows("SELECT max(run_pk) FROM runs")[0][0] == run.run_pk:
        return Obstacle.NEWEST
    return None


def has_undelivered(transaction: Transaction, lane_ids: Sequence[int], run_pk: int | None = None) -> bool:
    """Whether anything in these lanes has not been delivered, or waits for an operator's decision."""
    return (
        bool(
            transaction.rows_in(
                "SELECT 1 FROM lanes WHERE settled_position < last_position AND lane_id", lane_ids
            )
        )
        or bool(transaction.rows_in("SELECT 1 FROM parked WHERE decision IS NULL AND lane_id", lane_ids))
        or (
            run_pk is not None
            and bool(transaction.rows("SELECT 1 FROM overflow WHERE run_pk = ? LIMIT 1", (run_pk,)))
        )
    )


def _is_registered(transaction: Transaction, run: DeletedRun) -> bool:
    """Whether a version of a registered model was made from the run's files: they are its bytes."""
    return bool(
        transaction.rows(
            "SELECT 1 FROM model_versions WHERE current_stage <> ? AND (run_id = ? OR model_id IN"
            " (SELECT model_id FROM logged_models WHERE source_run_id = ?)) LIMIT 1",
            (DELETED_STAGE, run.run_id, run.run_id),
        )
    )


def list_named_in_sources(transaction: Transaction, runs: Sequence[DeletedRun]) -> set[str]:
    """The ids of those runs whose files a model version was made from by their path alone."""
    sources = [
        f"{row[0]} {row[1] or ''}"
        for row in transaction.rows(
            "SELECT source, storage_location FROM model_versions WHERE current_stage <> ? AND run_id IS NULL",
            (DELETED_STAGE,),
        )
    ]
    return {run.run_id for run in runs if any(run.run_id in source for source in sources)}


def _has_active_models(transaction: Transaction, run: DeletedRun) -> bool:
    return bool(
        transaction.rows(
            "SELECT 1 FROM logged_models WHERE source_run_id = ? AND lifecycle_stage = 'active' LIMIT 1",
            (run.run_id,),
        )
    )


def list_model_ids(transaction: Transaction, run_id: str) -> list[str]:
    """The logged models that the run made."""
    rows = transaction.rows("SELECT model_id FROM logged_models WHERE source_run_id = ?", (run_id,))
    return [row[0] for row in rows]


def list_overflow_paths(transaction: Transaction, run_pk: int) -> list[str]:
    """Where the workspace has the run's overflow files."""
    rows = transaction.rows("SELECT file_number FROM overflow_files WHERE run_pk = ?", (run_pk,))
    return [path_of_file(row[0]) for row in rows]


def list_measured(transaction: Transaction, run_pks: Sequence[int]) -> dict[int, list[str]]:
    """The logged models that hold metrics of these runs. Reads the whole table: not for a writer."""
    found: dict[int, list[str]] = {}
    for run_pk, model_id in transaction.rows_in(
        "SELECT DISTINCT run_pk, model_id FROM logged_model_metrics WHERE run_pk", run_pks
    ):
        found.setdefault(run_pk, []).append(model_id)
    return found


# --- experiments ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeletedExperiment:
    """An experiment that was deleted long enough ago."""

    experiment_id: int
    upstream_id: str | None
    lane_id: int


def list_experiments(transaction: Transaction, selection: Selection) -> list[DeletedExperiment]:
    """The experiments selected. The default one always stays."""
    sql = (
        "SELECT experiment_id, upstream_id, lane_id FROM experiments WHERE lifecycle_stage = 'deleted'"
        " AND last_update_time_ms <= ? AND experiment_id <> 0 AND born = 'proxy'"
    )
    values: list[int] = [selection.deleted_before_ms]
    if selection.experiment_ids is not None:
        sql += f" AND experiment_id IN ({','.join('?' * len(selection.experiment_ids))})"
        values += selection.experiment_ids
    return [DeletedExperiment(*row) for row in transaction.rows(f"{sql} ORDER BY experiment_id", values)]


def find_experiment_obstacle(
    transaction: Transaction, experiment: DeletedExperiment, *, discards_undelivered: bool
) -> Obstacle | None:
    """What stands against removing the experiment.

    Undelivered entries are discarded only of one that the workspace has never had: what removes its runs
    there stands in its lane.
    """
    one = (experiment.experiment_id,)
    if transaction.rows("SELECT 1 FROM runs WHERE experiment_id = ? LIMIT 1", one):
        return Obstacle.RUNS
    may_discard = discards_undelivered and experiment.upstream_id is None
    if not may_discard and has_undelivered(transaction, [experiment.lane_id]):
        return Obstacle.UNDELIVERED
    registered = transaction.rows(
        "SELECT 1 FROM model_versions WHERE current_stage <> ? AND model_id IN"
        " (SELECT model_id FROM logged_models WHERE experiment_id = ?) LIMIT 1",
        (DELETED_STAGE, *one),
    )
    return Obstacle.REGISTERED if registered else None
