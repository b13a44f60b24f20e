"""What a noun's filter may say, and reading its clauses accordingly.

Runs, experiments and the registry share MLflow's one filter grammar and differ in the tables given
here. Logged models have a grammar of their own (`logged_models`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from server.domain.errors import invalid_parameter
from server.protocol.search.clauses import Clause, read_clauses
from server.protocol.search.lexing import Kind, Operand
from server.protocol.search.quoting import plain_key, quoted_text, text_list
from server.protocol.search.terms import Comparison, Entity, Operator, Value

NUMBER_OPERATORS = frozenset(
    {
        Operator.EQUAL,
        Operator.NOT_EQUAL,
        Operator.LESS,
        Operator.LESS_OR_EQUAL,
        Operator.GREATER,
        Operator.GREATER_OR_EQUAL,
    }
)
TEXT_OPERATORS = frozenset({Operator.EQUAL, Operator.NOT_EQUAL, Operator.LIKE, Operator.ILIKE})
LIST_OPERATORS = frozenset({Operator.IN, Operator.NOT_IN})
NULL_OPERATORS = frozenset({Operator.IS_NULL, Operator.IS_NOT_NULL})
ID_OPERATORS = frozenset({Operator.EQUAL, Operator.NOT_EQUAL, Operator.IN, Operator.NOT_IN})
_PATTERN_OPERATORS = frozenset({Operator.LIKE, Operator.ILIKE})

# SQLite gives up on patterns of more than 50,000 bytes; a character takes at most four.
MAX_PATTERN_CHARACTERS = 10_000
_LARGEST_INTEGER = 2**63 - 1
_NULLABLE_NAMES = {Entity.TAG: "tags", Entity.PARAM: "params"}
_DATASET_KEYS = ("context", "digest", "name")


class Holds(Enum):
    """What an attribute holds, and so what it is compared with."""

    TEXT = auto()
    NUMBER = auto()
    # Without a fraction; MLflow takes these in quotes too where `Grammar.quotes_numbers`.
    WHOLE_NUMBER = auto()
    # A number that stands in quotes, as ids do on the wire.
    ID = auto()


@dataclass(frozen=True, slots=True)
class Field:
    """An attribute one may filter by, under its canonical name."""

    key: str
    holds: Holds = Holds.TEXT
    takes_list: bool = False


@dataclass(frozen=True, slots=True)
class Grammar:
    """The filter grammar of one noun.

    `unknown_entity` ends MLflow's message for a prefix that is none of `entities`.
    """

    entities: Mapping[str, Entity]
    unknown_entity: str
    fields: Mapping[str, Field]
    nullable: frozenset[Entity] = frozenset()
    quotes_strays: bool = False
    quotes_numbers: bool = False

    def parse(self, text: str | None) -> tuple[Comparison, ...]:
        """The comparisons of a filter; no text is no comparison.

        Raises:
            MlflowError: `INVALID_PARAMETER_VALUE` when the text is not in the grammar.
        """
        if not text:
            return ()
        clauses = read_clauses(text)
        if clauses.strays:
            strays = ", ".join(f"'{stray}'" if self.quotes_strays else stray for stray in clauses.strays)
            raise invalid_parameter(f"Invalid clause(s) in filter string: {strays}")
        return tuple(self._comparison(clause) for clause in clauses.valid)

    def _comparison(self, clause: Clause) -> Comparison:
        if clause.left.kind is not Kind.IDENTIFIER:
            raise invalid_parameter(
                f"Invalid comparison clause. Expected 'Identifier' found '{clause.left.text}'"
            )
        entity, key = self._identifier(clause.left.text)
        if clause.right is None:
            return self._null_test(entity, key, Operator(clause.operator))
        match entity:
            case Entity.METRIC:
                value: Value = _metric_value(clause.right)
                operator = allowed_operator(clause.operator, NUMBER_OPERATORS)
            case Entity.PARAM | Entity.TAG:
                value = _text_value(entity, clause.right)
                operator = allowed_operator(clause.operator, TEXT_OPERATORS)
            case Entity.DATASET:
                value = _dataset_value(clause.right)
                operator = allowed_operator(clause.operator, TEXT_OPERATORS | LIST_OPERATORS)
            case Entity.ATTRIBUTE:
                field = self.fields[key]
                key = field.key
                value = self._attribute_value(field, clause.right)
                operator = allowed_operator(clause.operator, field_operators(field))
        return checked(Comparison(entity, key, operator, value))

    def _identifier(self, text: str) -> tuple[Entity, str]:
        prefix, dot, rest = text.partition(".")
        if not dot:
            prefix, rest = "attribute", text
        entity = self.entities.get(plain_prefix(prefix))
        if entity is None:
            raise invalid_parameter(f"Invalid entity type '{plain_prefix(prefix)}'. {self.unknown_entity}")
        key = plain_key(rest)
        if entity is Entity.ATTRIBUTE and key not in self.fields:
            raise invalid_parameter(
                f"Invalid attribute key '{key}' specified. Valid keys are {sorted(self.fields)}"
            )
        if entity is Entity.DATASET and key not in _DATASET_KEYS:
            raise invalid_parameter(
                f"Invalid dataset key '{key}' specified. Valid keys are {list(_DATASET_KEYS)}"
            )
        return entity, key

    def _null_test(self, entity: Entity, key: str, operator: Operator) -> Comparison:
        if entity not in self.nullable:
            names = " and ".join(name for other, name in _NULLABLE_NAMES.items() if other in self.nullable)
            raise invalid_parameter(
                f"IS NULL / IS NOT NULL is only supported for {names or 'runs and experiments'}, "
                f"not for {entity} '{key}'"
            )
        return Comparison(entity, key, operator, None)

    def _attribute_value(self, field: Field, operand: Operand) -> Value:
        if field.holds in (Holds.NUMBER, Holds.WHOLE_NUMBER):
            return self._number(field, operand)
        if operand.kind is Kind.LIST:
            if not field.takes_list:
                listable = sorted(key for key, other in self.fields.items() if other.takes_list)
                raise invalid_parameter(
                    f"Only {listable} attributes support comparison with a list of quoted string values."
                )
            texts = text_list(operand.text)
            return tuple(map(experiment_id, texts)) if field.holds is Holds.ID else texts
        if operand.kind not in (Kind.STRING, Kind.IDENTIFIER):
            raise invalid_parameter(
                f"Expected a quoted string value for attributes. Got value {operand.text}"
            )
        text = quoted_text(operand.text)
        return experiment_id(text) if field.holds is Holds.ID else text

    def _number(self, field: Field, operand: Operand) -> int | float:
        text = operand.text
        if self.quotes_numbers and operand.kind in (Kind.STRING, Kind.IDENTIFIER):
            text = quoted_text(text)
        elif operand.kind not in (Kind.INTEGER, Kind.FLOAT):
            raise invalid_parameter(
                f"Expected numeric value type for numeric attribute: {field.key}. Found {text}"
            )
        if operand.kind is Kind.FLOAT and field.holds is Holds.NUMBER:
            return float(text)
        number = whole_number(text)
        if number is None:
            raise invalid_parameter(f"Invalid value for numeric attribute '{field.key}': {text!r}")
        return number


def plain_prefix(prefix: str) -> str:
    """The entity's name without backticks around it."""
    return prefix[1:-1] if len(prefix) >= 2 and prefix[0] == prefix[-1] == "`" else prefix


def whole_number(text: str) -> int | None:
    """The integer the text stands for, if it is one and fits a database's integer."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if abs(number) <= _LARGEST_INTEGER else None


def experiment_id(text: str) -> int:
    """The id a text stands for.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when it is no integer.
    """
    number = whole_number(text)
    if number is None:
        raise invalid_parameter(f"Invalid experiment ID '{text}'. Experiment ID must be a valid integer.")
    return number


def field_operators(field: Field) -> frozenset[Operator]:
    """What an attribute may be compared by."""
    match field.holds:
        case Holds.NUMBER | Holds.WHOLE_NUMBER:
            return NUMBER_OPERATORS
        case Holds.ID:
            return ID_OPERATORS
        case Holds.TEXT:
            return TEXT_OPERATORS | LIST_OPERATORS


def allowed_operator(text: str, allowed: frozenset[Operator]) -> Operator:
    """The operator, if it is one of those allowed here."""
    try:
        operator = Operator(text)
    except ValueError:
        operator = None
    if operator is None or operator not in allowed:
        names = sorted(str(other) for other in allowed)
        raise invalid_parameter(f"Invalid comparator '{text}' not one of {names}")
    return operator


def checked(comparison: Comparison) -> Comparison:
    """The comparison, if its operator and value go together and no database will choke on it."""
    is_list = isinstance(comparison.value, tuple)
    if is_list != (comparison.operator in LIST_OPERATORS):
        raise invalid_parameter(
            f"Invalid comparator '{comparison.operator}' for "
            f"{'a list' if is_list else 'a single value'} of {comparison.entity} '{comparison.key}'"
        )
    if (
        comparison.operator in _PATTERN_OPERATORS
        and isinstance(comparison.value, str)
        and len(comparison.value) > MAX_PATTERN_CHARACTERS
    ):
        raise invalid_parameter(f"A LIKE pattern is limited to {MAX_PATTERN_CHARACTERS} characters.")
    return comparison


def _metric_value(operand: Operand) -> float:
    if operand.kind not in (Kind.INTEGER, Kind.FLOAT):
        raise invalid_parameter(f"Expected numeric value type for metric. Found {operand.text}")
    return float(operand.text)


def _text_value(entity: Entity, operand: Operand) -> str:
    if operand.kind not in (Kind.STRING, Kind.IDENTIFIER):
        raise invalid_parameter(
            f"Expected a quoted string value for {entity} (e.g. 'my-value'). Got value {operand.text}"
        )
    return quoted_text(operand.text)


def _dataset_value(operand: Operand) -> Value:
    if operand.kind is Kind.LIST:
        return text_list(operand.text)
    if operand.kind not in (Kind.STRING, Kind.IDENTIFIER):
        raise invalid_parameter(
            f"Expected a quoted string value for dataset attributes. Got value {operand.text}"
        )
    return quoted_text(operand.text)
