"""Wire messages about runs, and about what is logged to them."""

import math
from collections.abc import Sequence

import msgspec

from server.domain.entities import Metric, RunInfo
from server.domain.errors import invalid_parameter
from server.protocol import limits
from server.protocol.experiments import TagMessage
from server.protocol.wire import Request, RunRequest, missing_parameter

LARGEST_DOUBLE = 1.7976931348623157e308
PRINCIPAL_TAG = "mlproxy.user"
"""Who made a run, by the credential it was made with; absent where access control is off."""
Value = float | str | None
# A class made by NamedTuple unpacks its arguments in Python: a batch of a thousand points feels that.
_new_tuple = tuple.__new__


class MetricMessage(msgspec.Struct, kw_only=True, gc=False):
    """A metric point in a request. NaN and infinities come as strings."""

    key: str | None = None
    value: Value = None
    timestamp: int | None = None
    step: int | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class ParamMessage(msgspec.Struct, gc=False):
    """A param."""

    key: str | None = None
    value: str | None = None


class RunTagMessage(msgspec.Struct, gc=False):
    """A run's tag in a request."""

    key: str | None = None
    value: str | None = None


class CreateRunRequest(Request):
    """runs/create."""

    experiment_id: str | None = None
    user_id: str | None = None
    run_name: str | None = None
    start_time: int | None = None
    tags: list[RunTagMessage] = []


class GetRunRequest(RunRequest):
    """runs/get."""


class RunIdRequest(RunRequest):
    """runs/delete and runs/restore."""


class UpdateRunRequest(RunRequest):
    """runs/update. Clients send the status by name; its protobuf number is understood too."""

    status: str | int | None = None
    end_time: int | None = None
    run_name: str | None = None


class LogMetricRequest(RunRequest):
    """runs/log-metric."""

    key: str | None = None
    value: Value = None
    timestamp: int | None = None
    step: int | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class LogParamRequest(RunRequest):
    """runs/log-parameter."""

    key: str | None = None
    value: str | None = None


class SetTagRequest(RunRequest):
    """runs/set-tag."""

    key: str | None = None
    value: str | None = None


class DeleteTagRequest(RunRequest):
    """runs/delete-tag."""

    key: str | None = None


class LogBatchRequest(RunRequest):
    """runs/log-batch."""

    metrics: list[MetricMessage] = []
    params: list[ParamMessage] = []
    tags: list[RunTagMessage] = []


class LogModelRequest(RunRequest):
    """runs/log-model (clients of 1.x and 2.x)."""

    model_json: str | None = None


class SearchRunsRequest(Request):
    """runs/search."""

    experiment_ids: list[str] = []
    filter: str | None = None
    run_view_type: str | int | None = None
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str | None = None


class DatasetMessage(msgspec.Struct, omit_defaults=True):
    """A dataset that a run used."""

    name: str | None = None
    digest: str | None = None
    source_type: str | None = None
    source: str | None = None
    schema: str | None = None
    profile: str | None = None


class DatasetInputMessage(msgspec.Struct, omit_defaults=True):
    """A dataset with the tags of its use."""

    tags: list[TagMessage] = []
    dataset: DatasetMessage | None = None


class ModelInputMessage(msgspec.Struct):
    """A logged model that a run used."""

    model_id: str


class ModelOutputMessage(msgspec.Struct):
    """A logged model that a run made."""

    model_id: str
    step: int = 0


class LogInputsRequest(RunRequest):
    """runs/log-inputs."""

    datasets: list[DatasetInputMessage] = []
    models: list[ModelInputMessage] = []


class LogOutputsRequest(RunRequest):
    """runs/outputs."""

    models: list[ModelOutputMessage] = []


class RunInfoMessage(msgspec.Struct, omit_defaults=True):
    """A run without its data."""

    run_uuid: str
    experiment_id: str
    run_name: str
    user_id: str
    status: str
    artifact_uri: str
    lifecycle_stage: str
    run_id: str
    start_time: int | None = None
    end_time: int | None = None


class MetricAnswer(msgspec.Struct, omit_defaults=True, gc=False):
    """A metric point in an answer. Of plain values only, so the garbage collector need not look at it."""

    key: str
    value: float | str
    timestamp: int
    step: int | None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None
    run_id: str | None = None


class RunDataMessage(msgspec.Struct, omit_defaults=True):
    """What a run holds: latest metrics, params, tags."""

    metrics: list[MetricAnswer] = []
    params: list[TagMessage] = []
    tags: list[TagMessage] = []


class RunInputsMessage(msgspec.Struct, omit_defaults=True):
    """What went into a run."""

    dataset_inputs: list[DatasetInputMessage] = []
    model_inputs: list[ModelInputMessage] = []


class RunOutputsMessage(msgspec.Struct, omit_defaults=True):
    """What came out of a run."""

    model_outputs: list[ModelOutputMessage] = []


class RunMessage(msgspec.Struct, omit_defaults=True):
    """A run."""

    info: RunInfoMessage
    data: RunDataMessage
    inputs: RunInputsMessage
    # Of a run that has just been made, a stock server does not speak of outputs.
    outputs: RunOutputsMessage | None = None


class EncodedRunMessage(msgspec.Struct):
    """A run as `RunMessage` says it, its data being JSON already: a `RunDataMessage`, encoded."""

    info: RunInfoMessage
    data: msgspec.Raw
    inputs: RunInputsMessage
    outputs: RunOutputsMessage


class RunAnswer(msgspec.Struct):
    """runs/get and runs/create."""

    run: RunMessage


class UpdateRunAnswer(msgspec.Struct):
    """runs/update."""

    run_info: RunInfoMessage


def run_info_message(info: RunInfo) -> RunInfoMessage:
    """A run as clients see it, without its data."""
    return RunInfoMessage(
        info.run_id,
        str(info.experiment_id),
        info.name,
        info.user_id,
        info.status.value,
        info.artifact_uri,
        info.lifecycle_stage.value,
        info.run_id,
        info.start_time_ms,
        info.end_time_ms,
    )


def parse_metrics(messages: Sequence[MetricMessage]) -> list[Metric]:
    """The points of a batch, checked: those that cannot break a rule here, the others by `parse_metric`."""
    found: list[Metric] = []
    good_keys: set[str] = set()
    for message in messages:
        key, value, timestamp_ms, step = message.key, message.value, message.timestamp, message.step or 0
        if (
            key is not None
            and key in good_keys
            and type(value) is float
            and -LARGEST_DOUBLE <= value <= LARGEST_DOUBLE
            and timestamp_ms is not None
            and 0 <= timestamp_ms <= limits.INT64_MAX
            and limits.INT64_MIN <= step <= limits.INT64_MAX
        ):
            found.append(_new_tuple(Metric, (key, step, timestamp_ms, value, 0)))
        else:
            metric = parse_metric(message, f"metrics[{len(found)}].")
            good_keys.add(metric.key)
            found.append(metric)
    return found


def parse_metric(message: MetricMessage | LogMetricRequest, prefix: str = "") -> Metric:
    """The point in a message, checked.

    MLflow clamps infinities to the largest double and keeps NaN as a flag (observed on 3.18).
    """
    if not message.key:
        raise missing_parameter(f"{prefix}key")
    if message.value is None:
        raise missing_parameter(f"{prefix}value")
    if message.timestamp is None:
        raise missing_parameter(f"{prefix}timestamp")
    value = _as_double(message.value, f"{prefix}value", message.timestamp)
    step = message.step or 0
    limits.check_key(message.key, f"{prefix}name", length_name="Metric name")
    limits.check_timestamp(message.timestamp, message.key, message.value, f"{prefix}timestamp")
    limits.check_step(step, message.key, message.value, f"{prefix}step")
    if math.isnan(value):
        return Metric(message.key, step, message.timestamp, 0.0, 1)
    if math.isinf(value):
        value = math.copysign(LARGEST_DOUBLE, value)
    return Metric(message.key, step, message.timestamp, value, 0)


def _as_double(value: float | str, path: str, timestamp_ms: int) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise limits.invalid_value(
            path,
            value,
            f"(timestamp={timestamp_ms}). Please specify value as a valid double (64-bit floating point)",
        ) from error


def parse_param(message: ParamMessage | LogParamRequest, prefix: str = "") -> tuple[str, str]:
    """The param in a message, checked; a value that is too long is cut, as a stock server does."""
    if not message.key:
        raise missing_parameter(f"{prefix}key")
    limits.check_key(message.key, f"{prefix}key", length_name="Param key")
    value = (message.value or "")[: limits.PARAM_VALUE]
    limits.check_text(f"{prefix}value", value)
    return message.key, value


def refuse_principal_tag(key: str) -> None:
    """The server alone says who made something.

    Raises:
        MlflowError: a client would set or delete the tag that says so.
    """
    if key == PRINCIPAL_TAG:
        raise invalid_parameter(f"The tag '{PRINCIPAL_TAG}' is set by the server, from the credential.")


def parse_tag_at_create(message: RunTagMessage, prefix: str) -> tuple[str, str]:
    """A tag that a run is created with: a stock server does not judge its characters there."""
    if not message.key:
        raise missing_parameter(f"{prefix}key")
    limits.check_length(f"{prefix}key", limits.ENTITY_KEY, message.key)
    limits.check_text(f"{prefix}key", message.key)
    refuse_principal_tag(message.key)
    value = (message.value or "")[: limits.TAG_VALUE]
    limits.check_text(f"{prefix}value", value)
    return message.key, value


def parse_tag(message: RunTagMessage | SetTagRequest, prefix: str = "") -> tuple[str, str]:
    """The tag in a message, checked; a value that is too long is cut, as a stock server does."""
    if not message.key:
        raise missing_parameter(f"{prefix}key")
    limits.check_key(message.key, f"{prefix}key")
    refuse_principal_tag(message.key)
    value = (message.value or "")[: limits.TAG_VALUE]
    limits.check_text(f"{prefix}value", value)
    return message.key, value
