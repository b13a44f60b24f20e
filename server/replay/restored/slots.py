"""What an operation leaves its value in, where the last write wins."""

from typing import assert_never

from server.domain.operations import (
    CreateExperiment,
    CreateModelVersion,
    CreateRegisteredModel,
    CreateRun,
    DeleteArtifact,
    DeleteExperiment,
    DeleteModelVersion,
    DeleteModelVersionTag,
    DeleteRegisteredModelTag,
    DeleteRun,
    DeleteTag,
    DeliverOverflow,
    LogParam,
    LogPoint,
    Operation,
    PurgeRun,
    RestoreExperiment,
    RestoreRun,
    SetExperimentTag,
    SetModelVersionTag,
    SetRegisteredModelTag,
    SetTag,
    TransitionModelVersion,
    UpdateModelVersion,
    UpdateRegisteredModel,
    UpdateRun,
    UploadArtifact,
)

Slot = tuple[str | int, ...]

_RUN_NAME_TAG = "mlflow.runName"
_NAME: tuple[Slot, ...] = (("name",), ("tag", _RUN_NAME_TAG))
_LIFECYCLE: Slot = ("lifecycle",)


def slots_of(operation: Operation) -> tuple[Slot, ...]:
    """The slots that an operation fills, within its lane; none for what is never overwritten."""
    match operation:
        case SetTag(key=key) | DeleteTag(key=key):
            return _NAME if key == _RUN_NAME_TAG else (("tag", key),)
        case UpdateRun():
            return _slots_of_update(operation)
        case DeleteRun() | RestoreRun() | DeleteExperiment() | RestoreExperiment():
            return (_LIFECYCLE,)
        case UploadArtifact(upstream_path=path) | DeleteArtifact(upstream_path=path):
            return (("file", path),)
        case SetExperimentTag(key=key) | SetRegisteredModelTag(key=key) | DeleteRegisteredModelTag(key=key):
            return (("tag", key),)
        case UpdateRegisteredModel():
            return (("description",),)
        case UpdateModelVersion(version=version):
            return (("description", version),)
        case TransitionModelVersion(version=version):
            return (("stage", version),)
        case SetModelVersionTag(version=version, key=key) | DeleteModelVersionTag(version=version, key=key):
            return (("tag", version, key),)
        case DeleteModelVersion(version=version):
            return (("version", version),)
        case (
            CreateExperiment()
            | PurgeRun()
            | CreateRun()
            | LogParam()
            | LogPoint()
            | DeliverOverflow()
            | CreateRegisteredModel()
            | CreateModelVersion()
        ):
            return ()
        case _:
            assert_never(operation)


def _slots_of_update(update: UpdateRun) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    if update.status is not None:
        slots.append(("status",))
    if update.end_time_ms is not None:
        slots.append(("end time",))
    if update.name is not None:
        slots.extend(_NAME)
    return tuple(slots)
