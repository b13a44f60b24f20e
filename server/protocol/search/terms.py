"""What a search asks for, once its text has been read."""

from dataclasses import dataclass
from enum import StrEnum

# A filter's value: quoted text, a number, a list of either, or nothing (`IS NULL`).
Value = str | float | int | tuple[str, ...] | tuple[int, ...] | None


class Entity(StrEnum):
    """What a key belongs to. The values are MLflow's own names, as its messages print them."""

    METRIC = "metric"
    PARAM = "parameter"
    TAG = "tag"
    ATTRIBUTE = "attribute"
    DATASET = "dataset"


class Operator(StrEnum):
    """How a filter compares."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    LIKE = "LIKE"
    ILIKE = "ILIKE"
    IN = "IN"
    NOT_IN = "NOT IN"
    IS_NULL = "IS NULL"
    IS_NOT_NULL = "IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition; a filter is the conjunction of its comparisons.

    Attribute keys are canonical (`created` has become `start_time`). The value fits the operator:
    a tuple for `IN` and `NOT IN`, `None` for the null tests, else text or a number.
    """

    entity: Entity
    key: str
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class Order:
    """One sort key. The dataset narrows a logged model's metric; other searches leave it out."""

    entity: Entity
    key: str
    ascending: bool
    dataset_name: str | None = None
    dataset_digest: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetFilter:
    """A dataset a logged model's metrics may come from; without a digest, any version of it."""

    name: str
    digest: str | None
