"""Wire messages about logged models (MLflow 3)."""

import msgspec

from server.domain.errors import invalid_parameter
from server.protocol import limits
from server.protocol.experiments import TagMessage
from server.protocol.runs import MetricAnswer, ParamMessage, RunTagMessage
from server.protocol.wire import Request, missing_parameter

PENDING = "LOGGED_MODEL_PENDING"
READY = "LOGGED_MODEL_READY"
UPLOAD_FAILED = "LOGGED_MODEL_UPLOAD_FAILED"
_STATUS_BY_NUMBER = {1: PENDING, 2: READY, 3: UPLOAD_FAILED}
_BAD_IN_NAME = ("/", ":", ".", "%", '"', "'")
_NAME_LENGTH = 500


class CreateLoggedModelRequest(Request):
    """POST logged-models."""

    experiment_id: str = ""
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: list[ParamMessage] = msgspec.field(default_factory=list)
    tags: list[RunTagMessage] = msgspec.field(default_factory=list)


class FinalizeLoggedModelRequest(Request):
    """PATCH logged-models/{model_id}. The status comes by name or as its protobuf number."""

    status: str | int | None = None


class GetLoggedModelRequest(Request):
    """GET logged-models/{model_id}."""

    allow_deleted: bool = False


class LoggedModelTagsRequest(Request):
    """PATCH logged-models/{model_id}/tags."""

    tags: list[RunTagMessage] = msgspec.field(default_factory=list)


class LoggedModelParamsRequest(Request):
    """POST logged-models/{model_id}/params."""

    params: list[ParamMessage] = msgspec.field(default_factory=list)


class DatasetMessage(msgspec.Struct):
    """A dataset that the metrics searched for were measured on."""

    dataset_name: str = ""
    dataset_digest: str | None = None


class OrderByMessage(msgspec.Struct):
    """One key to sort by."""

    field_name: str = ""
    ascending: bool = True
    dataset_name: str | None = None
    dataset_digest: str | None = None


class SearchLoggedModelsRequest(Request):
    """POST logged-models/search."""

    experiment_ids: list[str] = msgspec.field(default_factory=list)
    filter: str | None = None
    datasets: list[DatasetMessage] = msgspec.field(default_factory=list)
    max_results: int | None = None
    order_by: list[OrderByMessage] = msgspec.field(default_factory=list)
    page_token: str | None = None


class LoggedModelInfoMessage(msgspec.Struct, omit_defaults=True):
    """What a logged model is."""

    model_id: str
    experiment_id: str
    name: str
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    artifact_uri: str
    status: str
    model_type: str
    source_run_id: str
    status_message: str | None = None
    tags: list[TagMessage] = []


class LoggedModelDataMessage(msgspec.Struct, omit_defaults=True):
    """What a logged model holds."""

    params: list[TagMessage] = []
    metrics: list[MetricAnswer] = []


class LoggedModelMessage(msgspec.Struct):
    """A logged model in an answer."""

    info: LoggedModelInfoMessage
    data: LoggedModelDataMessage


class LoggedModelAnswer(msgspec.Struct):
    """One logged model."""

    model: LoggedModelMessage


class LoggedModelsAnswer(msgspec.Struct, omit_defaults=True):
    """logged-models/search."""

    models: list[LoggedModelMessage] = []
    next_page_token: str | None = None


def parse_name(name: str | None) -> str | None:
    """The name in a request, or None when the server is to make one up.

    Raises:
        MlflowError: it cannot be a name.
    """
    if not name:
        return None
    if any(character in name for character in _BAD_IN_NAME) or not name.strip():
        raise invalid_parameter(
            f"Invalid model name ({name!r}) provided. Model name must be a non-empty string "
            f"and cannot contain the following characters: {_BAD_IN_NAME}"
        )
    limits.check_length("name", _NAME_LENGTH, name)
    limits.check_text("name", name)
    return name


def parse_status(value: str | int | None) -> str:
    """The status in a request.

    Raises:
        MlflowError: it is missing, or not a status.
    """
    if value is None or value == "":
        raise missing_parameter("status")
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < len("100"):
        value = int(value)
    name = _STATUS_BY_NUMBER.get(value, "") if isinstance(value, int) else value
    known = list(_STATUS_BY_NUMBER.values())
    if name not in known:
        raise limits.invalid_value("status", value, f"Expected one of {', '.join(known)}.")
    return name
