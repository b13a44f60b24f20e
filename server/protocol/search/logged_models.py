"""Searching logged models: a smaller grammar than the others', and order as messages."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.domain.errors import MlflowError, invalid_parameter
from server.protocol.search.clauses import Clause, read_clauses
from server.protocol.search.grammar import (
    LIST_OPERATORS,
    NUMBER_OPERATORS,
    TEXT_OPERATORS,
    Field,
    Holds,
    allowed_operator,
    checked,
    experiment_id,
    field_operators,
)
from server.protocol.search.lexing import Kind, Operand, refuse_unsearchable
from server.protocol.search.ordering import refuse_many
from server.protocol.search.quoting import plain_key, text_list
from server.protocol.search.terms import Comparison, DatasetFilter, Entity, Order, Value

_ENTITIES = {
    "attributes": Entity.ATTRIBUTE,
    "metrics": Entity.METRIC,
    "params": Entity.PARAM,
    "tags": Entity.TAG,
}
_CREATION = Field("creation_timestamp", Holds.NUMBER)
_LAST_UPDATE = Field("last_updated_timestamp", Holds.NUMBER)
_FIELDS = {
    "artifact_location": Field("artifact_location", takes_list=True),
    "creation_time": _CREATION,
    "creation_timestamp": _CREATION,
    "creation_timestamp_ms": _CREATION,
    "experiment_id": Field("experiment_id", Holds.ID, takes_list=True),
    "last_updated_time": _LAST_UPDATE,
    "last_updated_timestamp": _LAST_UPDATE,
    "last_updated_timestamp_ms": _LAST_UPDATE,
    "model_id": Field("model_id", takes_list=True),
    "model_type": Field("model_type", takes_list=True),
    "name": Field("name", takes_list=True),
    "source_run_id": Field("source_run_id", takes_list=True),
    "status": Field("status", takes_list=True),
    "status_message": Field("status_message", takes_list=True),
}


@dataclass(frozen=True, slots=True)
class LoggedModelOrderBy:
    """One `order_by` message of a search request."""

    field_name: str
    ascending: bool = True
    dataset_name: str | None = None
    dataset_digest: str | None = None


def parse_logged_model_filter(text: str | None) -> tuple[Comparison, ...]:
    """What a logged models search filters by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when the text is not in MLflow's grammar.
    """
    if not text:
        return ()
    clauses = read_clauses(text)
    if clauses.strays:
        raise invalid_parameter(
            f"Invalid filter string: {text!r}. Expected a list of comparisons separated by 'AND' "
            "(e.g. 'metrics.loss > 0.1 AND params.lr = 0.01')."
        )
    return tuple(_comparison(clause) for clause in clauses.valid)


def parse_logged_model_order(messages: Sequence[LoggedModelOrderBy]) -> tuple[Order, ...]:
    """What a logged models search sorts by: attributes, and metrics optionally on one dataset.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when a field cannot be sorted by.
    """
    refuse_many(messages)
    return tuple(_order(message) for message in messages)


def parse_logged_model_datasets(pairs: Sequence[tuple[str, str | None]]) -> tuple[DatasetFilter, ...]:
    """The datasets, as (name, digest), that metrics may come from. No digest is any digest.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when a name is missing.
    """
    refuse_many(pairs)
    if not all(name for name, _ in pairs):
        raise invalid_parameter("`dataset_name` in the `datasets` clause must be specified.")
    for name, digest in pairs:
        refuse_unsearchable(name)
        refuse_unsearchable(digest or "")
    return tuple(DatasetFilter(name, digest or None) for name, digest in pairs)


def _comparison(clause: Clause) -> Comparison:
    if clause.right is None:
        raise invalid_parameter(
            f"Invalid comparison: {clause.left.text} {clause.operator}. Expected a comparison with 3 tokens."
        )
    entity, key = _identifier(clause.left)
    field = _FIELDS[key] if entity is Entity.ATTRIBUTE else Field(key)
    if entity is Entity.METRIC:
        operator = allowed_operator(clause.operator, NUMBER_OPERATORS)
        value: Value = _number(clause.right)
    elif entity is Entity.ATTRIBUTE:
        operator = allowed_operator(clause.operator, field_operators(field))
        value = _attribute_value(field, clause.right)
    else:
        operator = allowed_operator(clause.operator, TEXT_OPERATORS | LIST_OPERATORS)
        value = _text(clause.right)
    return checked(Comparison(entity, field.key, operator, value))


def _identifier(operand: Operand) -> tuple[Entity, str]:
    if operand.kind is not Kind.IDENTIFIER:
        raise invalid_parameter(f"Invalid comparison. Expected an identifier, found '{operand.text}'.")
    prefix, dot, rest = operand.text.partition(".")
    if not dot:
        prefix, rest = "attributes", operand.text
    entity = _ENTITIES.get(prefix)
    if entity is None:
        raise invalid_parameter(f"Invalid entity type: {prefix!r}. Expected one of {list(_ENTITIES)}.")
    key = plain_key(rest)
    if entity is Entity.ATTRIBUTE and key not in _FIELDS:
        raise invalid_parameter(f"Invalid attribute key '{key}' specified. Valid keys are {sorted(_FIELDS)}")
    return entity, key


def _attribute_value(field: Field, operand: Operand) -> Value:
    if field.holds is Holds.NUMBER:
        return _number(operand)
    text = _text(operand)
    if field.holds is Holds.TEXT:
        return text
    return tuple(map(experiment_id, text)) if isinstance(text, tuple) else experiment_id(text)


def _number(operand: Operand) -> float:
    if operand.kind not in (Kind.INTEGER, Kind.FLOAT):
        raise invalid_parameter(f"Expected numeric value type. Found {operand.text}")
    return float(operand.text)


def _text(operand: Operand) -> str | tuple[str, ...]:
    """The text, in quotes or bare: this grammar takes `params.lr = 0.01` for text."""
    if operand.kind is Kind.LIST:
        return text_list(operand.text)
    for quote in ("'", '"'):
        if len(operand.text) >= 2 and operand.text[0] == operand.text[-1] == quote:
            return operand.text[1:-1]
    return operand.text


def _order(message: LoggedModelOrderBy) -> Order:
    for text in (message.field_name, message.dataset_name, message.dataset_digest):
        refuse_unsearchable(text or "")
    prefix, dot, key = message.field_name.partition(".")
    if not dot:
        field = _FIELDS.get(message.field_name.strip())
        if field is None:
            raise _not_sortable(message.field_name)
        return Order(Entity.ATTRIBUTE, field.key, message.ascending)
    if prefix != "metrics":
        raise invalid_parameter(
            f"Invalid order by field name: {message.field_name}. Only metrics are supported."
        )
    return Order(
        Entity.METRIC,
        key,
        message.ascending,
        dataset_name=message.dataset_name or None,
        dataset_digest=message.dataset_digest or None,
    )


def _not_sortable(field_name: str) -> MlflowError:
    return invalid_parameter(f"Invalid order by field name: {field_name}")
