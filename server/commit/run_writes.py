"""The hot kinds of write, worked for a whole group at once.

They are log-metric, log-batch, log-parameter, set-tag, delete-tag and runs/update.

Three steps: read the state of all the group's runs in a few set-based statements (`run_state`); decide each
request in memory against that state and the requests before it in the group; write with one statement per
table (`run_changes`). A request that breaks a rule leaves nothing behind.
"""

from collections.abc import Callable, Sequence
from functools import partial

from server.commit.remembered_runs import RememberedRuns, RunState
from server.commit.run_changes import GroupChanges, write_changes
from server.commit.run_requests import RunWrite
from server.commit.run_state import GroupState, read_state
from server.database.engine import Transaction
from server.domain.entities import LifecycleStage, Metric, Point, RunInfo, RunStatus
from server.domain.errors import MlflowError, does_not_exist, invalid_parameter
from server.domain.operations import DeleteTag, LogParam, SetTag, UpdateRun
from server.journal.entries import Appends
from server.journal.weights import POINT_BYTES
from server.store.metrics import SeriesState

RUN_NAME_TAG = "mlflow.runName"


def apply_run_writes(
    transaction: Transaction, group: Sequence[RunWrite], remembered: RememberedRuns
) -> list[RunInfo | MlflowError]:
    """Apply every request of the group; for each the run afterwards, or the rule it broke."""
    state = read_state(transaction, group, remembered)
    changes = GroupChanges(Appends(transaction, held=state.positions))
    results: list[RunInfo | MlflowError] = []
    for write in group:
        try:
            results.append(_decide(write, state, changes))
        except MlflowError as error:
            results.append(error)
    write_changes(transaction, state, changes)
    for run in state.runs.values():
        remembered.leave(run, changes.journal.last_position(run.data_lane))
    return results


# --- deciding -------------------------------------------------------------------------------


def _decide(write: RunWrite, state: GroupState, changes: GroupChanges) -> RunInfo:
    run = state.runs.get(write.run_id)
    if run is None:
        raise does_not_exist(f"Run with id={write.run_id} not found")
    _require_active(run)
    new_params = _new_params(write, run, state)
    if write.deleted_tag is not None:
        _require_tag(write.deleted_tag, run, state, changes)
    # Every rule has been passed: from here on nothing raises.
    append = partial(changes.journal.append, run.data_lane, principal=write.principal)
    for key, value in new_params:
        state.params[run.run_pk, key] = value
        changes.params.append((run.run_pk, key, value))
        append(LogParam(key, value))
    for key, value in write.tags:
        changes.tags[run.run_pk, key] = value
        append(SetTag(key, value))
        if key == RUN_NAME_TAG:
            _change_info(run, name=value)
    _log_metrics(write.metrics, run, state, changes)
    changes.model_metrics.extend((run.run_pk, metric) for metric in write.model_metrics)
    if write.deleted_tag is not None:
        changes.tags[run.run_pk, write.deleted_tag] = None
        append(DeleteTag(write.deleted_tag))
    if write.update is not None:
        _update(write.update, run, changes, append)
    return run.info


def _require_active(run: RunState) -> None:
    if run.info.lifecycle_stage is not LifecycleStage.ACTIVE:
        raise invalid_parameter(
            f"The run {run.info.run_id} must be in the 'active' state. "
            f"Current state is {run.info.lifecycle_stage.value}."
        )


def _new_params(write: RunWrite, run: RunState, state: GroupState) -> list[tuple[str, str]]:
    """The params that are not there yet. One that is there with another value is refused."""
    new: list[tuple[str, str]] = []
    conflicts: list[dict[str, str]] = []
    for key, value in write.params:
        known = state.params.get((run.run_pk, key))
        if known is None:
            new.append((key, value))
        elif known != value:
            conflicts.append({"key": key, "old_value": known, "new_value": value})
    if not conflicts:
        return new
    if write.is_batch:
        raise invalid_parameter(
            "Changing param values is not allowed. Params were already"
            f" logged='{conflicts}' for run ID='{run.info.run_id}'."
        )
    first = conflicts[0]
    raise invalid_parameter(
        f"Changing param values is not allowed. Param with key='{first['key']}' was already"
        f" logged with value='{first['old_value']}' for run ID='{run.info.run_id}'. Attempted"
        " logging new value"
        f" '{first['new_value']}'."
    )


def _require_tag(key: str, run: RunState, state: GroupState, changes: GroupChanges) -> None:
    tag = (run.run_pk, key)
    is_there = changes.tags[tag] is not None if tag in changes.tags else tag in state.present_tags
    if not is_there:
        raise does_not_exist(f"No tag with name: {key} in run with id {run.info.run_id}")


def _log_metrics(metrics: Sequence[Metric], run: RunState, state: GroupState, changes: GroupChanges) -> None:
    """Add points. By MLflow's identity rule one that is there already is accepted and kept once."""
    run_pk, series_of, known, lane_id = run.run_pk, run.series, state.known_points, run.data_lane
    added: list[tuple[SeriesState, Point]] = []
    for metric in metrics:
        key, point = metric[0], metric[1:]
        series = series_of.get(key)
        if series is None:
            series = series_of[key] = SeriesState.starting_with(run_pk, key, point)
        elif not series.add(point, known):
            continue
        added.append((series, point))
    if added:
        last = changes.journal.last_position(lane_id)
        changes.points.add(lane_id, last + 1, added)
        changes.journal.advance(lane_id, last + len(added), len(added) * POINT_BYTES)


def _update(update: UpdateRun, run: RunState, changes: GroupChanges, append: Callable[..., int]) -> None:
    status = RunStatus(update.status) if update.status else None
    before = run.info.status
    _change_info(run, status=status, end_time_ms=update.end_time_ms, name=update.name)
    if update.name is not None:
        changes.tags[run.run_pk, RUN_NAME_TAG] = update.name
    ends = status is not None and status.is_terminal
    append(update, awaits_end_of=[run.artifact_lane] if ends else [])
    if status is not None and ends and status is not before:
        changes.ended.append((status.value.lower(), run.info))


def _change_info(
    run: RunState, *, status: RunStatus | None = None, end_time_ms: int | None = None, name: str | None = None
) -> None:
    old = run.info
    run.changed = True
    run.info = RunInfo(
        old.run_pk,
        old.run_id,
        old.experiment_id,
        old.name if name is None else name,
        old.user_id,
        old.status if status is None else status,
        old.start_time_ms,
        old.end_time_ms if end_time_ms is None else end_time_ms,
        old.artifact_uri,
        old.lifecycle_stage,
    )
