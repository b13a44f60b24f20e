"""What a group of writes to runs reads before any of them is decided, in a few set-based statements."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.commit.remembered_runs import ExperimentMark, RememberedRun, RememberedRuns, RunState
from server.commit.run_requests import RunWrite
from server.database.engine import Transaction
from server.database.together import array_literal, text_array
from server.domain.entities import PointKey
from server.journal.lanes import lock_lanes
from server.store import metrics as metric_rows
from server.store.runs import INFO, info_of

_OF_EXPERIMENT = "FROM experiments WHERE experiments.experiment_id = runs.experiment_id"
_RUNS = (
    f"SELECT {INFO}, data_lane_id, artifact_lane_id, (SELECT lifecycle_stage {_OF_EXPERIMENT}),"
    f" (SELECT last_update_time_ms {_OF_EXPERIMENT}), upstream_id FROM runs"
)
_UPSTREAM_ID = -1
_MARKS = "SELECT experiment_id, last_update_time_ms, lifecycle_stage FROM experiments WHERE experiment_id"
_HOLD_ON_POSTGRES = (
    "WITH held AS (SELECT lane_id, last_position FROM lanes WHERE lane_id = ANY (CAST(? AS BIGINT[]))"
    " ORDER BY lane_id FOR UPDATE) SELECT lane_id, last_position, NULL FROM held"
    f" UNION ALL {_MARKS} = ANY (CAST(? AS BIGINT[]))"
)
_HOLD_ON_SQLITE = (
    f"SELECT lane_id, last_position, NULL FROM lanes WHERE lane_id IN ({{}}) UNION ALL {_MARKS} IN ({{}})"
)
_LANES = (
    "SELECT lane_id, last_position FROM lanes WHERE lane_id = ANY ("
    "ARRAY(SELECT data_lane_id FROM runs WHERE run_id = ANY (CAST(? AS TEXT[])))"
    " || ARRAY(SELECT artifact_lane_id FROM runs WHERE run_id = ANY (CAST(? AS TEXT[]))))"
    " ORDER BY lane_id FOR UPDATE"
)
_PARAMS = (
    "SELECT params.run_pk, params.key, params.value FROM wanted"
    " JOIN params ON params.run_pk = wanted.column1 AND params.key = wanted.column2"
)
_TAGS = (
    "SELECT tags.run_pk, tags.key FROM wanted"
    " JOIN tags ON tags.run_pk = wanted.column1 AND tags.key = wanted.column2"
)
_KEY_TYPES = ("BIGINT", "TEXT")


@dataclass(slots=True)
class GroupState:
    """What the group reads at the start and then carries on."""

    runs: dict[str, RunState]
    positions: dict[int, int]
    params: dict[tuple[int, str], str] = field(default_factory=dict)
    present_tags: set[tuple[int, str]] = field(default_factory=set)
    known_points: set[PointKey] = field(default_factory=set)


def read_state(transaction: Transaction, group: Sequence[RunWrite], remembered: RememberedRuns) -> GroupState:
    """The state of all the group's runs, whose lanes are held from here on."""
    wanted = dict.fromkeys(write.run_id for write in group)
    ending = {write.run_id for write in group if write.update is not None}
    known = {run_id: run for run_id in wanted if (run := remembered.take(run_id)) is not None}
    if len(known) == len(wanted):
        state = _go_on_with(transaction, known, ending)
    else:
        state = _read_runs(transaction, wanted, ending)
        _go_on_with_series(state, known)
    _read_values(transaction, group, state)
    return state


def _go_on_with(
    transaction: Transaction, known: Mapping[str, RememberedRun], ending: Iterable[str]
) -> GroupState:
    """The runs as they were left; those that somebody touched since are read."""
    lanes = {held.run.data_lane for held in known.values()}
    lanes |= {known[run_id].run.artifact_lane for run_id in ending}
    experiments = {held.run.info.experiment_id for held in known.values()}
    positions, marks = _hold(transaction, lanes, experiments)
    unchanged = {
        run_id: held.run
        for run_id, held in known.items()
        if positions.get(held.run.data_lane) == held.position
        and marks.get(held.run.info.experiment_id) == held.run.experiment
    }
    transaction.named.update(unchanged)
    touched = known.keys() - unchanged.keys()
    if not touched:
        return GroupState(unchanged, positions)
    runs = _find_runs(transaction, touched)
    # One that was removed and made anew under its id has other lanes.
    if others := {run.data_lane for run in runs.values()} - positions.keys():
        positions |= lock_lanes(transaction, others)
    return GroupState(unchanged | runs, positions)


def _hold(
    transaction: Transaction, lane_ids: Iterable[int], experiment_ids: Iterable[int]
) -> tuple[dict[int, int], dict[int, ExperimentMark]]:
    """Hold the lanes, as `lock_lanes` does; their last positions, and the marks of the experiments."""
    given: list[Collection[int]] = [sorted(lane_ids), sorted(experiment_ids)]
    if transaction.is_postgres:
        rows = transaction.rows(_HOLD_ON_POSTGRES, [array_literal("BIGINT", list(ids)) for ids in given])
    else:
        marks = [", ".join("?" * len(ids)) for ids in given]
        rows = transaction.rows(_HOLD_ON_SQLITE.format(*marks), [value for ids in given for value in ids])
    positions = {row[0]: row[1] for row in rows if row[2] is None}
    return positions, {row[0]: (row[2], row[1]) for row in rows if row[2] is not None}


def _read_runs(transaction: Transaction, wanted: Iterable[str], ending: Collection[str]) -> GroupState:
    # Lanes first: what is read before their lock, which may wait for another replica, can be old.
    positions = _lock_lanes_of(transaction, wanted, ending) if transaction.is_postgres else {}
    runs = _find_runs(transaction, wanted)
    lane_ids = {run.data_lane for run in runs.values()}
    lane_ids |= {runs[run_id].artifact_lane for run_id in ending if run_id in runs}
    if others := lane_ids - positions.keys():
        positions |= lock_lanes(transaction, others)
        if transaction.is_postgres:  # these runs were named by their ids in the workspace
            runs = _find_runs(transaction, runs)
    return GroupState(runs, positions)


def _go_on_with_series(state: GroupState, known: Mapping[str, RememberedRun]) -> None:
    """Spare the reading of series that nobody added to since."""
    for run_id, held in known.items():
        run = state.runs.get(run_id)
        same_lane = run is not None and run.data_lane == held.run.data_lane
        if run is not None and same_lane and state.positions[run.data_lane] == held.position:
            run.series = held.run.series


def _lock_lanes_of(
    transaction: Transaction, run_ids: Iterable[str], with_artifacts: Iterable[str]
) -> dict[int, int]:
    """Hold the runs' lanes until the transaction ends, as `lock_lanes` does, before the runs are read."""
    rows = transaction.rows(_LANES, [text_array(run_ids), text_array(with_artifacts)])
    return {row[0]: row[1] for row in rows}


def _find_runs(transaction: Transaction, run_ids: Iterable[str]) -> dict[str, RunState]:
    """The runs that have these ids here, or in the workspace, by the id they were asked for."""
    wanted = list(run_ids)
    rows = transaction.rows_in(f"{_RUNS} WHERE run_id", wanted)
    found = {run.info.run_id: run for run in map(_run_of, rows)}
    missing = [run_id for run_id in wanted if run_id not in found]
    if missing:
        for row in transaction.rows_in(f"{_RUNS} WHERE upstream_id", missing):
            run = _run_of(row)
            found[row[_UPSTREAM_ID]] = found.get(run.info.run_id, run)
    transaction.named.update(run.info.run_id for run in found.values())
    return found


def _run_of(row: tuple[Any, ...]) -> RunState:
    *info, data_lane, artifact_lane, stage, last_update_ms, _ = row
    run = info_of(info)
    return RunState(run.run_pk, run, data_lane, artifact_lane, (stage, last_update_ms))


def _read_values(transaction: Transaction, group: Sequence[RunWrite], state: GroupState) -> None:
    runs = {run.run_pk: run for run in state.runs.values()}
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
        for key in {metric[0] for metric in write.metrics} - run.series.keys():
            series[run.run_pk, key] = None
    if params:
        for run_pk, key, value in transaction.rows_joined(_PARAMS, _KEY_TYPES, list(params)):
            state.params[run_pk, key] = value
    if deleted_tags:
        found = transaction.rows_joined(_TAGS, _KEY_TYPES, list(deleted_tags))
        state.present_tags.update((row[0], row[1]) for row in found)
    if series:
        for one in metric_rows.read_series(transaction, list(series)):
            runs[one.run_pk].series[one.key] = one
    if any(write.metrics for write in group):
        state.known_points = metric_rows.read_known_points(transaction, _perhaps_known(group, state))


def _perhaps_known(group: Sequence[RunWrite], state: GroupState) -> list[PointKey]:
    """Points that could be repeats: a step above the highest of its series cannot."""
    wanted: dict[PointKey, None] = {}
    for write in group:
        run = state.runs.get(write.run_id)
        if run is None or not run.series:
            continue
        for metric in write.metrics:
            series = run.series.get(metric[0])
            if series is not None and metric[1] <= series.latest[0]:
                wanted[series.series_id, *metric.point] = None
    return list(wanted)
