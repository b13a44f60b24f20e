"""Runs, their params and tags.

Deleting an experiment deletes its runs without touching them: a run is deleted when its own row says so, or
when its experiment is. `outlived_ms` marks a run that was restored by itself out of a deleted experiment: it
holds the moment of that deletion.

Whoever looks up a run by an id does so for a request that gave it: the transaction takes note
(`Transaction.named`), for a run that was named cannot be one whose creator missed the answer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from server.database.engine import Transaction
from server.database.ids import NumberedKey, take_ids
from server.database.together import Change
from server.database.together import insert as insert_rows
from server.domain.entities import LifecycleStage, RunInfo, RunStatus
from server.domain.fact_names import RESTORED_AT

STAGE = (
    "CASE WHEN runs.lifecycle_stage = 'active' AND EXISTS (SELECT 1 FROM experiments"
    " WHERE experiments.experiment_id = runs.experiment_id AND experiments.lifecycle_stage = 'deleted'"
    " AND coalesce(runs.outlived_ms, 0) <> experiments.last_update_time_ms)"
    " THEN 'deleted' ELSE runs.lifecycle_stage END"
)
"""A run's lifecycle stage, in a query from `runs`."""

INFO = (
    f"run_pk, run_id, experiment_id, name, user_id, status, start_time_ms, end_time_ms, artifact_uri, {STAGE}"
)

_RUN_PK = NumberedKey("runs", "run_pk")
_LANE_ID = NumberedKey("lanes", "lane_id")
_INSERT_TAG = insert_rows("tags", {"run_pk": "BIGINT", "key": "TEXT", "value": "TEXT"})
_INSERT_RUN = insert_rows(
    "runs",
    {
        "run_pk": "BIGINT",
        "run_id": "TEXT",
        "experiment_id": "BIGINT",
        "name": "TEXT",
        "user_id": "TEXT",
        "status": "TEXT",
        "start_time_ms": "BIGINT",
        "artifact_uri": "TEXT",
        "lifecycle_stage": "TEXT",
        "parent_run_id": "TEXT",
        "born": "TEXT",
        "created_at_ms": "BIGINT",
        "principal": "TEXT",
        "data_lane_id": "BIGINT",
        "artifact_lane_id": "BIGINT",
    },
)
_BORN_HERE = "proxy"
_VERSIONED = (
    f"SELECT {INFO}, run_id, data_lane_id, lanes.last_position,"
    f" (SELECT value FROM facts WHERE facts.name = '{RESTORED_AT}'),"
    " EXISTS (SELECT 1 FROM dataset_inputs WHERE dataset_inputs.run_pk = runs.run_pk)"
    " OR EXISTS (SELECT 1 FROM run_models WHERE run_models.run_pk = runs.run_pk)"
    " FROM runs JOIN lanes ON lanes.lane_id = data_lane_id WHERE run_pk"
)
_INFO_COLUMNS = 10
_PARENTS = (
    "SELECT runs.run_id, runs.data_lane_id, lanes.settled_position, runs.upstream_id"
    " FROM runs JOIN lanes ON lanes.lane_id = runs.data_lane_id"
)


RunVersion = tuple[str, int, int, str | None]
"""What moves whenever the metrics, params or tags of a run do, until its removal begins.

Its id, its data lane and that lane's last position, since each such change is promised to the workspace in
the transaction that makes it; and the moment of the last restore, since a restored journal gives positions
out again.
"""


@dataclass(frozen=True, slots=True)
class VersionedRun:
    """A run as a snapshot shows it. `has_links`: to datasets or logged models, which have no version."""

    info: RunInfo
    version: RunVersion
    has_links: bool


@dataclass(frozen=True, slots=True)
class RunLanes:
    """Where a run stands in the journal."""

    run_pk: int
    run_id: str
    experiment_id: int
    data_lane: int
    artifact_lane: int
    lifecycle_stage: LifecycleStage
    overflow_lane: int | None

    @property
    def all_lanes(self) -> list[int]:
        """Every lane the run has; the one for overflow only if anything has overflowed."""
        own = [self.data_lane, self.artifact_lane]
        return own if self.overflow_lane is None else [*own, self.overflow_lane]


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


@dataclass(frozen=True, slots=True)
class RunKeys:
    """What a new run is referred to by: numbers that were taken for it."""

    run_pk: int
    data_lane: int
    artifact_lane: int


@dataclass(frozen=True, slots=True)
class Parent:
    """What a new run needs to know of its parent: its data lane, and the position that this has settled."""

    data_lane: int
    settled: int


def info_of(row: Sequence[Any]) -> RunInfo:
    """The run whose `INFO` columns these are."""
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
    rows = transaction.rows(f"SELECT {INFO} FROM runs WHERE run_id = ?", (run_id,))
    if not rows:
        rows = transaction.rows(f"SELECT {INFO} FROM runs WHERE upstream_id = ?", (run_id,))
    if not rows:
        return None
    info = info_of(rows[0])
    transaction.named.add(info.run_id)
    return info


def find_lanes(transaction: Transaction, run_id: str) -> RunLanes | None:
    """The place in the journal of the run that has this id here, or in the workspace."""
    found = find_home(transaction, run_id)
    return None if found is None else found[1]


def find_home(transaction: Transaction, run_id: str) -> tuple[str, RunLanes] | None:
    """The artifact URI and the place in the journal of the run that has this id here, or in the workspace."""
    select = (
        f"SELECT artifact_uri, run_pk, run_id, experiment_id, data_lane_id, artifact_lane_id, {STAGE},"
        " overflow_lane_id FROM runs WHERE "
    )
    rows = transaction.rows(f"{select}run_id = ?", (run_id,))
    if not rows:
        rows = transaction.rows(f"{select}upstream_id = ?", (run_id,))
    if not rows:
        return None
    artifact_uri, run_pk, run_id, experiment_id, data_lane, artifact_lane, stage, overflow_lane = rows[0]
    transaction.named.add(run_id)
    return artifact_uri, RunLanes(
        run_pk, run_id, experiment_id, data_lane, artifact_lane, LifecycleStage(stage), overflow_lane
    )


def find_parents(transaction: Transaction, run_ids: Iterable[str]) -> dict[str, Parent]:
    """The runs that have these ids here, or in the workspace, by the id that was given."""
    wanted = set(run_ids)
    rows = transaction.rows_in(f"{_PARENTS} WHERE run_id", wanted)
    found = {row[0]: Parent(row[1], row[2]) for row in rows}
    if missing := wanted - found.keys():
        foreign = transaction.rows_in(f"{_PARENTS} WHERE upstream_id", missing)
        found |= {row[3]: Parent(row[1], row[2]) for row in foreign}
        rows += foreign
    transaction.named.update(row[0] for row in rows)
    return found


def data_lane_of(transaction: Transaction, run_pk: int) -> int:
    """The lane of a run's own data."""
    return int(transaction.rows("SELECT data_lane_id FROM runs WHERE run_pk = ?", (run_pk,))[0][0])


def list_infos(transaction: Transaction, run_pks: Sequence[int]) -> list[RunInfo]:
    """The runs, in the order asked for."""
    found = {row[0]: row for row in transaction.rows_in(f"SELECT {INFO} FROM runs WHERE run_pk", run_pks)}
    return [info_of(found[run_pk]) for run_pk in run_pks if run_pk in found]


def list_versioned(transaction: Transaction, run_pks: Sequence[int]) -> list[VersionedRun]:
    """The runs with their versions, in the order asked for; in as many statements as without these."""
    found = {row[0]: row for row in transaction.rows_in(_VERSIONED, run_pks)}
    return [_versioned(found[run_pk]) for run_pk in run_pks if run_pk in found]


def _versioned(row: Sequence[Any]) -> VersionedRun:
    *version, has_links = row[_INFO_COLUMNS:]
    run_id, data_lane, last_position, restored_at = version
    return VersionedRun(
        info_of(row[:_INFO_COLUMNS]), (run_id, data_lane, last_position, restored_at), bool(has_links)
    )


def find_pks(transaction: Transaction, run_ids: Iterable[str]) -> dict[str, int]:
    """Run id → run_pk, for those that exist."""
    found = find_made(transaction, run_ids)
    transaction.named.update(found)
    return found


def find_made(transaction: Transaction, run_ids: Iterable[str]) -> dict[str, int]:
    """Like `find_pks`, for ids that no request named: the proxy itself remembers them."""
    rows = transaction.rows_in("SELECT run_id, run_pk FROM runs WHERE run_id", run_ids)
    return {row[0]: row[1] for row in rows}


def list_params(transaction: Transaction, run_pks: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
    """All params of these runs."""
    return _grouped(transaction.rows_in("SELECT run_pk, key, value FROM params WHERE run_pk", run_pks))


def list_tags(transaction: Transaction, run_pks: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
    """All tags of these runs."""
    return _grouped(transaction.rows_in("SELECT run_pk, key, value FROM tags WHERE run_pk", run_pks))


def set_tag(transaction: Transaction, run_pk: int, key: str, value: str) -> None:
    """Set one tag."""
    transaction.run(
        "INSERT INTO tags (run_pk, key, value) VALUES (?, ?, ?)"
        " ON CONFLICT (run_pk, key) DO UPDATE SET value = excluded.value",
        (run_pk, key, value),
    )


def _grouped(rows: list[tuple[Any, ...]]) -> dict[int, list[tuple[str, str]]]:
    grouped: dict[int, list[tuple[str, str]]] = {}
    for run_pk, key, value in rows:
        grouped.setdefault(run_pk, []).append((key, value))
    return grouped


def take_keys(transaction: Transaction, count: int) -> list[RunKeys]:
    """Keys for so many new runs; on SQLite they are to be used before others are taken."""
    run_pks, lane_ids = take_ids(transaction, [(_RUN_PK, count), (_LANE_ID, 2 * count)])
    return [RunKeys(*keys) for keys in zip(run_pks, lane_ids[::2], lane_ids[1::2], strict=True)]


def inserted(transaction: Transaction, new: Iterable[tuple[NewRun, RunKeys]]) -> list[Change]:
    """What stores new runs with their tags."""
    rows, tags = [], []
    for run, keys in new:
        rows.append(
            (
                keys.run_pk,
                run.run_id,
                run.experiment_id,
                run.name,
                run.user_id,
                run.status.value,
                run.start_time_ms,
                run.artifact_uri,
                LifecycleStage.ACTIVE.value,
                run.parent_run_id,
                _BORN_HERE,
                transaction.now_ms,
                run.principal,
                keys.data_lane,
                keys.artifact_lane,
            )
        )
        tags += [(keys.run_pk, key, value) for key, value in run.tags]
    return [(_INSERT_RUN, rows), (_INSERT_TAG, tags)]


def set_lifecycle_stage(
    transaction: Transaction, run_pks: Sequence[int], stage: LifecycleStage, deleted_at_ms: int | None
) -> None:
    """Delete or restore runs by themselves, softly. One restored outlives the deletion of its experiment."""
    outlived = "NULL"
    if stage is LifecycleStage.ACTIVE:
        outlived = (
            "(SELECT last_update_time_ms FROM experiments WHERE experiments.experiment_id ="
            " runs.experiment_id AND experiments.lifecycle_stage = 'deleted')"
        )
    transaction.run_many(
        f"UPDATE runs SET lifecycle_stage = ?, deleted_at_ms = ?, outlived_ms = {outlived} WHERE run_pk = ?",
        [(stage.value, deleted_at_ms, run_pk) for run_pk in run_pks],
    )
