"""Finding the judge for an operation."""

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
from server.services.retrying.experiments import judge_experiment_operation
from server.services.retrying.judgements import Ground, Judgement
from server.services.retrying.models import judge_model_operation, judge_version_operation
from server.services.retrying.runs import judge_run_operation


def judge(ground: Ground, subject_id: int, operation: Operation) -> Judgement:
    """What to do with a parked operation; `subject_id` is what its lane belongs to."""
    match operation:
        case CreateExperiment() | DeleteExperiment() | RestoreExperiment() | SetExperimentTag() | PurgeRun():
            return judge_experiment_operation(ground, operation)
        case (
            CreateRun()
            | UpdateRun()
            | DeleteRun()
            | RestoreRun()
            | LogParam()
            | SetTag()
            | DeleteTag()
            | LogPoint()
            | UploadArtifact()
            | DeleteArtifact()
            | DeliverOverflow()
        ):
            return judge_run_operation(ground, subject_id, operation)
        case (
            CreateRegisteredModel()
            | UpdateRegisteredModel()
            | SetRegisteredModelTag()
            | DeleteRegisteredModelTag()
        ):
            return judge_model_operation(ground, subject_id, operation)
        case (
            CreateModelVersion()
            | UpdateModelVersion()
            | TransitionModelVersion()
            | SetModelVersionTag()
            | DeleteModelVersionTag()
            | DeleteModelVersion()
        ):
            return judge_version_operation(ground, subject_id, operation)
        case _:
            assert_never(operation)
