"""Finding what a client means: ids here or in the workspace, experiments and runs that must exist."""

import re

from server.database.engine import Transaction
from server.domain.entities import Experiment, LifecycleStage, RunInfo
from server.domain.errors import does_not_exist, invalid_parameter
from server.store import experiments, runs
from server.store.experiments import Home
from server.store.runs import RunLanes

DEFAULT_EXPERIMENT_ID = 0
_LARGEST_ID = 2**63 - 1
_LOCAL_ID = re.compile(r"-?[0-9]{1,19}")


def resolve_experiment_id(transaction: Transaction, text: str) -> int:
    """The local id for a local (decimal) or upstream id.

    Raises:
        MlflowError: it is neither.
    """
    if _LOCAL_ID.fullmatch(text) and abs(int(text)) <= _LARGEST_ID:
        return int(text)
    found = experiments.find_id_by_upstream_id(transaction, text)
    if found is None:
        raise invalid_parameter(f"Invalid experiment ID '{text}'. Experiment ID must be a valid integer.")
    return found


def get_experiment(transaction: Transaction, text: str) -> Experiment:
    """The experiment, deleted or not.

    Raises:
        MlflowError: there is none.
    """
    experiment_id = resolve_experiment_id(transaction, text)
    experiment = experiments.find(transaction, experiment_id)
    if experiment is None:
        raise does_not_exist(f"No Experiment with id={text} exists")
    return experiment


def require_active_experiment(experiment: Experiment | Home) -> None:
    """Refuse a change inside a deleted experiment."""
    if experiment.lifecycle_stage is not LifecycleStage.ACTIVE:
        raise invalid_parameter(
            f"The experiment {experiment.experiment_id} must be in the 'active' state. "
            f"Current state is {experiment.lifecycle_stage.value}."
        )


def get_run(transaction: Transaction, run_id: str) -> RunInfo:
    """The run, deleted or not.

    Raises:
        MlflowError: there is none.
    """
    info = runs.find_info(transaction, run_id)
    if info is None:
        raise does_not_exist(f"Run with id={run_id} not found")
    return info


def get_run_lanes(transaction: Transaction, run_id: str) -> RunLanes:
    """The run's place in the journal.

    Raises:
        MlflowError: there is no such run.
    """
    lanes = runs.find_lanes(transaction, run_id)
    if lanes is None:
        raise does_not_exist(f"Run with id={run_id} not found")
    return lanes


def require_active_run(lanes: RunLanes) -> None:
    """Refuse a change to a deleted run."""
    if lanes.lifecycle_stage is not LifecycleStage.ACTIVE:
        raise invalid_parameter(
            f"The run {lanes.run_id} must be in the 'active' state. "
            f"Current state is {lanes.lifecycle_stage.value}."
        )
