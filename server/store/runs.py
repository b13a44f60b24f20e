"""Runs, their params and tags."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from server.database.engine import Transaction
from server.domain.entities import LifecycleStage, RunInfo, RunStatus

_INFO = (
    "run_pk, run_id, experiment_id, name, user_id, status, start_time_ms, end_time_ms, artifact_uri,"
    " lifecycle_stage"
)


@dataclass(frozen=True, slots=True)
class RunLanes:
    """Where a run stands in the journal."""

    run_pk: int
    run_id: str
    experiment_id: int
    data_lane: int
    artifact_lane: int
    lifecycle_stage: LifecycleStage
    deleted_at_ms: int | None


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a run is created with."""

    run_id: str
    experiment_id: int
    name: str
    user_id: str
    status: RunStatus
    start_time_ms: int | None
    artifact_uri: str
    parent_run_id: str | None
    principal: str | None
    tags: Sequence[tuple[str, str]]


def _info(row: tuple[Any, ...]) -> RunInfo:
    run_pk, run_id, experiment_id, name, user_id, status, start, end, artifact_uri, stage = row
    return RunInfo(
        run_pk,
        run_id,
        experiment_id,
        name,
        user_id,
        RunStatus(status),
        start,
        end,
        artifact_uri,
        LifecycleStage(stage),
    )


def find_info(transaction: Transaction, run_id: str) -> RunInfo | None:
    """The run that has this id here, or in the workspace."""
    rows = transaction.rows(f"SELECT {_INFO} FROM runs WHERE run_id = ?", (run_id,))
    if not rows:
        rows = transaction.rows(f"SELECT {_INFO} FROM runs WHERE upstream_id = ?", (run_id,))
    return _info(rows[0]) if rows else None


def find_lanes(transaction: Transaction, run_id: str) -> RunLanes | None:
    """The place in the journal of the run that has this id here, or in the workspace."""
    select = (
        "SELECT run_pk, run_id, experiment_id, data_lane_id, artifact_lane_id, lifecycle_stage, deleted_at_ms"
        " FROM runs WHERE "
    )
    rows = transaction.rows(f"{select}run_id = ?", (run_id,))
    if not rows:
        rows = transaction.rows(f"{select}upstream_id = ?", (run_id,))
    if not rows:
        return None
    row = rows[0]
    return RunLanes(row[0], row[1], row[2], row[3], row[4], LifecycleStage(row[5]), row[6])


def list_infos(transaction: Transaction, run_pks: Sequence[int]) -> list[RunInfo]:
    """The runs, in the order asked for."""
    found = {row[0]: row for row in transaction.rows_in(f"SELECT {_INFO} FROM runs WHERE run_pk", run_pks)}
    return [_info(found[run_pk]) for run_pk in run_pks if run_pk in found]


def find_pks(transaction: Transaction, run_ids: Iterable[str]) -> dict[str, int]:
    """Run id → run_pk, for those that exist."""
    rows = transaction.rows_in("SELECT run_id, run_pk FROM runs WHERE run_id", run_ids)
    return {row[0]: row[1] for row in rows}


def list_params(transaction: Transaction, run_pks: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
    """All params of these runs."""
    return _grouped(transaction.rows_in("SELECT run_pk, key, value FROM params WHERE run_pk", run_pks))


def list_tags(transaction: Transaction, run_pks: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
    """All tags of these runs."""
    return _grouped(transaction.rows_in("SELECT run_pk, key, value FROM tags WHERE run_pk", run_pks))


def _grouped(rows: list[tuple[Any, ...]]) -> dict[int, list[tuple[str, str]]]:
    grouped: dict[int, list[tuple[str, str]]] = {}
    for run_pk, key, value in rows:
        grouped.setdefault(run_pk, []).append((key, value))
    return grouped


def insert(transaction: Transaction, run: NewRun, *, data_lane: int, artifact_lane: int) -> int:
    """Store a new run with its tags; its run_pk."""
    run_pk = int(
        transaction.rows(
            "INSERT INTO runs (run_id, experiment_id, name, user_id, status, start_time_ms, artifact_uri,"
            " lifecycle_stage, parent_run_id, born, created_at_ms, principal, data_lane_id, artifact_lane_id)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING run_pk",
            (
                run.run_id,
                run.experiment_id,
                run.name,
                run.user_id,
                run.status.value,
                run.start_time_ms,
                run.artifact_uri,
                LifecycleStage.ACTIVE.value,
                run.parent_run_id,
                "proxy",
                transaction.now_ms,
                run.principal,
                data_lane,
                artifact_lane,
            ),
        )[0][0]
    )
    transaction.run_many(
        "INSERT INTO tags (run_pk, key, value) VALUES (?, ?, ?)",
        [(run_pk, key, value) for key, value in run.tags],
    )
    transaction.run(
        "UPDATE lanes SET subject_id = ? WHERE lane_id IN (?, ?)", (run_pk, data_lane, artifact_lane)
    )
    return run_pk


def set_lifecycle_stage(
    transaction: Transaction, run_pks: Sequence[int], stage: LifecycleStage, deleted_at_ms: int | None
) -> None:
    """Delete or restore runs, softly."""
    transaction.run_many(
        "UPDATE runs SET lifecycle_stage = ?, deleted_at_ms = ? WHERE run_pk = ?",
        [(stage.value, deleted_at_ms, run_pk) for run_pk in run_pks],
    )


def list_lanes_of_experiment(
    transaction: Transaction, experiment_id: int, stage: LifecycleStage, deleted_at_ms: int | None = None
) -> list[tuple[int, int, int]]:
    """(run_pk, data lane, artifact lane) of an experiment's runs in that stage.

    With `deleted_at_ms`, only those that were deleted at that moment (with their experiment).
    """
    sql = (
        "SELECT run_pk, data_lane_id, artifact_lane_id FROM runs"
        " WHERE experiment_id = ? AND lifecycle_stage = ?"
    )
    parameters: list[Any] = [experiment_id, stage.value]
    if deleted_at_ms is not None:
        sql += " AND deleted_at_ms = ?"
        parameters.append(deleted_at_ms)
    return [(row[0], row[1], row[2]) for row in transaction.rows(sql, parameters)]
