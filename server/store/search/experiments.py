"""Finding experiments."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, not_, or_, select

from server.database.schema import experiment_tags, experiments
from server.domain.entities import ViewType
from server.domain.name_patterns import NamePatterns
from server.protocol.search.terms import Comparison, Entity, Operator, Order
from server.store.name_patterns import ESCAPE, glob_operands, like_operands
from server.store.search.conditions import Conditions
from server.store.search.lifecycles import STAGES
from server.store.search.pages import read_page

_COLUMNS = {
    "creation_time": experiments.c.creation_time_ms,
    "experiment_id": experiments.c.experiment_id,
    "last_update_time": experiments.c.last_update_time_ms,
    "name": experiments.c.name,
}
_DEFAULT_ORDER = (
    Order(Entity.ATTRIBUTE, "creation_time", ascending=False),
    Order(Entity.ATTRIBUTE, "experiment_id", ascending=True),
)


def find_experiments(
    connection: Connection,
    *,
    view: ViewType,
    filters: Sequence[Comparison],
    order: Sequence[Order],
    offset: int,
    limit: int,
    visible: NamePatterns | None = None,
) -> tuple[list[int], bool]:
    """The experiments that meet every filter, in order, and whether there are more.

    Where `visible` is given, only those of such a name are there.

    Without an order the newest come first, then by id. With one, ties go to the highest id.
    """
    conditions = Conditions(dialect=connection.dialect.name)
    query = (
        select(experiments.c.experiment_id)
        .where(
            experiments.c.lifecycle_stage.in_(STAGES[view]),
            *(_condition(conditions, comparison) for comparison in filters),
            *([] if visible is None else [_has_name_like(connection.dialect.name, visible)]),
        )
        .order_by(*_sorting(order or _DEFAULT_ORDER))
    )
    rows, has_more = read_page(connection, query, offset=offset, limit=limit)
    return [row.experiment_id for row in rows], has_more


def _has_name_like(dialect: str, names: NamePatterns) -> ColumnElement[bool]:
    name = experiments.c.name
    if dialect == "postgresql":
        return or_(*(name.like(operand, escape=ESCAPE) for operand in like_operands(names)))
    return or_(*(name.op("GLOB", is_comparison=True)(operand) for operand in glob_operands(names)))


def _condition(conditions: Conditions, comparison: Comparison) -> ColumnElement[bool]:
    if comparison.entity is Entity.ATTRIBUTE:
        return conditions.compare(_COLUMNS[comparison.key], comparison)
    has_key = and_(
        experiment_tags.c.experiment_id == experiments.c.experiment_id,
        experiment_tags.c.key == comparison.key,
    )
    match comparison.operator:
        case Operator.IS_NULL:
            return not_(exists().where(has_key))
        case Operator.IS_NOT_NULL:
            return exists().where(has_key)
        case _:
            return exists().where(has_key, conditions.compare(experiment_tags.c.value, comparison))


def _sorting(order: Sequence[Order]) -> list[ColumnElement[Any]]:
    sorting: list[ColumnElement[Any]] = []
    for key in order:
        column = _COLUMNS[key.key]
        sorting.append(column.asc() if key.ascending else column.desc())
    if not any(key.key == "experiment_id" for key in order):
        sorting.append(experiments.c.experiment_id.desc())
    return sorting
