"""Wire messages about evaluation datasets. Tags, records and schemas travel as JSON inside of strings."""

import json
from typing import Any

import msgspec

from server.domain.errors import invalid_parameter
from server.protocol import limits
from server.protocol.wire import Request, require

USER_TAG = "mlflow.user"
_NAME_LENGTH = 255
_TAG_KEY_LENGTH = 255
_TAG_VALUE_LENGTH = 5000
_SOURCE_TYPES = ("UNSPECIFIED", "TRACE", "HUMAN", "DOCUMENT", "CODE")

Json = dict[str, Any]


class CreateDatasetRequest(Request):
    """datasets/create."""

    name: str = ""
    experiment_ids: list[str] = []
    tags: str | None = None


class SearchEvaluationDatasetsRequest(Request):
    """datasets/search."""

    experiment_ids: list[str] = []
    filter_string: str | None = None
    max_results: int | None = None
    order_by: list[str] = []
    page_token: str | None = None


class DatasetTagsRequest(Request):
    """datasets/{id}/tags."""

    tags: str = ""


class UpsertRecordsRequest(Request):
    """datasets/{id}/records, to add or change some."""

    records: str = ""


class ListRecordsRequest(Request):
    """datasets/{id}/records, to read them."""

    max_results: int | None = None
    page_token: str | None = None


class DeleteRecordsRequest(Request):
    """datasets/{id}/records, to delete some."""

    dataset_record_ids: list[str] = []


class DatasetExperimentsRequest(Request):
    """datasets/{id}/add-experiments and remove-experiments."""

    experiment_ids: list[str] = []


class DatasetMessage(msgspec.Struct, omit_defaults=True):
    """An evaluation dataset in an answer, without its records."""

    dataset_id: str
    name: str
    tags: str
    digest: str
    created_time: int
    last_update_time: int
    schema: str | None = None
    profile: str | None = None
    created_by: str | None = None
    last_updated_by: str | None = None
    experiment_ids: list[str] = []


class DatasetAnswer(msgspec.Struct):
    """One dataset."""

    dataset: DatasetMessage


class DatasetsAnswer(msgspec.Struct, omit_defaults=True):
    """datasets/search."""

    datasets: list[DatasetMessage] = []
    next_page_token: str | None = None


class ExperimentIdsAnswer(msgspec.Struct, omit_defaults=True):
    """datasets/{id}/experiment-ids."""

    experiment_ids: list[str] = []


class UpsertRecordsAnswer(msgspec.Struct):
    """How many records were new, and how many were known by their inputs."""

    inserted_count: int
    updated_count: int


class RecordsAnswer(msgspec.Struct, omit_defaults=True):
    """A page of records."""

    records: str
    next_page_token: str | None = None


class DeleteRecordsAnswer(msgspec.Struct):
    """How many records were deleted."""

    deleted_count: int


class RecordFields(msgspec.Struct):
    """A record as a client gives it. What it leaves out is `UNSET`, which is not the same as null."""

    inputs: Json = {}
    outputs: Any = msgspec.UNSET
    expectations: Json | None = None
    tags: Json | None = None
    source: Json | None = None


def parse_name(name: str) -> str:
    """A dataset's name."""
    require("name", name)
    limits.check_length("name", _NAME_LENGTH, name)
    limits.check_text("name", name)
    return name


def parse_tags(text: str | None) -> dict[str, str | None]:
    """The tags in a message, checked; null stays null."""
    tags = _load("tags", text) if text else {}
    if not isinstance(tags, dict):
        raise invalid_parameter("Invalid value for parameter 'tags': it must be a JSON object.")
    return {_tag_key(key): _tag_value(value) for key, value in tags.items()}


def _tag_key(key: str) -> str:
    limits.check_length("tags.key", _TAG_KEY_LENGTH, key)
    limits.check_text("tags.key", key)
    return key


def _tag_value(value: object) -> str | None:
    if value is None:
        return None
    text = str(value)
    limits.check_length("tags.value", _TAG_VALUE_LENGTH, text)
    limits.check_text("tags.value", text)
    return text


def parse_records(text: str) -> list[RecordFields]:
    """The records in a message, checked.

    Raises:
        MlflowError: they are not a list of objects, or a field is not what it must be.
    """
    records = _load("records", require("records", text))
    if not isinstance(records, list):
        raise invalid_parameter("Invalid value for parameter 'records': it must be a JSON list.")
    return [_record(index, record) for index, record in enumerate(records)]


def _record(index: int, record: object) -> RecordFields:
    try:
        fields = msgspec.convert(record, RecordFields)
    except msgspec.ValidationError as error:
        raise invalid_parameter(f"Invalid value for parameter 'records[{index}]': {error}") from error
    limits.check_text(f"records[{index}].tags", str((fields.tags or {}).get(USER_TAG, "")))
    if fields.source:
        fields.source = _source(fields.source)
    return fields


def _source(source: Json) -> Json:
    kind = str(source.get("source_type", "")).upper()
    if kind not in _SOURCE_TYPES:
        raise invalid_parameter(
            f"Invalid dataset record source type: {kind}. Valid source types: {list(_SOURCE_TYPES)}"
        )
    data = source.get("source_data")
    if data is not None and not isinstance(data, dict):
        raise invalid_parameter("Invalid dataset record source: 'source_data' must be a JSON object.")
    return {"source_type": kind, "source_data": data or {}}


def _load(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid_parameter(f"Invalid value for parameter '{name}': it is not valid JSON.") from error
