"""Parked operations of an experiment."""

from typing import assert_never

from server.domain.entities import LifecycleStage
from server.domain.operations import (
    CreateExperiment,
    DeleteExperiment,
    PurgeRun,
    RestoreExperiment,
    SetExperimentTag,
)
from server.journal.barriers import ALL_RUNS_SETTLED
from server.services.retrying.judgements import (
    Ground,
    Judgement,
    Resend,
    Superseded,
    Unsendable,
    kept_if,
)
from server.store import experiments

ExperimentOperation = CreateExperiment | DeleteExperiment | RestoreExperiment | SetExperimentTag | PurgeRun


def judge_experiment_operation(ground: Ground, operation: ExperimentOperation) -> Judgement:
    """What to do with a parked operation of an experiment."""
    experiment = experiments.find(ground.transaction, operation.experiment_id)
    if experiment is None:
        return Unsendable("The experiment is not in the store.")
    is_deleted = experiment.lifecycle_stage is LifecycleStage.DELETED
    match operation:
        case CreateExperiment() | PurgeRun():
            return Resend(operation)
        case DeleteExperiment():
            if not is_deleted:
                return Superseded("The experiment was restored since.")
            return Resend(operation, awaits=(ALL_RUNS_SETTLED,))
        case RestoreExperiment():
            return kept_if(not is_deleted, operation, "The experiment was deleted since.")
        case SetExperimentTag(_, key, value):
            is_current = any((tag.key, tag.value) == (key, value) for tag in experiment.tags)
            return kept_if(is_current, operation, f"The tag {key!r} was changed or deleted since.")
        case _:
            assert_never(operation)
