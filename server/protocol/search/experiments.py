"""Searching experiments."""

from collections.abc import Sequence

from server.domain.errors import invalid_parameter
from server.protocol.search.grammar import Field, Grammar, Holds
from server.protocol.search.ordering import read_sortings
from server.protocol.search.plain_entities import ENTITIES, UNKNOWN_ENTITY, attribute_or_tag
from server.protocol.search.terms import Comparison, Entity, Order

_FIELDS = {
    "name": Field("name"),
    "experiment_id": Field("experiment_id", Holds.ID, takes_list=True),
    "creation_time": Field("creation_time", Holds.WHOLE_NUMBER),
    "last_update_time": Field("last_update_time", Holds.WHOLE_NUMBER),
}
_GRAMMAR = Grammar(
    entities=ENTITIES,
    unknown_entity=UNKNOWN_ENTITY,
    fields=_FIELDS,
    nullable=frozenset({Entity.TAG}),
)


def parse_experiment_filter(text: str | None) -> tuple[Comparison, ...]:
    """What an experiments search filters by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when the text is not in MLflow's grammar.
    """
    return _GRAMMAR.parse(text)


def parse_experiment_order(clauses: Sequence[str]) -> tuple[Order, ...]:
    """What an experiments search sorts by: attributes only.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when a clause is not in MLflow's grammar.
    """
    orders: list[Order] = []
    for sorting in read_sortings(clauses):
        entity, key = attribute_or_tag(sorting.identifier, frozenset(_FIELDS))
        if entity is not Entity.ATTRIBUTE:
            raise invalid_parameter(f"Invalid order_by entity: {entity}")
        orders.append(Order(entity, key, sorting.ascending))
    return tuple(orders)
