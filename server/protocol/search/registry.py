"""Searching registered models and model versions."""

from collections.abc import Sequence

from server.domain.errors import invalid_parameter
from server.protocol.search.grammar import Field, Grammar, Holds
from server.protocol.search.ordering import read_sortings, refuse_duplicates
from server.protocol.search.plain_entities import ENTITIES, UNKNOWN_ENTITY, attribute_or_tag
from server.protocol.search.quoting import plain_key
from server.protocol.search.terms import Comparison, Entity, Order

_MODEL_GRAMMAR = Grammar(
    entities=ENTITIES, unknown_entity=UNKNOWN_ENTITY, fields={"name": Field("name", takes_list=True)}
)
# MLflow's "timestamp" of a registered model is that of its last update.
_MODEL_SORTINGS = {
    "name": "name",
    "timestamp": "last_updated_timestamp",
    "last_updated_timestamp": "last_updated_timestamp",
}
_VERSION_GRAMMAR = Grammar(
    entities=ENTITIES,
    unknown_entity=UNKNOWN_ENTITY,
    fields={
        "name": Field("name", takes_list=True),
        "run_id": Field("run_id", takes_list=True),
        "source_path": Field("source_path"),
        "version_number": Field("version_number", Holds.WHOLE_NUMBER),
    },
    quotes_numbers=True,
)
_VERSION_SORTINGS = frozenset({"name", "version_number", "creation_timestamp", "last_updated_timestamp"})


def parse_registered_model_filter(text: str | None) -> tuple[Comparison, ...]:
    """What a registered models search filters by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when the text is not in MLflow's grammar.
    """
    return _MODEL_GRAMMAR.parse(text)


def parse_registered_model_order(clauses: Sequence[str]) -> tuple[Order, ...]:
    """What a registered models search sorts by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when a clause is not in MLflow's grammar.
    """
    orders: list[Order] = []
    for sorting in read_sortings(clauses):
        key = _MODEL_SORTINGS.get(plain_key(sorting.identifier))
        if key is None:
            raise invalid_parameter(
                f"Invalid order by key '{sorting.identifier}' specified. Valid keys are ['name', 'timestamp']"
            )
        orders.append(Order(Entity.ATTRIBUTE, key, sorting.ascending))
    refuse_duplicates(orders, clauses)
    return tuple(orders)


def parse_model_version_filter(text: str | None) -> tuple[Comparison, ...]:
    """What a model versions search filters by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when the text is not in MLflow's grammar.
    """
    return _VERSION_GRAMMAR.parse(text)


def parse_model_version_order(clauses: Sequence[str]) -> tuple[Order, ...]:
    """What a model versions search sorts by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when a clause is not in MLflow's grammar.
    """
    orders: list[Order] = []
    for sorting in read_sortings(clauses):
        _, key = attribute_or_tag(sorting.identifier, _VERSION_SORTINGS)
        # A stock server never looks at the prefix once the key is one it knows.
        if key not in _VERSION_SORTINGS:
            raise invalid_parameter(
                f"Invalid order by key '{key}' specified. Valid keys are {sorted(_VERSION_SORTINGS)}"
            )
        orders.append(Order(Entity.ATTRIBUTE, key, sorting.ascending))
    refuse_duplicates(orders, clauses)
    return tuple(orders)
