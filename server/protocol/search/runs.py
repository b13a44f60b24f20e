"""Searching runs."""

from collections.abc import Sequence

from server.domain.errors import invalid_parameter
from server.protocol.search.grammar import Field, Grammar, Holds, plain_prefix
from server.protocol.search.ordering import Sorting, read_sortings, refuse_duplicates
from server.protocol.search.quoting import plain_key
from server.protocol.search.terms import Comparison, Entity, Order

_ENTITIES = {
    "metric": Entity.METRIC,
    "metrics": Entity.METRIC,
    "param": Entity.PARAM,
    "params": Entity.PARAM,
    "parameter": Entity.PARAM,
    "parameters": Entity.PARAM,
    "tag": Entity.TAG,
    "tags": Entity.TAG,
    "attr": Entity.ATTRIBUTE,
    "attribute": Entity.ATTRIBUTE,
    "attributes": Entity.ATTRIBUTE,
    "run": Entity.ATTRIBUTE,
    "dataset": Entity.DATASET,
    "datasets": Entity.DATASET,
}
_UNKNOWN_ENTITY = "Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']"
_SORTABLE = {
    "artifact_uri": Field("artifact_uri"),
    "run_id": Field("run_id", takes_list=True),
    "run_name": Field("run_name"),
    "status": Field("status"),
    "user_id": Field("user_id"),
    "start_time": Field("start_time", Holds.NUMBER),
    "end_time": Field("end_time", Holds.NUMBER),
    "created": Field("start_time", Holds.NUMBER),
    "Created": Field("start_time", Holds.NUMBER),
}
_FIELDS = _SORTABLE | dict.fromkeys(("run name", "Run name", "Run Name"), Field("run_name"))
_GRAMMAR = Grammar(
    entities=_ENTITIES,
    unknown_entity=_UNKNOWN_ENTITY,
    fields=_FIELDS,
    nullable=frozenset({Entity.TAG, Entity.PARAM}),
    quotes_strays=True,
)


def parse_run_filter(text: str | None) -> tuple[Comparison, ...]:
    """What a runs search filters by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when the text is not in MLflow's grammar.
    """
    return _GRAMMAR.parse(text)


def parse_run_order(clauses: Sequence[str]) -> tuple[Order, ...]:
    """What a runs search sorts by.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when a clause is not in MLflow's grammar.
    """
    orders = tuple(_order(sorting) for sorting in read_sortings(clauses))
    refuse_duplicates(orders, clauses)
    return orders


def _order(sorting: Sorting) -> Order:
    prefix, dot, rest = sorting.identifier.partition(".")
    if not dot:
        prefix, rest = "attribute", sorting.identifier
    entity = _ENTITIES.get(plain_prefix(prefix))
    if entity is None:
        raise invalid_parameter(f"Invalid entity type '{plain_prefix(prefix)}'. {_UNKNOWN_ENTITY}")
    if entity is Entity.DATASET:
        raise invalid_parameter("Invalid identifier type 'dataset'")
    key = plain_key(rest)
    if entity is Entity.ATTRIBUTE:
        if key not in _SORTABLE:
            raise invalid_parameter(
                f"Invalid attribute key '{key}' specified. Valid keys are {sorted(_SORTABLE)}"
            )
        key = _SORTABLE[key].key
    return Order(entity, key, sorting.ascending)
