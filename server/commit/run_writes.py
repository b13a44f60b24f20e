"""The hot kinds of write, worked for a whole group at once.

They are log-metric, log-batch, log-parameter, set-tag, delete-tag and runs/update.

Three steps: read the state of all the group's runs in a few set-based statements; decide each
request in memory against that state and the requests before it in the group; write with one
statement per table. A request that breaks a rule leaves nothing behind.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.commit.bounds import Admission
from server.database.engine import Transaction
from server.domain.entities import LifecycleStage, Metric, RunInfo, RunStatus
from server.domain.errors import MlflowError, does_not_exist, invalid_parameter
from server.domain.operations import DeleteTag, LogParam, Operation, SetTag, UpdateRun
from server.journal.codec import encode_operation
from server.journal.entries import INSERT_BARRIER, INSERT_ENTRY, INSERT_POINT
from server.journal.lanes import advance_lanes, lock_lanes
from server.journal.weights import POINT_BYTES, entry_bytes
from server.store import metrics as metric_rows
from server.store.announcements import announce_runs
from server.store.metrics import PointKey, SeriesState
from server.store.runs import STAGE

RUN_NAME_TAG = "mlflow.runName"

_RUNS = (
    "SELECT run_id, run_pk, experiment_id, name, user_id, status, start_time_ms, end_time_ms,"
    f" artifact_uri, {STAGE}, data_lane_id, artifact_lane_id, upstream_id FROM runs"
)
_PARAMS = (
    "SELECT params.run_pk, params.key, params.value FROM wanted"
    " JOIN params ON params.run_pk = wanted.column1 AND params.key = wanted.column2"
)
_TAGS = (
    "SELECT tags.run_pk, tags.key FROM wanted"
    " JOIN tags ON tags.run_pk = wanted.column1 AND tags.key = wanted.column2"
)
_SETTLED = "SELECT lane_id, settled_position FROM lanes WHERE lane_id"
_INSERT_PARAM = "INSERT INTO params (run_pk, key, value) VALUES (?, ?, ?)"
_UPSERT_TAG = (
    "INSERT INTO tags (run_pk, key, value) VALUES (?, ?, ?)"
    " ON CONFLICT (run_pk, key) DO UPDATE SET value = excluded.value"
)
_DELETE_TAG = "DELETE FROM tags WHERE run_pk = ? AND key = ?"
_UPDATE_RUN = "UPDATE runs SET name = ?, status = ?, end_time_ms = ? WHERE run_pk = ?"


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """A metric point that also belongs to a logged model, perhaps measured on a dataset."""

    model_id: str
    metric: Metric
    dataset_name: str | None
    dataset_digest: str | None


@dataclass(slots=True)
class RunWrite:
    """One request to change what a run holds. Its result is the run as it is afterwards."""

    run_id: str
    metrics: Sequence[Metric] = ()
    model_metrics: Sequence[ModelMetric] = ()
    params: Sequence[tuple[str, str]] = ()
    tags: Sequence[tuple[str, str]] = ()
    deleted_tag: str | None = None
    update: UpdateRun | None = None
    principal: str | None = None
    is_batch: bool = False
    size_bytes: int = 256

    @property
    def rows(self) -> int:
        """How many rows it may write."""
        return 1 + len(self.metrics) + len(self.params) + len(self.tags)

    @property
    def admission(self) -> Admission:
        """Whether it may use the room that is kept for the ends of runs."""
        status = None if self.update is None else self.update.status
        ends = status is not None and RunStatus(status).is_terminal
        return Admission.RUN_ENDING if ends else Admission.ORDINARY


@dataclass(slots=True)
class _Run:
    """A run's state, as the group's requests so far leave it."""

    run_pk: int
    info: RunInfo
    data_lane: int
    artifact_lane: int
    changed: bool = False


@dataclass(slots=True)
class _State:
    """What the group reads at the start and then carries on."""

    runs: dict[str, _Run]
    positions: dict[int, int]
    params: dict[tuple[int, str], str] = field(default_factory=dict)
    present_tags: set[tuple[int, str]] = field(default_factory=set)
    series: dict[tuple[int, str], SeriesState] = field(default_factory=dict)
    known_points: set[PointKey] = field(default_factory=set)


@dataclass(slots=True)
class _Changes:
    """The rows the group will write."""

    params: list[tuple[int, str, str]] = field(default_factory=list)
    tags: dict[tuple[int, str], str | None] = field(default_factory=dict)
    points: list[tuple[SeriesState, Metric]] = field(default_factory=list)
    journal_points: list[tuple[int, int, SeriesState, Metric]] = field(default_factory=list)
    entries: list[tuple[int, int, str, bytes, int, str | None]] = field(default_factory=list)
    barriers: list[tuple[int, int, int, int]] = field(default_factory=list)
    model_metrics: list[tuple[int, ModelMetric]] = field(default_factory=list)
    ended: list[tuple[str, RunInfo]] = field(default_factory=list)
    advanced: dict[int, int] = field(default_factory=dict)
    added_bytes: dict[int, int] = field(default_factory=dict)


def apply_run_writes(transaction: Transaction, group: Sequence[RunWrite]) -> list[RunInfo | MlflowError]:
    """Apply every request of the group; for each the run afterwards, or the rule it broke."""
    state = _read_state(transaction, group)
    changes = _Changes()
    results: list[RunInfo | MlflowError] = []
    for write in group:
        try:
            results.append(_decide(write, state, changes, transaction.now_ms))
        except MlflowError as error:
            results.append(error)
    _write(transaction, state, changes)
    return results


# --- step 1: read ---------------------------------------------------------------------------


def _read_state(transaction: Transaction, group: Sequence[RunWrite]) -> _State:
    runs = _find_runs(transaction, dict.fromkeys(write.run_id for write in group))
    lane_ids = {run.data_lane for run in runs.values()}
    for write in group:
        if write.run_id in runs and write.update is not None:
            lane_ids.add(runs[write.run_id].artifact_lane)
    state = _State(runs, lock_lanes(transaction, lane_ids))
    if transaction.is_postgres:
        # The lock may have waited for another replica: what was read before it can be old.
        state.runs = _find_runs(transaction, runs)
    _read_values(transaction, group, state)
    return state


def _find_runs(transaction: Transaction, run_ids: Iterable[str]) -> dict[str, _Run]:
    """The runs that have these ids here, or in the workspace, by the id they were asked for."""
    wanted = list(run_ids)
    found = {row[0]: _run_of(row) for row in transaction.rows_in(f"{_RUNS} WHERE run_id", wanted)}
    missing = [run_id for run_id in wanted if run_id not in found]
    if missing:
        rows = transaction.rows_in(f"{_RUNS} WHERE upstream_id", missing)
        by_run_id = {row[0]: found.get(row[0]) or _run_of(row) for row in rows}
        found |= {row[-1]: by_run_id[row[0]] for row in rows}
    transaction.named.update(run.info.run_id for run in found.values())
    return found


def _run_of(row: tuple[Any, ...]) -> _Run:
    run_id, run_pk, experiment_id, name, user_id, status, start, end, uri, stage, *lanes, _ = row
    info = RunInfo(
        run_pk,
        run_id,
        experiment_id,
        name,
        user_id,
        RunStatus(status),
        start,
        end,
        uri,
        LifecycleStage(stage),
    )
    return _Run(run_pk, info, *lanes)


def _read_values(transaction: Transaction, group: Sequence[RunWrite], state: _State) -> None:
    params: dict[tuple[int, str], None] = {}
    deleted_tags: dict[tuple[int, str], None] = {}
    series: dict[tuple[int, str], None] = {}
    for write in group:
        run = state.runs.get(write.run_id)
        if run is None:
            continue
        for key, _ in write.params:
            params[run.run_pk, key] = None
        if write.deleted_tag is not None:
            deleted_tags[run.run_pk, write.deleted_tag] = None
        for metric in write.metrics:
            series[run.run_pk, metric.key] = None
    if params:
        for run_pk, key, value in transaction.rows_joined(_PARAMS, ("BIGINT", "TEXT"), list(params)):
            state.params[run_pk, key] = value
    if deleted_tags:
        found = transaction.rows_joined(_TAGS, ("BIGINT", "TEXT"), list(deleted_tags))
        state.present_tags.update((row[0], row[1]) for row in found)
    if series:
        state.series = metric_rows.read_series(transaction, list(series))
        state.known_points = metric_rows.read_known_points(transaction, _perhaps_known(group, state))


def _perhaps_known(group: Sequence[RunWrite], state: _State) -> list[PointKey]:
    """Points that could be repeats: a step above the highest of its series cannot."""
    wanted: dict[PointKey, None] = {}
    for write in group:
        run = state.runs.get(write.run_id)
        if run is None:
            continue
        for metric in write.metrics:
            series = state.series.get((run.run_pk, metric.key))
            if series is not None and metric.step <= series.highest_step:
                wanted[metric_rows.point_key(series.series_id, metric)] = None
    return list(wanted)


# --- step 2: decide -------------------------------------------------------------------------


def _decide(write: RunWrite, state: _State, changes: _Changes, now_ms: int) -> RunInfo:
    run = state.runs.get(write.run_id)
    if run is None:
        raise does_not_exist(f"Run with id={write.run_id} not found")
    _require_active(run)
    new_params = _new_params(write, run, state)
    if write.deleted_tag is not None:
        _require_tag(write.deleted_tag, run, state, changes)
    # Every rule has been passed: from here on nothing raises.
    journal = _Journal(run.data_lane, state, changes, now_ms, write.principal)
    for key, value in new_params:
        state.params[run.run_pk, key] = value
        changes.params.append((run.run_pk, key, value))
        journal.append(LogParam(key, value))
    for key, value in write.tags:
        _set_tag(key, value, run, changes, journal)
    for metric in write.metrics:
        _log_metric(metric, run, state, changes, journal)
    changes.model_metrics.extend((run.run_pk, metric) for metric in write.model_metrics)
    if write.deleted_tag is not None:
        changes.tags[run.run_pk, write.deleted_tag] = None
        journal.append(DeleteTag(write.deleted_tag))
    if write.update is not None:
        _update(write.update, run, changes, journal)
    return run.info


def _require_active(run: _Run) -> None:
    if run.info.lifecycle_stage is not LifecycleStage.ACTIVE:
        raise invalid_parameter(
            f"The run {run.info.run_id} must be in the 'active' state. "
            f"Current state is {run.info.lifecycle_stage.value}."
        )


def _new_params(write: RunWrite, run: _Run, state: _State) -> list[tuple[str, str]]:
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


def _require_tag(key: str, run: _Run, state: _State, changes: _Changes) -> None:
    tag = (run.run_pk, key)
    is_there = changes.tags[tag] is not None if tag in changes.tags else tag in state.present_tags
    if not is_there:
        raise does_not_exist(f"No tag with name: {key} in run with id {run.info.run_id}")


class _Journal:
    """Appends to one run's data lane, in memory; positions follow on those of the lane's row."""

    def __init__(
        self, lane_id: int, state: _State, changes: _Changes, now_ms: int, principal: str | None
    ) -> None:
        self.lane_id = lane_id
        self._state = state
        self._changes = changes
        self._now_ms = now_ms
        self._principal = principal

    def take_position(self, size_bytes: int) -> int:
        position = self._state.positions[self.lane_id] + 1
        self._state.positions[self.lane_id] = position
        self._changes.advanced[self.lane_id] = position
        added = self._changes.added_bytes
        added[self.lane_id] = added.get(self.lane_id, 0) + size_bytes
        return position

    def append(self, operation: Operation) -> int:
        kind, payload = encode_operation(operation)
        position = self.take_position(entry_bytes(operation, payload))
        self._changes.entries.append((self.lane_id, position, kind, payload, self._now_ms, self._principal))
        return position

    def await_lane(self, position: int, lane_id: int) -> None:
        """Hold the entry at `position` until that lane has settled all it holds now."""
        if awaited := self._state.positions[lane_id]:
            self._changes.barriers.append((self.lane_id, position, lane_id, awaited))


def _set_tag(key: str, value: str, run: _Run, changes: _Changes, journal: _Journal) -> None:
    changes.tags[run.run_pk, key] = value
    journal.append(SetTag(key, value))
    if key == RUN_NAME_TAG:
        _change_info(run, name=value)


def _log_metric(metric: Metric, run: _Run, state: _State, changes: _Changes, journal: _Journal) -> None:
    series = state.series.get((run.run_pk, metric.key))
    if series is None:
        series = SeriesState.starting_with(run.run_pk, metric)
        state.series[run.run_pk, metric.key] = series
    elif not series.add(metric, state.known_points):
        return  # MLflow's identity rule: a repeated point is accepted and kept once
    changes.points.append((series, metric))
    changes.journal_points.append((journal.lane_id, journal.take_position(POINT_BYTES), series, metric))


def _update(update: UpdateRun, run: _Run, changes: _Changes, journal: _Journal) -> None:
    status = RunStatus(update.status) if update.status else None
    before = run.info.status
    _change_info(run, status=status, end_time_ms=update.end_time_ms, name=update.name)
    if update.name is not None:
        changes.tags[run.run_pk, RUN_NAME_TAG] = update.name
    position = journal.append(update)
    if status is not None and status.is_terminal:
        journal.await_lane(position, run.artifact_lane)
        if status is not before:
            changes.ended.append((status.value.lower(), run.info))


def _change_info(
    run: _Run, *, status: RunStatus | None = None, end_time_ms: int | None = None, name: str | None = None
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


# --- step 3: write --------------------------------------------------------------------------


def _write(transaction: Transaction, state: _State, changes: _Changes) -> None:
    if changes.params:
        transaction.run_many(_INSERT_PARAM, changes.params)
    if changes.tags:
        _write_tags(transaction, changes)
    if changes.points:
        _write_points(transaction, state, changes)
    if changes.model_metrics:
        metric_rows.insert_model_metrics(
            transaction,
            [
                (item.model_id, item.metric, run_pk, item.dataset_name, item.dataset_digest)
                for run_pk, item in changes.model_metrics
            ],
        )
    changed = {run.run_pk: run for run in state.runs.values() if run.changed}.values()
    if changed:
        transaction.run_many(
            _UPDATE_RUN,
            [(run.info.name, run.info.status.value, run.info.end_time_ms, run.run_pk) for run in changed],
        )
    if changes.ended:
        announce_runs(transaction, changes.ended)
    if changes.entries:
        transaction.run_many(INSERT_ENTRY, changes.entries)
    if changes.barriers:
        transaction.run_many(INSERT_BARRIER, changes.barriers)
    if changes.advanced:
        advance_lanes(transaction, changes.advanced, changes.added_bytes)


def _write_tags(transaction: Transaction, changes: _Changes) -> None:
    kept = [(run_pk, key, value) for (run_pk, key), value in changes.tags.items() if value is not None]
    gone = [(run_pk, key) for (run_pk, key), value in changes.tags.items() if value is None]
    transaction.run_many(_UPSERT_TAG, kept)
    transaction.run_many(_DELETE_TAG, gone)


def _write_points(transaction: Transaction, state: _State, changes: _Changes) -> None:
    metric_rows.write_series(transaction, list({id(series): series for series, _ in changes.points}.values()))
    metric_rows.insert_points(
        transaction,
        [(s.series_id, m.step, m.timestamp_ms, m.value, int(m.is_nan)) for s, m in changes.points],
    )
    transaction.run_many(
        INSERT_POINT,
        [
            (lane, position, s.series_id, m.step, m.timestamp_ms, m.value, int(m.is_nan), transaction.now_ms)
            for lane, position, s, m in changes.journal_points
        ],
    )
