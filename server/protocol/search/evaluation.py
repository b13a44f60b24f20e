"""Searching evaluation datasets."""

from collections.abc import Sequence

from server.domain.errors import invalid_parameter
from server.protocol.search.grammar import Field, Grammar, Holds
from server.protocol.search.ordering import read_sortings, refuse_duplicates
from server.protocol.search.terms import Comparison, Entity, Operator, Order

_GRAMMAR = Grammar(
    entities={"attribute": Entity.ATTRIBUTE, "tags": Entity.TAG},
    unknown_entity="Valid entity types are ('attribute', 'tags')",
    fields={
        "name": Field("name", takes_list=True),
        "created_time": Field("created_time", Holds.WHOLE_NUMBER),
        "last_update_time": Field("last_update_time", Holds.WHOLE_NUMBER),
        "created_by": Field("created_by"),
        "last_updated_by": Field("last_updated_by"),
    },
)
_SORTABLE = frozenset({"name", "created_time", "last_update_time"})


def parse_evaluation_dataset_filter(text: str | None) -> tuple[Comparison, ...]:
    """What a search for evaluation datasets filters by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when the text is not in MLflow's grammar.
    """
    comparisons = _GRAMMAR.parse(text)
    if any(comparison.operator is Operator.NOT_IN for comparison in comparisons):
        raise invalid_parameter("List values for 'name' are only supported with the IN comparator.")
    return comparisons


def parse_evaluation_dataset_order(clauses: Sequence[str]) -> tuple[Order, ...]:
    """What a search for evaluation datasets sorts by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when a clause is not in MLflow's grammar.
    """
    orders: list[Order] = []
    for sorting in read_sortings(clauses):
        key = sorting.identifier
        if key not in _SORTABLE:
            raise invalid_parameter(
                f"Invalid attribute key '{key}' specified. Valid keys are: {sorted(_SORTABLE)}"
            )
        orders.append(Order(Entity.ATTRIBUTE, key, sorting.ascending))
    refuse_duplicates(orders, clauses)
    return tuple(orders)
