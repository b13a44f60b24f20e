"""What a group of writes to runs reads before any of them is decided, in a few set-based statements."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.commit.run_requests import RunWrite
from server.database.engine import Transaction
from server.database.together import text_array
from server.domain.entities import RunInfo
from server.journal.lanes import lock_lanes
from server.store import metrics as metric_rows
from server.store.metrics import PointKey, SeriesState
from server.store.runs import INFO, info_of

_RUNS = f"SELECT {INFO}, data_lane_id, artifact_lane_id, upstream_id FROM runs"
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
class RunState:
    """A run's state, as the group's requests so far leave it. `series` holds those that they name."""

    run_pk: int
    info: RunInfo
    data_lane: int
    artifact_lane: int
    changed: bool = False
    series: dict[str, SeriesState] = field(default_factory=dict)


@dataclass(slots=True)
class GroupState:
    """What the group reads at the start and then carries on."""

    runs: dict[str, RunState]
    positions: dict[int, int]
    params: dict[tuple[int, str], str] = field(default_factory=dict)
    present_tags: set[tuple[int, str]] = field(default_factory=set)
    known_points: set[PointKey] = field(default_factory=set)


def read_state(transaction: Transaction, group: Sequence[RunWrite]) -> GroupState:
    """The state of all the group's runs, whose lanes are held from here on."""
    wanted = dict.fromkeys(write.run_id for write in group)
    ending = {write.run_id for write in group if write.update is not None}
    # Lanes first: what is read before their lock, which may wait for another replica, can be old.
    positions = _lock_lanes_of(transaction, wanted, ending) if transaction.is_postgres else {}
    runs = _find_runs(transaction, wanted)
    lane_ids = {run.data_lane for run in runs.values()}
    lane_ids |= {runs[run_id].artifact_lane for run_id in ending if run_id in runs}
    if others := lane_ids - positions.keys():
        positions |= lock_lanes(transaction, others)
        if transaction.is_postgres:  # these runs were named by their ids in the workspace
            runs = _find_runs(transaction, runs)
    state = GroupState(runs, positions)
    _read_values(transaction, group, state)
    return state


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
            found[row[-1]] = found.get(run.info.run_id, run)
    transaction.named.update(run.info.run_id for run in found.values())
    return found


def _run_of(row: tuple[Any, ...]) -> RunState:
    *info, data_lane, artifact_lane, _ = row
    run = info_of(info)
    return RunState(run.run_pk, run, data_lane, artifact_lane)


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
        for key in {metric[0] for metric in write.metrics}:
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
