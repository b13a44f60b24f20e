"""Runs with what of them has still to reach the workspace, for an operator to look at."""

from dataclasses import dataclass
from typing import Any

from server.database.engine import Transaction
from server.domain.name_patterns import NamePatterns
from server.store.name_patterns import condition_on

_COLUMNS = (
    "SELECT runs.run_pk, runs.run_id, runs.name, runs.experiment_id, experiments.name, runs.status,"
    " runs.upstream_id, runs.data_lane_id, runs.artifact_lane_id, runs.overflow_lane_id"
    " FROM runs JOIN experiments ON experiments.experiment_id = runs.experiment_id"
)
# The lanes with something pending are few, and have an index of their own.
_UNDELIVERED = (
    " runs.run_pk IN (SELECT subject_id FROM lanes WHERE settled_position < last_position"
    " AND kind IN ('run_data', 'run_artifacts', 'run_overflow')"
    " UNION SELECT run_pk FROM parked WHERE decision IS NULL AND run_pk IS NOT NULL)"
)
_MATCHING = " (runs.run_id = ? OR lower(runs.name) LIKE ? ESCAPE '\\')"


@dataclass(frozen=True, slots=True)
class RunDelivery:
    """A run and its lanes."""

    run_pk: int
    run_id: str
    name: str
    experiment_id: int
    experiment_name: str
    status: str
    upstream_id: str | None
    lane_ids: list[int]


def list_run_deliveries(
    transaction: Transaction,
    *,
    undelivered: bool,
    pattern: str,
    offset: int,
    limit: int,
    visible: NamePatterns | None = None,
) -> list[RunDelivery]:
    """Runs, the latest first; `pattern` is a run id or part of a name.

    Where `visible` is given, only those of experiments of such a name are there.
    """
    conditions: list[str] = []
    parameters: list[Any] = []
    if undelivered:
        conditions.append(_UNDELIVERED)
    if pattern:
        conditions.append(_MATCHING)
        parameters += [pattern, f"%{_escaped(pattern.lower())}%"]
    if visible is not None:
        condition, operands = condition_on("experiments.name", visible, is_postgres=transaction.is_postgres)
        conditions.append(condition)
        parameters += operands
    where = f" WHERE{' AND'.join(conditions)}" if conditions else ""
    rows = transaction.rows(
        f"{_COLUMNS}{where} ORDER BY runs.run_pk DESC LIMIT ? OFFSET ?", [*parameters, limit, offset]
    )
    return [_run_delivery(row) for row in rows]


def _run_delivery(row: tuple[Any, ...]) -> RunDelivery:
    run_pk, run_id, name, experiment_id, experiment_name, status, upstream_id, *lanes = row
    lane_ids = [lane for lane in lanes if lane is not None]
    return RunDelivery(run_pk, run_id, name, experiment_id, experiment_name, status, upstream_id, lane_ids)


def _escaped(pattern: str) -> str:
    return pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
