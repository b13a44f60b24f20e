"""Finding evaluation datasets."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, select

from server.database.schema_evaluation import (
    evaluation_dataset_experiments,
    evaluation_dataset_tags,
    evaluation_datasets,
)
from server.protocol.search.terms import Comparison, Entity, Order
from server.store.search.conditions import Conditions
from server.store.search.pages import read_page

_COLUMNS = {
    "name": evaluation_datasets.c.name,
    "created_time": evaluation_datasets.c.created_time_ms,
    "last_update_time": evaluation_datasets.c.last_update_time_ms,
    "created_by": evaluation_datasets.c.created_by,
    "last_updated_by": evaluation_datasets.c.last_updated_by,
}
_DEFAULT_ORDER = (Order(Entity.ATTRIBUTE, "created_time", ascending=False),)


def find_evaluation_datasets(
    connection: Connection,
    *,
    experiment_ids: Sequence[int],
    filters: Sequence[Comparison],
    order: Sequence[Order],
    offset: int,
    limit: int,
) -> tuple[list[int], bool]:
    """The datasets, as dataset_pk, that meet every filter, in order, and whether there are more.

    No experiments means all. Without an order the newest come first; ties go to the highest id.
    """
    conditions = Conditions(dialect=connection.dialect.name)
    query = select(evaluation_datasets.c.dataset_pk)
    if experiment_ids:
        query = query.where(
            exists().where(
                evaluation_dataset_experiments.c.dataset_pk == evaluation_datasets.c.dataset_pk,
                evaluation_dataset_experiments.c.experiment_id.in_(experiment_ids),
            )
        )
    for comparison in filters:
        query = query.where(_condition(conditions, comparison))
    query = query.order_by(
        *(_sorting(key) for key in order or _DEFAULT_ORDER), evaluation_datasets.c.dataset_id.desc()
    )
    rows, has_more = read_page(connection, query, offset=offset, limit=limit)
    return [row.dataset_pk for row in rows], has_more


def _condition(conditions: Conditions, comparison: Comparison) -> ColumnElement[bool]:
    if comparison.entity is Entity.ATTRIBUTE:
        return conditions.compare(_COLUMNS[comparison.key], comparison)
    return exists().where(
        evaluation_dataset_tags.c.dataset_pk == evaluation_datasets.c.dataset_pk,
        evaluation_dataset_tags.c.key == comparison.key,
        conditions.compare(evaluation_dataset_tags.c.value, comparison),
    )


def _sorting(order: Order) -> ColumnElement[Any]:
    column = _COLUMNS[order.key]
    return column.asc() if order.ascending else column.desc()
