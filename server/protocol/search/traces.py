"""Searching traces: the widest grammar, with spans, assessments and regular expressions.

A name, run, prompt or text is asked for like an attribute and stands elsewhere: in a tag, in the
metadata, in a link or in the spans. What it stands for is settled here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from server.domain.errors import MlflowError, invalid_parameter
from server.protocol.search.clauses import Clause, read_clauses
from server.protocol.search.grammar import MAX_PATTERN_CHARACTERS, plain_prefix, whole_number
from server.protocol.search.lexing import Kind, Operand
from server.protocol.search.ordering import read_sortings
from server.protocol.search.patterns import check_pattern
from server.protocol.search.quoting import plain_key, quoted_text, text_list
from server.protocol.search.terms import Operator, Value

RLIKE = "RLIKE"
NAME_TAG = "mlflow.traceName"
PROMPTS_TAG = "mlflow.linkedPrompts"
RUN_METADATA = "mlflow.sourceRun"
CONTENT = "content"
SPAN_ATTRIBUTES = "attributes."
_SUMMED_METADATA = frozenset({"mlflow.trace.tokenUsage", "mlflow.trace.cost"})


class TraceEntity(StrEnum):
    """What a key belongs to. The values are MLflow's own names, as its messages print them."""

    ATTRIBUTE = "attribute"
    TAG = "tag"
    METADATA = "request_metadata"
    SPAN = "span"
    FEEDBACK = "feedback"
    EXPECTATION = "expectation"
    ISSUE = "issue"
    RUN = "run"
    PROMPT = "prompt"


@dataclass(frozen=True, slots=True)
class TraceComparison:
    """One condition; a filter is the conjunction of its comparisons.

    The operator is one of `Operator` or `RLIKE`; the value fits it.
    """

    entity: TraceEntity
    key: str
    operator: str
    value: Value


@dataclass(frozen=True, slots=True)
class TraceOrder:
    """One sort key: an attribute, a tag or a piece of metadata."""

    entity: TraceEntity
    key: str
    ascending: bool


_PREFIXES = {
    "tag": TraceEntity.TAG,
    "tags": TraceEntity.TAG,
    "attribute": TraceEntity.ATTRIBUTE,
    "attributes": TraceEntity.ATTRIBUTE,
    "trace": TraceEntity.ATTRIBUTE,
    "request_metadata": TraceEntity.METADATA,
    "metadata": TraceEntity.METADATA,
    "span": TraceEntity.SPAN,
    "feedback": TraceEntity.FEEDBACK,
    "expectation": TraceEntity.EXPECTATION,
    "issue": TraceEntity.ISSUE,
}
_NUMBERS = {
    "timestamp": "timestamp_ms",
    "timestamp_ms": "timestamp_ms",
    "execution_time": "execution_time_ms",
    "execution_time_ms": "execution_time_ms",
    "end_time": "end_time_ms",
    "end_time_ms": "end_time_ms",
}
_ELSEWHERE = {
    "name": (TraceEntity.TAG, NAME_TAG),
    "prompt": (TraceEntity.TAG, PROMPTS_TAG),
    "run_id": (TraceEntity.METADATA, RUN_METADATA),
    "text": (TraceEntity.SPAN, CONTENT),
}
_SEARCHABLE = frozenset({*_NUMBERS, *_ELSEWHERE, "request_id", "status", "client_request_id"})
_SORTABLE = frozenset({*_NUMBERS, "experiment_id", "status", "request_id", "name", "run_id"})
_LISTABLE = frozenset({"name", "status", "request_id", "run_id", "client_request_id"})
_SPAN_KEYS = frozenset({"name", "type", "status"})

_TEXT = frozenset({"=", "!=", "LIKE", "ILIKE", RLIKE})
_NULL = frozenset({"IS NULL", "IS NOT NULL"})
_LIST = frozenset({"IN", "NOT IN"})
_NUMERIC = frozenset({"=", "!=", "<", "<=", ">", ">="})
_ORDERED = frozenset({"<", "<=", ">", ">="})
_CONTENT_OPERATORS = frozenset({"LIKE", "ILIKE"})


def parse_trace_filter(text: str | None) -> tuple[TraceComparison, ...]:
    """What a traces search filters by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when the text is not in MLflow's grammar.
    """
    if not text:
        return ()
    clauses = read_clauses(text)
    if clauses.strays:
        strays = ", ".join(f"'{stray}'" for stray in clauses.strays)
        raise invalid_parameter(f"Invalid clause(s) in filter string: {strays}")
    return tuple(_comparison(clause) for clause in clauses.valid)


def parse_trace_order(clauses: Sequence[str]) -> tuple[TraceOrder, ...]:
    """What a traces search sorts by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when a clause is not in MLflow's grammar.
    """
    orders: list[TraceOrder] = []
    for sorting in read_sortings(clauses):
        entity, key = _identifier(sorting.identifier, _SORTABLE)
        entity, key = _settled(entity, key)
        if entity not in (TraceEntity.ATTRIBUTE, TraceEntity.TAG, TraceEntity.METADATA):
            raise invalid_parameter(f"Invalid identifier type '{entity}'")
        if key in _SUMMED_METADATA:
            raise invalid_parameter(
                f"Ordering by reserved metadata '{key}' is not supported because it is represented by"
                " multiple columns."
            )
        orders.append(TraceOrder(entity, key, sorting.ascending))
    keys = [(order.entity, order.key) for order in orders]
    if len(set(keys)) < len(keys):
        raise invalid_parameter(f"`order_by` contains duplicate fields: {list(clauses)}")
    return tuple(orders)


# --- comparisons ----------------------------------------------------------------------------


def _comparison(clause: Clause) -> TraceComparison:
    if clause.left.kind is not Kind.IDENTIFIER:
        raise invalid_parameter(
            f"Invalid comparison clause. Expected 'Identifier' found '{clause.left.text}'"
        )
    entity, key = _identifier(clause.left.text, _SEARCHABLE)
    value: Value = None
    if clause.right is not None:
        _check_assessed(entity, clause.operator, clause.right)
        value = _value(entity, key, clause.right)
    entity, key = _settled(entity, key)
    operator = _allowed(entity, key, clause.operator)
    return _checked(_special(TraceComparison(entity, key, operator, value)))


def _identifier(text: str, attributes: frozenset[str]) -> tuple[TraceEntity, str]:
    prefix, dot, rest = text.partition(".")
    if not dot:
        prefix, rest = "attribute", text
    entity = _PREFIXES.get(plain_prefix(prefix))
    if entity is None:
        raise invalid_parameter(
            f"Invalid entity type '{plain_prefix(prefix)}'. Valid values are {sorted(_PREFIXES)}"
        )
    key = plain_key(rest)
    if entity is TraceEntity.ATTRIBUTE and key not in attributes:
        raise invalid_parameter(
            f"Invalid attribute key '{key}' specified. Valid keys are '{sorted(attributes)}'"
        )
    return entity, key


def _settled(entity: TraceEntity, key: str) -> tuple[TraceEntity, str]:
    """Where the thing stands that the key names. Tags and metadata of these names cannot be asked for."""
    if entity in (TraceEntity.ATTRIBUTE, TraceEntity.TAG, TraceEntity.METADATA):
        if key.lower() in _ELSEWHERE:
            return _ELSEWHERE[key.lower()]
        if entity is TraceEntity.ATTRIBUTE:
            return entity, _NUMBERS.get(key, key)
    return entity, key


def _special(comparison: TraceComparison) -> TraceComparison:
    """Runs and prompts are found by their links, too."""
    key, operator, value = comparison.key, comparison.operator, comparison.value
    if comparison.entity is TraceEntity.METADATA and key == RUN_METADATA and operator == "=":
        return TraceComparison(TraceEntity.RUN, key, operator, value)
    if comparison.entity is not TraceEntity.TAG or key != PROMPTS_TAG:
        return comparison
    if operator != "=":
        raise invalid_parameter(
            f"Invalid comparator '{operator}' for prompts filter. Only '=' is supported with format: "
            'prompt = "name/version"'
        )
    if not isinstance(value, str) or value.count("/") != 1:
        raise invalid_parameter(
            f"Invalid prompts filter value '{value}'. Expected format: prompt = \"name/version\""
        )
    return TraceComparison(TraceEntity.PROMPT, key, operator, value)


# --- operators ------------------------------------------------------------------------------


def _allowed(entity: TraceEntity, key: str, operator: str) -> str:
    match entity:
        case TraceEntity.ATTRIBUTE if key in _NUMBERS.values():
            return _one_of(operator, _NUMERIC, "Invalid comparator")
        case TraceEntity.ATTRIBUTE:
            return _one_of(operator, _TEXT | _LIST, "Invalid comparator")
        case TraceEntity.TAG:
            return _one_of(operator, _TEXT | _NULL, "Invalid comparator")
        case TraceEntity.METADATA if key in _SUMMED_METADATA:
            return _summed_operator(key, operator)
        case TraceEntity.METADATA:
            return _one_of(operator, _TEXT | _NULL, "Invalid comparator")
        case TraceEntity.SPAN:
            return _span_operator(key, operator)
        case TraceEntity.ISSUE:
            if key != "id":
                raise invalid_parameter(f"Invalid issue attribute '{key}'. Supported attributes: id")
            return _one_of(operator, frozenset({"="}), f"issue.{key} comparator")
        case _:
            if not key:
                raise invalid_parameter("Assessment field name cannot be empty")
            return _one_of(operator, _TEXT | _ORDERED | _NULL, f"assessment.{key} comparator")


def _span_operator(key: str, operator: str) -> str:
    what = f"span.{key} comparator"
    if key == CONTENT:
        return _one_of(operator, _CONTENT_OPERATORS, what)
    if key.startswith(SPAN_ATTRIBUTES):
        if key == SPAN_ATTRIBUTES:
            raise invalid_parameter("Span attribute name cannot be empty after 'attributes.'")
    elif key not in _SPAN_KEYS:
        raise invalid_parameter(
            f"Invalid span attribute '{key}'. Supported attributes: {', '.join(sorted(_SPAN_KEYS))},"
            " attributes.<attribute_name>."
        )
    return _one_of(operator, _TEXT | _LIST, what)


def _summed_operator(key: str, operator: str) -> str:
    _one_of(operator, _TEXT | _NULL, "Invalid comparator")
    if operator not in {"=", "!=", *_NULL}:
        raise invalid_parameter(
            f"Comparator '{operator}' is not supported for reserved metadata '{key}'. "
            "Only '=', '!=', 'IS NULL', and 'IS NOT NULL' are supported."
        )
    return operator


def _one_of(operator: str, allowed: frozenset[str], what: str) -> str:
    if operator not in allowed:
        raise invalid_parameter(f"{what} '{operator}' not one of '{sorted(allowed)}'")
    return operator


def _checked(comparison: TraceComparison) -> TraceComparison:
    """Turn away a list without `IN`, `IN` without a list, and patterns that cost too much."""
    operator, value = comparison.operator, comparison.value
    is_list = isinstance(value, tuple)
    if is_list != (operator in _LIST):
        raise invalid_parameter(
            f"Invalid comparator '{operator}' for {'a list' if is_list else 'a single value'}"
            f" of {comparison.entity} '{comparison.key}'"
        )
    if operator in (Operator.LIKE, Operator.ILIKE) and len(str(value)) > MAX_PATTERN_CHARACTERS:
        raise invalid_parameter(f"A LIKE pattern is limited to {MAX_PATTERN_CHARACTERS} characters.")
    if operator == RLIKE:
        check_pattern(str(value))
    return comparison


# --- values ---------------------------------------------------------------------------------


def _check_assessed(entity: TraceEntity, operator: str, operand: Operand) -> None:
    """Assessments compare with numbers by order and with texts by everything else."""
    if entity not in (TraceEntity.FEEDBACK, TraceEntity.EXPECTATION):
        return
    is_number = operand.kind in (Kind.INTEGER, Kind.FLOAT)
    if operator in _ORDERED and not is_number:
        raise invalid_parameter(
            f"Expected a numeric value for {entity} when using comparator '{operator}'."
            f" Got value {operand.text}"
        )
    if operator not in _ORDERED and operand.kind not in (Kind.STRING, Kind.IDENTIFIER):
        raise _no_text(entity, operand)


def _value(entity: TraceEntity, key: str, operand: Operand) -> Value:
    if operand.kind in (Kind.STRING, Kind.IDENTIFIER):
        text = quoted_text(operand.text)
        return _whole(key, text) if entity is TraceEntity.ATTRIBUTE and key in _NUMBERS else text
    match entity:
        case TraceEntity.ATTRIBUTE:
            return _attribute_value(key, operand)
        case TraceEntity.FEEDBACK | TraceEntity.EXPECTATION:
            return _number(operand)
        case TraceEntity.TAG | TraceEntity.SPAN if operand.kind is Kind.LIST:
            return text_list(operand.text)
        case _:
            raise _no_text(entity, operand)


def _attribute_value(key: str, operand: Operand) -> Value:
    if operand.kind is Kind.LIST:
        if key not in _LISTABLE:
            raise invalid_parameter(
                f"Only attributes in {sorted(_LISTABLE)} supports comparison with a list of quoted string"
                " values."
            )
        return text_list(operand.text)
    if operand.kind not in (Kind.INTEGER, Kind.FLOAT):
        raise invalid_parameter(
            "Expected a quoted string value or a list of quoted string values for attributes. "
            f"Got value {operand.text}"
        )
    if key not in _NUMBERS:
        raise invalid_parameter(
            f"Only the '{sorted(_NUMBERS)}' attributes support comparison with numeric values."
        )
    return _number(operand)


def _number(operand: Operand) -> int | float:
    if operand.kind is Kind.FLOAT:
        return float(operand.text)
    number = whole_number(operand.text)
    return float(operand.text) if number is None else number


def _whole(key: str, text: str) -> int:
    number = whole_number(text)
    if number is None:
        raise invalid_parameter(f"Invalid value for numeric attribute '{key}': {text!r}")
    return number


def _no_text(entity: TraceEntity, operand: Operand) -> MlflowError:
    return invalid_parameter(
        f"Expected a quoted string value for {entity} (e.g. 'my-value'). Got value {operand.text}"
    )
