"""The few runs that a selective condition leaves, found by its value.

A condition that says exactly what a param, a tag or a run's name is gets looked up in an index by value, no
further than to `_FEW`: either it leaves few runs, and the search looks at these alone, or it does not, and
little was spent on finding out.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, literal_column, select

from server.database.schema import params, runs, tags
from server.protocol.search.terms import Comparison, Entity, Operator

_FEW = 1000
_MOST_LOOKS = 5
_INDEXED = 64
"""How much of a value the indexes hold, in characters."""
_TABLES: dict[Entity, Table] = {Entity.PARAM: params, Entity.TAG: tags}


def find_candidates(
    connection: Connection, experiment_ids: Sequence[int], filters: Sequence[Comparison]
) -> list[int] | None:
    """All runs that can meet these conditions, and perhaps others; None if they are not known to be few."""
    looks = [query for each in filters if (query := _by_value(experiment_ids, each)) is not None]
    for query in looks[:_MOST_LOOKS]:
        found = list(connection.scalars(query.limit(_FEW + 1)))
        if len(found) <= _FEW:
            return found
    return None


def _by_value(experiment_ids: Sequence[int], comparison: Comparison) -> Select[Any] | None:
    """The runs that this condition leaves, by the index that knows them; None if there is none."""
    table = _TABLES.get(comparison.entity)
    if comparison.operator not in (Operator.EQUAL, Operator.IN):
        return None
    if table is not None:
        query = select(table.c.run_pk).where(table.c.key == comparison.key)
        return query.where(_begins_like(table.c.value, comparison.value))
    if comparison.entity is Entity.ATTRIBUTE and comparison.key == "run_name":
        query = select(runs.c.run_pk).where(runs.c.experiment_id.in_(experiment_ids))
        return query.where(_begins_like(runs.c.name, comparison.value))
    return None


def _begins_like(column: Column[Any], value: Any) -> ColumnElement[bool]:
    """That as much of a text as the index holds is that of the value, or of one of them."""
    values = [value] if isinstance(value, str) else list(value)
    # Written out, as the index was: with parameters it would be another expression.
    beginning: ColumnElement[str] = literal_column(
        f"substr({column.table.name}.{column.name}, 1, {_INDEXED})"
    )
    return beginning.in_({each[:_INDEXED] for each in values})
