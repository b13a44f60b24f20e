"""Wire messages about experiments."""

import msgspec

from server.domain.entities import Experiment
from server.protocol.wire import Request

# MLflow's own workspaces, which have nothing to do with Azure's; without them there is only this one.
_MLFLOW_WORKSPACE = "default"


class TagMessage(msgspec.Struct, gc=False):
    """A key and a value, which are text: the garbage collector need not look at them."""

    key: str
    value: str = ""


class CreateExperimentRequest(Request):
    """experiments/create."""

    name: str = ""
    artifact_location: str | None = None
    tags: list[TagMessage] = []


class ExperimentRequest(Request):
    """A request that names an experiment by its id."""

    experiment_id: str = ""


class ExperimentByNameRequest(Request):
    """experiments/get-by-name."""

    experiment_name: str = ""


class UpdateExperimentRequest(ExperimentRequest):
    """experiments/update."""

    new_name: str | None = None


class SetExperimentTagRequest(ExperimentRequest):
    """experiments/set-experiment-tag."""

    key: str = ""
    value: str | None = None


class DeleteExperimentTagRequest(ExperimentRequest):
    """experiments/delete-experiment-tag."""

    key: str = ""


class SearchExperimentsRequest(Request):
    """experiments/search, and experiments/list of 1.x."""

    max_results: int | None = None
    page_token: str | None = None
    filter: str | None = None
    order_by: list[str] = []
    view_type: str | int | None = None


class ExperimentMessage(msgspec.Struct, omit_defaults=True):
    """An experiment in an answer."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    last_update_time: int
    creation_time: int
    workspace: str
    tags: list[TagMessage] = []


class ExperimentAnswer(msgspec.Struct):
    """experiments/get."""

    experiment: ExperimentMessage


class CreateExperimentAnswer(msgspec.Struct):
    """experiments/create."""

    experiment_id: str


class ExperimentsAnswer(msgspec.Struct, omit_defaults=True):
    """experiments/search."""

    experiments: list[ExperimentMessage] = []
    next_page_token: str | None = None


def experiment_message(experiment: Experiment) -> ExperimentMessage:
    """An experiment as clients see it."""
    return ExperimentMessage(
        str(experiment.experiment_id),
        experiment.name,
        experiment.artifact_location,
        experiment.lifecycle_stage.value,
        experiment.last_update_time_ms,
        experiment.creation_time_ms,
        _MLFLOW_WORKSPACE,
        [TagMessage(tag.key, tag.value) for tag in experiment.tags],
    )
