"""Wire messages about assessments: feedback on a trace, what was expected of it, and links to issues."""

import json
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from server.domain.errors import invalid_parameter
from server.protocol import limits
from server.protocol.moments import check_moment, format_moment, parse_moment
from server.protocol.wire import Request, missing_parameter

LONGEST_ID = 250
_LONGEST_NAME = 250
_LONGEST_TEXT = 65_535
_SOURCE_RUN = "mlflow.assessment.sourceRunId"
_JSON_FORMAT = "JSON_FORMAT"
_NO_SOURCE = "SOURCE_TYPE_UNSPECIFIED"
_SOURCES = (_NO_SOURCE, "HUMAN", "LLM_JUDGE", "CODE")
_LONGEST_STACK = 10_000
_CUT = "[Stack trace is truncated]\n...\n"
_CAPITAL = re.compile(r"[A-Z]")
_VERDICTS = {"yes": 1.0, "no": 0.0}


class AssessmentKind(StrEnum):
    """What an assessment is."""

    FEEDBACK = "feedback"
    EXPECTATION = "expectation"
    ISSUE = "issue"


@dataclass(frozen=True, slots=True)
class Assessment:
    """An assessment of a trace. Value, error and metadata are what JSON can hold."""

    assessment_id: str | None
    name: str
    kind: AssessmentKind
    value: Any
    error: dict[str, str | None] | None
    created_at_ms: int | None
    last_updated_ms: int | None
    source_type: str
    source_id: str | None
    run_id: str | None
    span_id: str | None
    rationale: str | None
    overrides: str | None
    is_valid: bool
    metadata: dict[str, str]

    @property
    def number(self) -> tuple[float | None, bool]:
        """What metrics sum up, and whether the value is itself a number."""
        return number_of(self.value)


def number_of(value: Any) -> tuple[float | None, bool]:
    """The number a value counts as, and whether it is one itself."""
    if isinstance(value, bool):
        return float(value), False
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return None, False
        return (number, True) if math.isfinite(number) else (None, False)
    if isinstance(value, str):
        return _VERDICTS.get(value.strip().lower()), False
    return None, False


# --- messages -------------------------------------------------------------------------------


class SourceMessage(msgspec.Struct, omit_defaults=True):
    """Who assessed."""

    source_type: str | int | None = None
    source_id: str | None = None


class ErrorMessage(msgspec.Struct, omit_defaults=True):
    """Why there is no value."""

    error_code: str | None = None
    error_message: str | None = None
    stack_trace: str | None = None


class FeedbackMessage(msgspec.Struct, omit_defaults=True):
    """A judgement. A value that is null is a value."""

    value: Any = UNSET
    error: ErrorMessage | None = None


class SerializedValueMessage(msgspec.Struct):
    """A value as text."""

    serialization_format: str = ""
    value: str = ""


class ExpectationMessage(msgspec.Struct, omit_defaults=True):
    """What should have come out."""

    value: Any = UNSET
    serialized_value: SerializedValueMessage | None = None


class IssueMessage(msgspec.Struct):
    """An issue that the trace shows."""

    issue_name: str = ""


class AssessmentMessage(msgspec.Struct, omit_defaults=True):
    """An assessment."""

    assessment_id: str | None = None
    assessment_name: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    source: SourceMessage | None = None
    create_time: str | None = None
    last_update_time: str | None = None
    feedback: FeedbackMessage | None = None
    expectation: ExpectationMessage | None = None
    issue: IssueMessage | None = None
    rationale: str | None = None
    metadata: dict[str, str] = {}
    overrides: str | None = None
    valid: bool | UnsetType = UNSET


class CreateAssessmentRequest(Request):
    """POST traces/{trace_id}/assessments."""

    assessment: AssessmentMessage | None = None


class UpdateAssessmentRequest(Request):
    """PATCH traces/{trace_id}/assessments/{assessment_id}."""

    assessment: AssessmentMessage | None = None
    update_mask: str | None = None


class AssessmentAnswer(msgspec.Struct):
    """An assessment, as it is afterwards."""

    assessment: AssessmentMessage


@dataclass(frozen=True, slots=True)
class AssessmentChange:
    """What an update changes; None leaves things as they are."""

    name: str | None = None
    kind: AssessmentKind | None = None
    value: Any = None
    error: dict[str, str | None] | None = None
    rationale: str | None = None
    metadata: dict[str, str] | None = None


# --- reading --------------------------------------------------------------------------------


def parse_assessment(message: AssessmentMessage | None, path: str = "assessment") -> Assessment:
    """The assessment in a message, checked."""
    if message is None:
        raise missing_parameter(path)
    kind, value, error = _parse_value(message)
    source = message.source or SourceMessage()
    _check_texts(message, path)
    return Assessment(
        assessment_id=message.assessment_id or None,
        name=message.assessment_name or "",
        kind=kind,
        value=value,
        error=error,
        created_at_ms=_moment(message.create_time, f"{path}.create_time"),
        last_updated_ms=_moment(message.last_update_time, f"{path}.last_update_time"),
        source_type=_source_type(source.source_type),
        source_id=source.source_id or None,
        run_id=message.metadata.get(_SOURCE_RUN),
        span_id=message.span_id or None,
        rationale=message.rationale or None if kind is not AssessmentKind.EXPECTATION else None,
        overrides=message.overrides or None if kind is AssessmentKind.FEEDBACK else None,
        is_valid=True,
        metadata=message.metadata,
    )


def parse_update(request: UpdateAssessmentRequest) -> AssessmentChange:
    """What an update request changes."""
    message = request.assessment
    if message is None:
        raise missing_parameter("assessment")
    if not request.update_mask:
        raise missing_parameter("update_mask")
    _check_texts(message, "assessment")
    named = {_snake(name.strip()) for name in request.update_mask.split(",")}
    if {"feedback", "expectation"} <= named:
        raise invalid_parameter("Cannot specify both `expectation` and `feedback` parameters.")
    if "valid" in named:
        raise invalid_parameter("The `valid` field of an assessment cannot be updated.")
    kind, value, error = None, None, None
    if "feedback" in named:
        kind = AssessmentKind.FEEDBACK
        value, error = _feedback(message.feedback or FeedbackMessage())
    elif "expectation" in named:
        kind = AssessmentKind.EXPECTATION
        value = _expectation(message.expectation or ExpectationMessage())
    return AssessmentChange(
        name=(message.assessment_name or "") if "assessment_name" in named else None,
        kind=kind,
        value=value,
        error=error,
        rationale=(message.rationale or "") if "rationale" in named else None,
        metadata=message.metadata if "metadata" in named else None,
    )


def _parse_value(message: AssessmentMessage) -> tuple[AssessmentKind, Any, dict[str, str | None] | None]:
    if message.issue is not None:
        return AssessmentKind.ISSUE, {"issue_name": message.issue.issue_name}, None
    if message.expectation is not None:
        return AssessmentKind.EXPECTATION, _expectation(message.expectation), None
    if message.feedback is not None:
        return (AssessmentKind.FEEDBACK, *_feedback(message.feedback))
    raise invalid_parameter("Unknown assessment type: None")


def _feedback(message: FeedbackMessage) -> tuple[Any, dict[str, str | None] | None]:
    value = None if message.value is UNSET else _with_doubles(message.value)
    if message.error is None:
        return value, None
    error = message.error
    return value, {
        "error_code": error.error_code or "",
        "error_message": error.error_message or None,
        "stack_trace": _cut_stack(error.stack_trace),
    }


def _cut_stack(stack_trace: str | None) -> str | None:
    if not stack_trace or len(stack_trace) <= _LONGEST_STACK:
        return stack_trace or None
    return _CUT + stack_trace[len(_CUT) - _LONGEST_STACK :]


def _expectation(message: ExpectationMessage) -> Any:
    serialized = message.serialized_value
    if serialized is None:
        value = None if message.value is UNSET else _with_doubles(message.value)
    elif serialized.serialization_format != _JSON_FORMAT:
        raise invalid_parameter(
            f"Unknown serialization format: {serialized.serialization_format}. Only JSON_FORMAT is supported."
        )
    else:
        try:
            value = msgspec.json.decode(serialized.value)
        except (msgspec.MsgspecError, UnicodeEncodeError) as error:
            raise invalid_parameter("The serialized value of an expectation must be JSON.") from error
    if value is None:
        raise invalid_parameter("The `value` field must be specified.")
    return value


def _with_doubles(value: Any) -> Any:
    """Protobuf knows one kind of number in a free value."""
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise invalid_parameter("A number in the value is too large.") from error
    if isinstance(value, list):
        return [_with_doubles(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_doubles(item) for key, item in value.items()}
    return value


def _source_type(value: str | int | None) -> str:
    if isinstance(value, int):
        return _SOURCES[value] if 0 <= value < len(_SOURCES) else _NO_SOURCE
    return value if value in _SOURCES else _NO_SOURCE


def _check_texts(message: AssessmentMessage, path: str) -> None:
    limits.check_length("assessment_name", _LONGEST_NAME, message.assessment_name)
    limits.check_length("assessment_id", LONGEST_ID, message.assessment_id)
    limits.check_length("overrides", LONGEST_ID, message.overrides)
    limits.check_length("span_id", LONGEST_ID, message.span_id)
    limits.check_length("rationale", _LONGEST_TEXT, message.rationale)
    source_id = message.source.source_id if message.source else None
    limits.check_length("source_id", LONGEST_ID, source_id)
    texts = {
        "assessment_id": message.assessment_id,
        "assessment_name": message.assessment_name,
        "span_id": message.span_id,
        "rationale": message.rationale,
        "overrides": message.overrides,
        "source.source_id": source_id,
        f"metadata.{_SOURCE_RUN}": message.metadata.get(_SOURCE_RUN),
    }
    for name, text in texts.items():
        limits.check_text(f"{path}.{name}", text or "")


def _moment(text: str | None, path: str) -> int | None:
    return check_moment(parse_moment(text, path), path) or None


def _snake(name: str) -> str:
    return _CAPITAL.sub(lambda match: f"_{match.group().lower()}", name)


# --- answering ------------------------------------------------------------------------------


def assessment_message(assessment: Assessment, trace_id: str) -> AssessmentMessage:
    """An assessment as clients see it."""
    message = AssessmentMessage(
        assessment_id=assessment.assessment_id,
        assessment_name=assessment.name,
        trace_id=trace_id,
        span_id=assessment.span_id,
        source=SourceMessage(assessment.source_type, assessment.source_id),
        create_time=format_moment(assessment.created_at_ms or 0),
        last_update_time=format_moment(assessment.last_updated_ms or 0),
        rationale=assessment.rationale,
        metadata=assessment.metadata,
        overrides=assessment.overrides,
        valid=assessment.is_valid,
    )
    match assessment.kind:
        case AssessmentKind.FEEDBACK:
            error = None if assessment.error is None else ErrorMessage(**assessment.error)
            message.feedback = FeedbackMessage(assessment.value, error)
        case AssessmentKind.EXPECTATION:
            message.expectation = _expectation_message(assessment.value)
        case AssessmentKind.ISSUE:
            message.issue = IssueMessage(assessment.value["issue_name"])
    return message


def _expectation_message(value: Any) -> ExpectationMessage:
    if isinstance(value, list | dict):
        return ExpectationMessage(serialized_value=SerializedValueMessage(_JSON_FORMAT, json.dumps(value)))
    return ExpectationMessage(_with_doubles(value))
