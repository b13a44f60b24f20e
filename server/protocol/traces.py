"""Wire messages about traces, in the words of version 3 and of version 2."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from server.domain.errors import invalid_parameter
from server.protocol import limits
from server.protocol.assessments import AssessmentMessage
from server.protocol.experiments import TagMessage
from server.protocol.wire import Request

LONGEST_TRACE_ID = 250
LONGEST_SESSION = 250
LONGEST_NAME = 4096
NAME_TAG = "mlflow.traceName"
ARTIFACT_TAG = "mlflow.artifactLocation"
SPANS_TAG = "mlflow.trace.spansLocation"
SPANS_HERE = "TRACKING_STORE"
FINALIZED = "mlflow.trace.infoFinalized"
SESSION = "mlflow.trace.session"
USAGE = "mlflow.trace.tokenUsage"
COST = "mlflow.trace.cost"
USER = "mlflow.trace.user"
SIZE_STATS = "mlflow.trace.sizeStats"
LARGEST_PAGE = 500
DEFAULT_PAGE = 100
_LONGEST_PREVIEW = 10_000
_LONGEST_STORED = 8000
_LONGEST_METADATA_SHOWN = 250
_LONGEST_TAG_SHOWN = 4096
_LONGEST_KEY = 250
_KEPT_BY_US = frozenset({SPANS_TAG, "mlflow.trace.archiveLocation", "mlflow.trace.archivalFailure"})
_DELETABLE = frozenset({"mlflow.trace.archivalFailure"})
_STATES = ("STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS")
_NO_STATE = _STATES[0]
_NO_STATUS = "TRACE_STATUS_UNSPECIFIED"


# --- version 3 ------------------------------------------------------------------------------


class ExperimentLocation(msgspec.Struct):
    """The experiment a trace lies in."""

    experiment_id: str = ""


class LocationMessage(msgspec.Struct, omit_defaults=True):
    """Where a trace lies."""

    type: str | int | None = None
    mlflow_experiment: ExperimentLocation | None = None


class TraceInfoMessage(msgspec.Struct, omit_defaults=True):
    """A trace without its spans."""

    trace_id: str = ""
    client_request_id: str | None = None
    trace_location: LocationMessage | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    request_time: str | None = None
    execution_duration: str | None = None
    state: str | int | None = None
    trace_metadata: dict[str, str] = {}
    assessments: list[AssessmentMessage] = []
    tags: dict[str, str] = {}


class TraceMessage(msgspec.Struct, omit_defaults=True):
    """A trace."""

    trace_info: TraceInfoMessage | None = None
    spans: list[Any] = []


class StartTraceRequest(Request):
    """POST traces."""

    trace: TraceMessage | None = None


class TraceAnswer(msgspec.Struct):
    """A trace."""

    trace: TraceMessage


class GetTraceRequest(Request):
    """GET traces/get."""

    trace_id: str = ""
    allow_partial: bool = False


class BatchRequest(Request):
    """GET traces/batchGet and POST traces/batchGetInfos."""

    trace_ids: list[str] = []
    experiment_ids: list[str] | None = None


class TracesAnswer(msgspec.Struct, omit_defaults=True):
    """traces/batchGet."""

    traces: list[TraceMessage] = []


class TraceInfosAnswer(msgspec.Struct, omit_defaults=True):
    """traces/batchGetInfos."""

    trace_infos: list[TraceInfoMessage] = []


class SearchTracesRequest(Request):
    """POST traces/search. It has to say where, and may say nowhere, as the UI's page of judges does."""

    locations: list[LocationMessage] | None = None
    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str | None = None


class TraceInfosPage(msgspec.Struct, omit_defaults=True):
    """traces/search."""

    traces: list[TraceInfoMessage] = []
    next_page_token: str | None = None


class TraceTagRequest(Request):
    """PATCH and DELETE traces/{trace_id}/tags."""

    key: str = ""
    value: str = ""


class DeleteTracesRequest(Request):
    """POST traces/delete-traces."""

    experiment_id: str = ""
    max_timestamp_millis: int | None = None
    max_traces: int | None = None
    request_ids: list[str] = []


class DeletedAnswer(msgspec.Struct):
    """traces/delete-traces."""

    traces_deleted: int


class LinkTracesRequest(Request):
    """POST traces/link-to-run."""

    trace_ids: list[str] = []
    run_id: str = ""


class PromptVersionMessage(msgspec.Struct):
    """A version of a prompt."""

    name: str = ""
    version: str = ""


class LinkPromptsRequest(Request):
    """POST traces/link-prompts."""

    trace_id: str = ""
    prompt_versions: list[PromptVersionMessage] = []


class CorrelationRequest(Request):
    """POST traces/calculate-filter-correlation."""

    experiment_ids: list[str] = []
    filter_string1: str = ""
    filter_string2: str = ""
    base_filter: str | None = None


class CorrelationAnswer(msgspec.Struct, omit_defaults=True):
    """traces/calculate-filter-correlation. A correlation that is not defined is left out."""

    filter1_count: int
    filter2_count: int
    joint_count: int
    total_count: int
    npmi: float | None = None
    npmi_smoothed: float | None = None


class TraceArtifactRequest(Request):
    """get-trace-artifact."""

    request_id: str = ""
    path: str = ""


# --- version 2 ------------------------------------------------------------------------------


class StartTraceV2Request(Request):
    """POST traces of version 2."""

    experiment_id: str = ""
    timestamp_ms: int = 0
    request_metadata: list[TagMessage] = []
    tags: list[TagMessage] = []


class EndTraceV2Request(Request):
    """PATCH traces/{request_id} of version 2."""

    timestamp_ms: int = 0
    status: str | int | None = None
    request_metadata: list[TagMessage] = []
    tags: list[TagMessage] = []


class SearchTracesV2Request(Request):
    """GET traces of version 2."""

    experiment_ids: list[str] = []
    filter: str | None = None
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str | None = None


class TraceInfoV2Message(msgspec.Struct, omit_defaults=True):
    """A trace without its spans, in the words of version 2."""

    request_id: str
    experiment_id: str
    timestamp_ms: int
    execution_time_ms: int
    status: str
    request_metadata: list[TagMessage] = []
    tags: list[TagMessage] = []


class TraceInfoV2Answer(msgspec.Struct):
    """A trace."""

    trace_info: TraceInfoV2Message


class TraceInfosV2Page(msgspec.Struct, omit_defaults=True):
    """GET traces of version 2."""

    traces: list[TraceInfoV2Message] = []
    next_page_token: str | None = None


# --- reading --------------------------------------------------------------------------------


def parse_state(value: str | int | None) -> str:
    """A trace's state; one that is not known is none, as it is for protobuf."""
    if isinstance(value, int):
        return _STATES[value] if 0 <= value < len(_STATES) else _NO_STATE
    return value if value in _STATES else _NO_STATE


def status_of(state: str) -> str:
    """The state in the words of version 2."""
    return _NO_STATUS if state == _NO_STATE else state


def check_trace_id(trace_id: str, path: str = "trace_id") -> str:
    """An id a trace may have."""
    limits.check_length(path, LONGEST_TRACE_ID, trace_id)
    limits.check_text(path, trace_id)
    return trace_id


def check_pairs(pairs: Iterable[tuple[str, str]], path: str) -> dict[str, str]:
    """Tags or metadata that come with a trace; what is too long is cut."""
    kept = {key[:_LONGEST_KEY]: value[:_LONGEST_STORED] for key, value in pairs}
    for key, value in kept.items():
        limits.check_text(path, key)
        limits.check_text(f"{path}.{key}", value)
    return kept


def check_name(tags: Mapping[str, str]) -> None:
    """The name that the tags give the trace."""
    limits.check_length("Trace name", LONGEST_NAME, tags.get(NAME_TAG))


def check_session(metadata: Mapping[str, str]) -> str | None:
    """The session that the metadata puts the trace in."""
    session = metadata.get(SESSION)
    limits.check_length("Session ID", LONGEST_SESSION, session)
    return session


def check_preview(text: str | None, path: str) -> str | None:
    """A preview; one that is too long is cut."""
    if text is not None:
        limits.check_text(path, text)
    return text if text is None else text[:_LONGEST_PREVIEW]


def parse_trace_tag(key: str, value: str) -> tuple[str, str]:
    """A tag to set on a trace, checked; a value that is too long is cut."""
    limits.check_key(key, "key")
    limits.check_text("value", value)
    if key == NAME_TAG:
        limits.check_length("Trace name", LONGEST_NAME, value)
    return key, value[: limits.TAG_VALUE]


def refuse_reserved_tag(key: str, *, deleting: bool) -> None:
    """Turn away a change to a tag that only the server writes."""
    if key in _KEPT_BY_US and not (deleting and key in _DELETABLE):
        done = "deleted" if deleting else "set"
        raise invalid_parameter(f"Tag '{key}' is immutable and cannot be {done} on a trace.")


def check_deletion(request: DeleteTracesRequest) -> None:
    """A request to delete names either traces or a moment."""
    if request.max_timestamp_millis is None and not request.request_ids:
        raise invalid_parameter("Either `max_timestamp_millis` or `trace_ids` must be specified.")
    if request.max_timestamp_millis is not None and request.request_ids:
        raise invalid_parameter("Only one of `max_timestamp_millis` and `trace_ids` can be specified.")
    if request.request_ids and request.max_traces is not None:
        raise invalid_parameter("`max_traces` can't be specified if `trace_ids` is specified.")
    if request.max_traces is not None and request.max_traces <= 0:
        raise invalid_parameter(f"`max_traces` must be a positive integer, received {request.max_traces}.")
    limits.check_int64("max_timestamp_millis", request.max_timestamp_millis)
    limits.check_int64("max_traces", request.max_traces)


def check_trace_page(max_results: int | None) -> int:
    """The size of a page of traces."""
    if max_results is not None and max_results > LARGEST_PAGE:
        raise invalid_parameter(
            f"Invalid value {max_results} for parameter 'max_results' supplied:  Hint: Value was of type"
            " 'int'. See the API docs for more information about request parameters."
        )
    return limits.check_page_size(max_results, default=DEFAULT_PAGE, largest=LARGEST_PAGE)


# --- answering ------------------------------------------------------------------------------


def shown_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata as clients see it: cut."""
    return {key: value[:_LONGEST_METADATA_SHOWN] for key, value in metadata.items()}


def shown_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as clients see them: cut."""
    return {key: value[:_LONGEST_TAG_SHOWN] for key, value in tags.items()}
