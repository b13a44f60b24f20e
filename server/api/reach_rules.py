"""How to find out what a request names: one small function for each way of naming.

Each takes the decoded message, None where the route's handler reads the request itself. Such a handler
comes back with what it has read.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from server.api.artifacts import artifact_path
from server.api.direct_artifacts import upload_target
from server.api.endpoints import Call
from server.domain.errors import invalid_parameter
from server.domain.named import (
    ExperimentName,
    Named,
    NamedArtifact,
    NamedDataset,
    NamedExperiment,
    NamedLoggedModel,
    NamedRun,
    NamedSource,
    NamedTrace,
    NamedTraceFiles,
    NamedVersion,
    NamedVersionFiles,
)
from server.protocol import artifacts as artifact_messages
from server.protocol import graphql as graphql_messages
from server.protocol import traces as trace_messages
from server.protocol.wire import Decoder, RunRequest, require

Reach = Callable[[Call, Any], Iterable[Named]]
"""Finds what a request names."""

DEFAULT_EXPERIMENT = "0"


def nothing(call: Call, message: Any) -> Iterable[Named]:
    """Nothing of any experiment, or only what the service itself filters by the key's limit."""
    return ()


def experiment(call: Call, message: Any) -> Iterable[Named]:
    """The experiment of the message."""
    return [NamedExperiment(require("experiment_id", message.experiment_id))]


def some_experiments(call: Call, message: Any) -> Iterable[Named]:
    """To name none might mean all of them."""
    if not message.experiment_ids:
        raise invalid_parameter("Your key is limited to some experiments: name those that you mean.")
    return map(NamedExperiment, message.experiment_ids)


def run(call: Call, message: RunRequest) -> Iterable[Named]:
    """The run of the message, under either of its names."""
    return [NamedRun(message.named_run)]


def run_in_path(call: Call, message: Any) -> Iterable[Named]:
    """The run that the path holds."""
    return [NamedRun(call.path_params["run_id"])]


# Runs.


def new_run(call: Call, message: Any) -> Iterable[Named]:
    """The experiment that the run is made in."""
    return [NamedExperiment(message.experiment_id or DEFAULT_EXPERIMENT)]


def run_and_model(call: Call, message: Any) -> Iterable[Named]:
    """The run, and the logged model that a point is of."""
    return [NamedRun(message.named_run), *_models([message.model_id])]


def run_and_models_of_metrics(call: Call, message: Any) -> Iterable[Named]:
    """The run, and the logged models that points are of."""
    return [NamedRun(message.named_run), *_models(metric.model_id for metric in message.metrics)]


def run_and_linked_models(call: Call, message: Any) -> Iterable[Named]:
    """The run, and the logged models that it used or made."""
    return [NamedRun(message.named_run), *_models(model.model_id for model in message.models)]


def _models(model_ids: Iterable[str | None]) -> Iterable[Named]:
    return [NamedLoggedModel(model_id, may_be_absent=True) for model_id in model_ids if model_id]


def listed_runs(run_ids: Iterable[str]) -> Iterable[Named]:
    """Runs of a list; those that do not exist are passed over."""
    return [NamedRun(run_id, may_be_absent=True) for run_id in run_ids]


def searched_experiments(call: Call, message: Any) -> Iterable[Named]:
    """Those that are searched; to name none finds nothing."""
    return map(NamedExperiment, message.experiment_ids)


def runs_of_bulk(call: Call, message: Any) -> Iterable[Named]:
    """The runs whose points are asked for."""
    return listed_runs(message.run_id)


def runs_of_interval(call: Call, message: Any) -> Iterable[Named]:
    """The runs whose points are asked for."""
    return listed_runs(message.run_ids)


# Experiments.


def experiment_name(call: Call, message: Any) -> Iterable[Named]:
    """The experiment that has this name."""
    return [ExperimentName(require("experiment_name", message.experiment_name))]


def new_experiment(call: Call, message: Any) -> Iterable[Named]:
    """The name that the experiment gets."""
    return [ExperimentName(require("name", message.name))]


def renamed_experiment(call: Call, message: Any) -> Iterable[Named]:
    """The experiment, and the name that it gets."""
    return [*experiment(call, message), ExperimentName(require("new_name", message.new_name))]


# Artifacts.


def artifact(call: Call, message: Any) -> Iterable[Named]:
    """The file that the path leads to."""
    return [NamedArtifact(artifact_path(call))]


def presigned_artifact(call: Call, message: Any) -> Iterable[Named]:
    """The file whose address is asked for."""
    return [NamedArtifact(artifact_path(call, "presigned"))]


def uploaded_to(kind: str) -> Reach:
    """Where the parts of a file are sent."""
    return lambda call, message: [NamedArtifact(upload_target(call, kind, message))]


def folder(call: Call, message: artifact_messages.FolderRequest) -> Iterable[Named]:
    """The folder that is listed; without a path, what all have in common."""
    return [NamedArtifact(message.path or "")]


_RUN_FILE = Decoder(artifact_messages.RunFileRequest)
_VERSION_FILE = Decoder(artifact_messages.ModelVersionFileRequest)
_TRACE_FILE = Decoder(trace_messages.TraceArtifactRequest)


def run_of_file(call: Call, message: Any) -> Iterable[Named]:
    """The run whose file it is."""
    return [NamedRun(_RUN_FILE.from_query(call.query).named_run)]


def version_of_file(call: Call, message: Any) -> Iterable[Named]:
    """The files of a model version."""
    request = _VERSION_FILE.from_query(call.query)
    return [NamedVersionFiles(require("name", request.name), str(request.version or 0))]


# The registry.


def version(call: Call, message: Any) -> Iterable[Named]:
    """A model version: it belongs where its source is."""
    return [NamedVersion(require("name", message.name), message.version)]


def new_version(call: Call, message: Any) -> Iterable[Named]:
    """What the version is made from."""
    return [NamedSource(message.source, message.run_id, message.model_id)]


# Logged models.


def new_logged_model(call: Call, message: Any) -> Iterable[Named]:
    """The experiment that the model is made in, and the run that made it."""
    source_run = listed_runs([message.source_run_id] if message.source_run_id else [])
    return [*experiment(call, message), *source_run]


def logged_model(call: Call, message: Any) -> Iterable[Named]:
    """The logged model that the path holds."""
    return [NamedLoggedModel(call.path_params["model_id"])]


# Traces.


def new_trace(call: Call, message: trace_messages.StartTraceRequest) -> Iterable[Named]:
    """The experiment that the trace lies in, and the trace, if it is there already."""
    info = message.trace.trace_info if message.trace else None
    place = info.trace_location.mlflow_experiment if info and info.trace_location else None
    if info is None or place is None:
        raise invalid_parameter("Your key is limited to some experiments: a trace must say in which it lies.")
    return [NamedExperiment(place.experiment_id), NamedTrace(info.trace_id, may_be_absent=True)]


def trace_locations(call: Call, message: trace_messages.SearchTracesRequest) -> Iterable[Named]:
    """The experiments that are searched."""
    places = [item.mlflow_experiment for item in message.locations or ()]
    return [NamedExperiment(place.experiment_id) for place in places if place is not None]


def trace(call: Call, message: Any) -> Iterable[Named]:
    """The trace of the message."""
    return [NamedTrace(require("trace_id", message.trace_id))]


def traces(call: Call, message: Any) -> Iterable[Named]:
    """Traces of a list; those that do not exist are passed over."""
    return [NamedTrace(trace_id, may_be_absent=True) for trace_id in message.trace_ids]


def trace_in_path(call: Call, message: Any) -> Iterable[Named]:
    """The trace that the path holds."""
    return [NamedTrace(call.path_params["trace_id"])]


def traces_and_run(call: Call, message: Any) -> Iterable[Named]:
    """The traces, and the run that they are linked to."""
    return [*traces(call, message), *listed_runs([message.run_id])]


def trace_of_file(call: Call, message: Any) -> Iterable[Named]:
    """The trace, and where its files are."""
    return [NamedTraceFiles(_TRACE_FILE.from_query(call.query).request_id)]


@dataclass(frozen=True, slots=True)
class SpanDelivery:
    """What an export of spans is about."""

    experiment_id: str
    trace_ids: frozenset[str]
    run_id: str | None


def spans(call: Call, message: SpanDelivery | None) -> Iterable[Named]:
    """The handler comes back with what it has decoded."""
    if message is None:
        return ()
    traces = [NamedTrace(trace_id, may_be_absent=True) for trace_id in message.trace_ids]
    return [
        NamedExperiment(message.experiment_id),
        *traces,
        *listed_runs([message.run_id] if message.run_id else []),
    ]


# Evaluation datasets and scorers.


def dataset(call: Call, message: Any) -> Iterable[Named]:
    """The evaluation dataset that the path holds."""
    return [NamedDataset(call.path_params["dataset_id"])]


def dataset_and_experiments(call: Call, message: Any) -> Iterable[Named]:
    """The evaluation dataset, and the experiments that it joins or leaves."""
    return [*dataset(call, message), *map(NamedExperiment, message.experiment_ids)]


def scorers(call: Call, message: Any) -> Iterable[Named]:
    """The experiments whose scorers are listed."""
    if message.experiment_id:
        return experiment(call, message)
    return some_experiments(call, message)


# GraphQL.


def graphql(call: Call, message: graphql_messages.GraphQLRequest | None) -> Iterable[Named]:
    """The handler comes back with what it has decoded. A query that is not known is not answered."""
    if message is None:
        return ()
    match message.named_operation:
        case "MlflowGetExperimentQuery":
            return [
                NamedExperiment(
                    graphql_messages.parse_input(
                        message, "input", graphql_messages.ExperimentInput
                    ).experiment_id
                )
            ]
        case "GetRun":
            run = graphql_messages.parse_input(message, "data", graphql_messages.RunInput)
            return [NamedRun(RunRequest(run_id=run.run_id, run_uuid=run.run_uuid).named_run)]
        case "SearchRuns":
            wanted = graphql_messages.parse_input(message, "data", graphql_messages.SearchRunsInput)
            return map(NamedExperiment, wanted.experiment_ids or ())
        case "GetMetricHistoryBulkInterval":
            history = graphql_messages.parse_input(message, "data", graphql_messages.MetricHistoryInput)
            return listed_runs(history.run_ids or ())
        case unknown:
            raise invalid_parameter(f"The server does not know the operation '{unknown}'.")
