"""Parked operations of a run: its data, its files, its overflow."""

from typing import assert_never

from server.domain.entities import LifecycleStage, RunInfo, RunStatus
from server.domain.operations import (
    CreateRun,
    DeleteArtifact,
    DeleteRun,
    DeleteTag,
    DeliverOverflow,
    LogParam,
    LogPoint,
    RestoreRun,
    SetTag,
    UpdateRun,
    UploadArtifact,
)
from server.journal import overflow
from server.services.retrying.judgements import (
    Ground,
    Judgement,
    Resend,
    Superseded,
    Unsendable,
    kept_if,
)
from server.store import artifacts, runs

RunOperation = (
    CreateRun
    | UpdateRun
    | DeleteRun
    | RestoreRun
    | LogParam
    | SetTag
    | DeleteTag
    | LogPoint
    | UploadArtifact
    | DeleteArtifact
    | DeliverOverflow
)


def judge_run_operation(ground: Ground, run_pk: int, operation: RunOperation) -> Judgement:
    """What to do with a parked operation of a run."""
    info = next(iter(runs.list_infos(ground.transaction, [run_pk])), None)
    if info is None:
        return Unsendable("The run is not in the store.")
    match operation:
        case CreateRun():
            return _create(ground, info, operation)
        case UpdateRun():
            return _update(ground, info, operation)
        case DeleteRun():
            if info.lifecycle_stage is not LifecycleStage.DELETED:
                return Superseded("The run was restored since.")
            return Resend(operation, awaits_end_of=(_artifact_lane(ground, run_pk),))
        case RestoreRun():
            is_active = info.lifecycle_stage is LifecycleStage.ACTIVE
            return kept_if(is_active, operation, "The run was deleted since.")
        case LogParam():
            return Resend(operation)
        case SetTag(key, value):
            is_current = _tag(ground, run_pk, key) == value
            return kept_if(is_current, operation, f"The tag {key!r} was changed or deleted since.")
        case DeleteTag(key):
            is_gone = _tag(ground, run_pk, key) is None
            return kept_if(is_gone, operation, f"The tag {key!r} was set again since.")
        case LogPoint():
            return _log_point(ground, run_pk, operation)
        case UploadArtifact():
            return _upload(ground, run_pk, operation)
        case DeleteArtifact():
            return _delete_artifact(ground, operation)
        case DeliverOverflow(file_number):
            is_there = overflow.is_delivered(ground.transaction, run_pk, file_number)
            return kept_if(not is_there, operation, "The overflow file was delivered since.")
        case _:
            assert_never(operation)


def _create(ground: Ground, info: RunInfo, operation: CreateRun) -> Judgement:
    """A run is made after its experiment, and a child after a parent that is still on its way."""
    upstream_experiment, experiment_lane = ground.transaction.rows(
        "SELECT upstream_id, lane_id FROM experiments WHERE experiment_id = ?", (info.experiment_id,)
    )[0]
    parent_lane = ground.value(
        "SELECT data_lane_id FROM runs WHERE run_id = ?", operation.parent_run_id or ""
    )
    return Resend(
        operation,
        awaits=() if parent_lane is None else ground.creates_of([parent_lane]),
        awaits_end_of=(experiment_lane,) if upstream_experiment is None else (),
    )


def _update(ground: Ground, info: RunInfo, operation: UpdateRun) -> Judgement:
    """Of what it changed, what still stands."""
    status = operation.status if operation.status == info.status.value else None
    end_time_ms = operation.end_time_ms if operation.end_time_ms == info.end_time_ms else None
    name = operation.name if operation.name == info.name else None
    if status is None and end_time_ms is None and name is None:
        return Superseded("The run's status, end and name were changed since.")
    ends = status is not None and RunStatus(status).is_terminal
    awaited = (_artifact_lane(ground, info.run_pk),) if ends else ()
    return Resend(UpdateRun(status, end_time_ms, name), awaits_end_of=awaited)


def _log_point(ground: Ground, run_pk: int, operation: LogPoint) -> Judgement:
    series_id = ground.value(
        "SELECT series_id FROM series WHERE run_pk = ? AND key = ?", run_pk, operation.key
    )
    if series_id is None:
        return Unsendable("The store has no such metric.")
    is_nan = operation.value is None
    value = 0.0 if operation.value is None else operation.value
    point = (series_id, operation.step, operation.timestamp_ms, value, int(is_nan))
    return Resend(operation, point)


def _upload(ground: Ground, run_pk: int, operation: UploadArtifact) -> Judgement:
    file = artifacts.find(ground.transaction, operation.root_id, operation.path)
    if file is None or (file.md5, file.size_bytes) != (operation.md5, operation.size_bytes):
        return Superseded("The file was replaced or deleted since.")
    if file.upstream_path is not None:
        return Superseded("The workspace has the file.")
    if file.content is None and (file.spool_name is None or not ground.has_bytes(file.spool_name)):
        return Unsendable("The spool has lost the file's bytes.")
    return Resend(operation, awaits=ground.creates_of([_data_lane(ground, run_pk)]))


def _delete_artifact(ground: Ground, operation: DeleteArtifact) -> Judgement:
    is_back = artifacts.is_occupied(ground.transaction, operation.root_id, operation.upstream_path)
    return kept_if(not is_back, operation, "A file was stored under the same path since.")


def _tag(ground: Ground, run_pk: int, key: str) -> str | None:
    found: str | None = ground.value("SELECT value FROM tags WHERE run_pk = ? AND key = ?", run_pk, key)
    return found


def _data_lane(ground: Ground, run_pk: int) -> int:
    return int(ground.value("SELECT data_lane_id FROM runs WHERE run_pk = ?", run_pk))


def _artifact_lane(ground: Ground, run_pk: int) -> int:
    return int(ground.value("SELECT artifact_lane_id FROM runs WHERE run_pk = ?", run_pk))
