"""Spans: what one holds, how it is kept as text, and how it is sent to clients.

A span is kept in the JSON that MLflow's own clients read as an artifact: ids in base64, the value of
every attribute as JSON text of its own. On the wire it is OTLP in JSON.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

TRACE_ID_PREFIX = "tr-"
TRACE_ID_ATTRIBUTE = "mlflow.traceRequestId"
INPUTS = "mlflow.spanInputs"
OUTPUTS = "mlflow.spanOutputs"
SPAN_TYPE = "mlflow.spanType"
USAGE = "mlflow.chat.tokenUsage"
COST = "mlflow.llm.cost"
MODEL = "mlflow.llm.model"
MODEL_PROVIDER = "mlflow.llm.provider"
_LARGEST_INT64 = 2**63 - 1


class SpanStatus(StrEnum):
    """How a span ended."""

    UNSET = "UNSET"
    OK = "OK"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Link:
    """A span of any trace that this one points to."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at a moment within a span."""

    name: str
    time_ns: int
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A span. Ids are lower-case hexadecimal; attribute values are JSON text."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ns: int
    end_ns: int | None
    status: SpanStatus
    status_message: str
    attributes: dict[str, str]
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    resource: Mapping[str, Any] = field(default_factory=dict)

    @property
    def type(self) -> str | None:
        """The span's type, if it has one."""
        return text_attribute(self.attributes, SPAN_TYPE)

    def content(self) -> str:
        """The span as it is kept."""
        return json.dumps(
            {
                "trace_id": _base64(self.trace_id.removeprefix(TRACE_ID_PREFIX)),
                "span_id": _base64(self.span_id),
                "parent_span_id": _base64(self.parent_id) if self.parent_id else None,
                "name": self.name,
                "start_time_unix_nano": self.start_ns,
                "end_time_unix_nano": self.end_ns,
                "events": [
                    {"name": event.name, "time_unix_nano": event.time_ns, "attributes": event.attributes}
                    for event in self.events
                ],
                "status": {"code": f"STATUS_CODE_{self.status}", "message": self.status_message},
                "attributes": self.attributes,
                "links": [
                    {"trace_id": link.trace_id, "span_id": link.span_id, "attributes": link.attributes}
                    for link in self.links
                ],
            },
            ensure_ascii=False,
        )


def _base64(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


# --- attributes -----------------------------------------------------------------------------


def loaded(text: str | None) -> Any:
    """What an attribute's JSON text stands for; text that is none stands for itself."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def dumped(value: Any) -> str:
    """A value as the JSON text of an attribute."""
    return json.dumps(value, ensure_ascii=False)


def text_attribute(attributes: Mapping[str, str], key: str) -> str | None:
    """An attribute that is text, or None."""
    value = loaded(attributes.get(key))
    return value if isinstance(value, str) else None


def object_attribute(attributes: Mapping[str, str], key: str) -> dict[str, Any] | None:
    """An attribute that is an object, or None."""
    value = loaded(attributes.get(key))
    if isinstance(value, str):
        value = loaded(value)
    return value if isinstance(value, dict) else None


# --- on the wire ----------------------------------------------------------------------------


def span_message(content: str) -> dict[str, Any]:
    """A kept span as OTLP in JSON."""
    span = json.loads(content)
    message = {
        "trace_id": span["trace_id"],
        "span_id": span["span_id"],
        "name": span["name"],
        "start_time_unix_nano": span["start_time_unix_nano"],
        "status": _status_message(span["status"]),
    }
    if span["parent_span_id"]:
        message["parent_span_id"] = span["parent_span_id"]
    if span["end_time_unix_nano"]:
        message["end_time_unix_nano"] = span["end_time_unix_nano"]
    if span["attributes"]:
        message["attributes"] = [
            {"key": key, "value": _any_value(loaded(value))} for key, value in span["attributes"].items()
        ]
    if span["events"]:
        message["events"] = [_event_message(event) for event in span["events"]]
    links = [found for link in span["links"] if (found := _link_message(link)) is not None]
    if links:
        message["links"] = links
    return message


def _status_message(status: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in status.items() if value and value != "STATUS_CODE_UNSET"}


def _event_message(event: dict[str, Any]) -> dict[str, Any]:
    message = {"time_unix_nano": event["time_unix_nano"], "name": event["name"]}
    if event["attributes"]:
        message["attributes"] = _key_values(event["attributes"])
    return message


def _link_message(link: dict[str, Any]) -> dict[str, Any] | None:
    try:
        message: dict[str, Any] = {
            "trace_id": _base64(link["trace_id"].removeprefix(TRACE_ID_PREFIX)),
            "span_id": _base64(link["span_id"]),
        }
    except ValueError:
        return None
    if link["attributes"]:
        message["attributes"] = _key_values(link["attributes"])
    return message


def _key_values(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any_value(value)} for key, value in values.items()]


def _any_value(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {}
        case bool():
            return {"bool_value": value}
        case str():
            return {"string_value": value}
        case int() if abs(value) <= _LARGEST_INT64:
            return {"int_value": value}
        case int() | float():
            return {"double_value": float(value)}
        case list():
            return {"array_value": {"values": [_any_value(item) for item in value]}}
        case dict():
            return {"kvlist_value": {"values": _key_values(value)}}
    return {"string_value": str(value)}
