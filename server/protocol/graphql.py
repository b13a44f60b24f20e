"""Messages of /graphql: what the UI's few queries ask for, and their answers in GraphQL's spelling.

Names are in camel case, 64-bit numbers are strings, every object tells its type, and NaN is null.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from server.domain.errors import MlflowError
from server.protocol.experiments import ExperimentMessage, TagMessage
from server.protocol.registry import ModelVersionMessage
from server.protocol.runs import (
    DatasetInputMessage,
    MetricAnswer,
    RunDataMessage,
    RunInfoMessage,
    RunInputsMessage,
    RunMessage,
    RunOutputsMessage,
)
from server.protocol.wire import Request

JsonObject = dict[str, Any]

_OPERATION = re.compile(r"\bquery\s+(\w+)")


class GraphQLRequest(Request, rename="camel"):
    """A GraphQL request. The operation's name stands for its query, whose text is not interpreted."""

    operation_name: str | None = None
    query: str = ""
    variables: JsonObject | None = None

    @property
    def named_operation(self) -> str:
        """The operation's name; where it is not given apart, the one in the query."""
        if self.operation_name:
            return self.operation_name
        match = _OPERATION.search(self.query)
        return match.group(1) if match else ""


class ExperimentInput(Request, rename="camel"):
    """MlflowGetExperimentInput."""

    experiment_id: str = ""


class RunInput(Request, rename="camel"):
    """MlflowGetRunInput."""

    run_id: str = ""
    run_uuid: str = ""


class SearchRunsInput(Request, rename="camel"):
    """MlflowSearchRunsInput."""

    experiment_ids: list[str] | None = None
    filter: str | None = None
    run_view_type: str | None = None
    max_results: int | None = None
    order_by: list[str] | None = None
    page_token: str | None = None


class MetricHistoryInput(Request, rename="camel"):
    """MlflowGetMetricHistoryBulkIntervalInput."""

    run_ids: list[str] | None = None
    metric_key: str | None = None
    start_step: int | None = None
    end_step: int | None = None
    max_results: int | None = None


def response(type_name: str, content: JsonObject, error: MlflowError | None = None) -> JsonObject:
    """The answer to one operation: its content, or why there is none."""
    return {"__typename": type_name, **content, "apiError": None if error is None else _api_error(error)}


def _api_error(error: MlflowError) -> JsonObject:
    return {"__typename": "ApiError", "code": error.code.value, "message": error.message, "helpUrl": None}


def experiment(message: ExperimentMessage) -> JsonObject:
    """MlflowExperiment."""
    return {
        "__typename": "MlflowExperiment",
        "experimentId": message.experiment_id,
        "name": message.name,
        "artifactLocation": message.artifact_location,
        "lifecycleStage": message.lifecycle_stage,
        "creationTime": str(message.creation_time),
        "lastUpdateTime": str(message.last_update_time),
        "effectiveTraceArchivalRetention": None,
        "tags": _pairs("MlflowExperimentTag", message.tags),
    }


def run(
    message: RunMessage, of_experiment: JsonObject | None, versions: Sequence[ModelVersionMessage]
) -> JsonObject:
    """MlflowRunExtension: a run with its experiment and the model versions made from it."""
    return {
        "__typename": "MlflowRunExtension",
        "info": _run_info(message.info),
        "experiment": of_experiment,
        "modelVersions": [_model_version(version) for version in versions],
        "data": _run_data(message.data),
        "inputs": _run_inputs(message.inputs),
        "outputs": _run_outputs(message.outputs),
    }


def metric_with_run(message: MetricAnswer) -> JsonObject:
    """MlflowMetricWithRunId."""
    return {**_metric(message), "__typename": "MlflowMetricWithRunId", "runId": message.run_id}


def _run_info(info: RunInfoMessage) -> JsonObject:
    return {
        "__typename": "MlflowRunInfo",
        "runId": info.run_id,
        "runUuid": info.run_uuid,
        "runName": info.run_name,
        "experimentId": info.experiment_id,
        "userId": info.user_id,
        "status": info.status,
        "startTime": _long(info.start_time),
        "endTime": _long(info.end_time),
        "artifactUri": info.artifact_uri,
        "lifecycleStage": info.lifecycle_stage,
    }


def _run_data(data: RunDataMessage) -> JsonObject:
    return {
        "__typename": "MlflowRunData",
        "metrics": [_metric(metric) for metric in data.metrics],
        "params": _pairs("MlflowParam", data.params),
        "tags": _pairs("MlflowRunTag", data.tags),
    }


def _metric(metric: MetricAnswer) -> JsonObject:
    return {
        "__typename": "MlflowMetricExtension",
        "key": metric.key,
        "value": None if metric.value == "NaN" else metric.value,
        "timestamp": str(metric.timestamp),
        "step": str(metric.step or 0),
    }


def _run_inputs(inputs: RunInputsMessage) -> JsonObject:
    return {
        "__typename": "MlflowRunInputs",
        "datasetInputs": [_dataset_input(item) for item in inputs.dataset_inputs],
        "modelInputs": [
            {"__typename": "MlflowModelInput", "modelId": model.model_id} for model in inputs.model_inputs
        ],
    }


def _dataset_input(item: DatasetInputMessage) -> JsonObject:
    dataset = item.dataset
    return {
        "__typename": "MlflowDatasetInput",
        "tags": _pairs("MlflowInputTag", item.tags),
        "dataset": None
        if dataset is None
        else {
            "__typename": "MlflowDataset",
            "name": dataset.name,
            "digest": dataset.digest,
            "sourceType": dataset.source_type,
            "source": dataset.source,
            "schema": dataset.schema,
            "profile": dataset.profile,
        },
    }


def _run_outputs(outputs: RunOutputsMessage | None) -> JsonObject:
    models = [] if outputs is None else outputs.model_outputs
    return {
        "__typename": "MlflowRunOutputs",
        "modelOutputs": [
            {"__typename": "MlflowModelOutput", "modelId": model.model_id, "step": str(model.step)}
            for model in models
        ],
    }


def _model_version(version: ModelVersionMessage) -> JsonObject:
    return {
        "__typename": "MlflowModelVersion",
        "name": version.name,
        "version": version.version,
        "status": version.status,
        "source": version.source,
        "runId": version.run_id,
        "creationTimestamp": str(version.creation_timestamp),
    }


def _pairs(type_name: str, pairs: Sequence[TagMessage]) -> list[JsonObject]:
    return [{"__typename": type_name, "key": pair.key, "value": pair.value} for pair in pairs]


def _long(value: int | None) -> str | None:
    return None if value is None else str(value)


def parse_input(request: GraphQLRequest, name: str, message_type: type[Any]) -> Any:
    """The operation's input, from the variable of that name.

    Raises:
        msgspec.ValidationError: it does not fit.
    """
    return msgspec.convert((request.variables or {}).get(name) or {}, message_type, strict=False)
